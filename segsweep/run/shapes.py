"""The files of a run's folder, each read by its shape: what is used of them is what it says.

Folders may come from elsewhere, be half copied or lie on a bad disk. Whatever reads one gets values
of these shapes, None for what is absent, or `Damaged`. Other keys are as they are: records of
later versions have more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from segsweep.base.errors import Damaged
from segsweep.base.files import NAME, Either, checked, read_bytes, read_json

COUNT = range(10**15)
ID = re.compile(r"\w+")  # of a job
USER = re.compile(r"[^\s,-][^,\x00-\x1f\x7f]*")  # who is asked for on a command line
WORD = {"name": NAME, "label?": str}
ANY = {...: float | None}
RECALL = {"objects": COUNT, "recall": float | None}
MISTAKE = [str, str, COUNT, float]  # true class, what it is taken for, pixels, percent of the true

CONFIG = {
    "seed?": int,
    "repeat?": int,
    "model": {**WORD, "weights?": str | None},
    "peft": {**WORD, "lr?": float, "train?": [str]},
    "data": {**WORD, "slices?": [str]},
    "hparams?": {"epochs?": COUNT, "batch_size?": COUNT, "lr?": float},
    "metrics?": {"name?": NAME, "key?": str | None},
    "trainer?": {"devices?": COUNT, "nodes?": COUNT, "accelerator?": str, "precision?": str},
    "logger?": {"name?": NAME},
}
SLICES = {...: {...: {...: float | None}}}
OF_OBJECTS = {
    "recall": {"all": RECALL, ...: RECALL},
    "best": ({...: float}, None),
    "calibration": {"ECE": float | None, "bins": [[COUNT, float | None, float | None]]},
    "errors": ({...: ANY}, None),
    "slices": SLICES,
}
OF_MAPS = {
    "image_iou": ANY,
    "classes": [{"class": str, "IoU": float | None}],
    "confusions": [MISTAKE],
    "regions": {...: {"IoU": float | None, ...: float | None}},
    "slices": SLICES,
}
ANALYSIS = Either("image_iou", OF_MAPS, OF_OBJECTS)
RECORD = {
    "schema": int,
    "id": NAME,
    "status": str,
    "name?": NAME,
    "config": CONFIG,
    "choices?": {...: NAME},
    "metrics?": {...: {"value": float | None, "unit?": str, "direction?": str, "quantity?": str,
                       "protocol?": str}},
    "params?": {"trainable?": COUNT, "total?": COUNT, "percent?": float},
    "seconds?": {...: float},
    "memory?": {...: float | None},
    "data?": {"fingerprint?": str, "classes?": [str], "prompts?": [str], "images?": {...: COUNT},
              "category_ids?": [int], "background?": bool | None,
              "ceiling?": ({"metric": str, "value": float}, None)},
    "best?": ({"epoch": float, "step": COUNT, "value?": float | None}, None),
    "analysis?": (ANALYSIS, None),
    "bench?": {"median_ms?": float, "flops?": float | None, "checkpoint_bytes?": float | None,
               "ratio?": ANY, "extra_ms?": ANY, "images_per_s?": ANY, "base?": str,
               "train?": {"median_ms?": float, "peak_mib?": float, "total_s?": float | None}},
    "classes?": ([{"class": str}], None),
    "predictions?": ({"sha256": str, "bytes": COUNT}, None),
    "files?": ({...: {"sha256": str, "bytes": COUNT}}, None),
    "started?": str,
    "ended?": str,
    "git?": {"commit?": str | None, "dirty?": bool | None},
    "versions?": {...: str},
}  # fmt: skip
FAILURE = {
    "status": str,
    "ended?": str,
    "error?": ({"type?": str, "message?": str, "traceback?": str}, None),
}
JOB = {
    "id": ID,
    "comment?": str,
    "user?": USER,
    "attempts?": COUNT,
    "launcher?": dict,
    "cancelled?": str | None,
}
LINE = {"step": COUNT, "epoch": float, "time": float, ...: float | None}


DEEP = 50  # levels of a config; much deeper ones end the process that reads them
INLINE = re.compile(rf"(?:[-?:][ \t]+){{{DEEP}}}")
BRACKETS = re.compile(r"[\[\]{}]")
LONGEST = 2**20  # bytes of a config


def config_text(directory: Path) -> str | None:
    """Return the text of the frozen config of a run, None where there is none.

    Raises Damaged for what no run has frozen: no text, aliases (few of them stand for gigabytes),
    endless nesting (which ends a process without a word).
    """
    path = directory / "config.yaml"
    content = read_bytes(path, most=LONGEST)
    try:
        text = None if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise Damaged(path, f"bytes that are no UTF-8 ({error.reason})") from error
    if text is None:
        return None
    depths = accumulate(1 if bracket in "[{" else -1 for bracket in BRACKETS.findall(text))
    if INLINE.search(text) or max(depths, default=0) > DEEP:
        raise Damaged(path, "is nested too deeply for a config")
    if "&" in text and "*" in text and _aliases(text):
        raise Damaged(path, "has aliases, which no frozen config has")
    return text


def _aliases(text: str) -> bool:
    import yaml

    try:
        return any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text))
    except yaml.YAMLError:
        return False  # whoever parses it says what is wrong


def record_of(directory: Path) -> dict[str, Any] | None:
    """Return the record of a finished run."""
    cure = "bring it back from a copy, or delete it and give the command of the run again"
    return read_json(directory / "record.json", RECORD, cure)


def failure_of(directory: Path) -> dict[str, Any] | None:
    """Return why the last attempt of a run ended early."""
    cure = "delete it: it says only why the last attempt ended"
    return read_json(directory / "failed.json", FAILURE, cure)


def job_of(directory: Path) -> dict[str, Any] | None:
    """Return the job that a run was last submitted as."""
    cure = "if no job of the run waits or runs, delete it"
    return read_json(directory / "job.json", JOB, cure)


def reason(failure: dict[str, Any]) -> str:
    """Return kind and first line of the error that ended an attempt, nothing if it had none."""
    error = failure.get("error") or {}
    said = (error.get("message") or "").strip().splitlines()[:1]
    return ": ".join(filter(None, [error.get("type"), *said]))


def curve(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a curve that can be read: a killed run leaves half of one.

    What was no number when it was logged, as the loss of a run that diverged, is None.
    """
    for text in lines:
        try:
            yield checked(text, LINE, nan=True)
        except ValueError:
            continue
