"""Writes records of runs, as a finished or failed run leaves them.

What a run measured is said by the class of its metric, so no record holds what no evaluator gives.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from segsweep.base.config import Config, plain
from segsweep.metrics.base import Metric
from segsweep.run.record import metric_facts
from tests import words

HPARAMS = {"name": "default", "lr": 1e-3, "weight_decay": 0.05, "batch_size": 4, "epochs": 10}
TRAINER = {"name": "default", "accelerator": "auto", "devices": 1, "precision": "fp32"}
PEFT = {
    "frozen": {"train": []},
    "full_head": {"lr": 1e-4, "train": ["head"]},
    "decoder_only": {"lr": 1e-4, "train": ["decoder"]},
    "embeddings_only": {"lr": 1e-4, "train": ["embeddings"]},
    "adapter": {"repeats": 1, "reduction": 4, "residual": "kappa+lambda", "train": ["embeddings"]},
    "lora": {"rank": 8, "alpha": 8.0, "train": ["embeddings"]},
}


def record(
    peft: str = "lora",
    ap: float | None = 40.0,
    *,
    trainable: int = 380_000,
    total: int = 52_000_000,
    data: str = "digits",
    domain: str = "xray",
    model: str = "maskdino_tiny",
    seed: int = 0,
    repeat: int = 0,
    commit: str = "0123456789abcdef",
    metrics: str | Metric = "coco",
    hparams: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the record of one run; `ap=None` gives a failed one, `options` are keys of peft.

    Every value of its metric is `ap`, those at IoU 0.5 are 20 higher.
    """
    metric = judge(metrics) if isinstance(metrics, str) else metrics
    method = {"name": peft, "lr": 1e-3, **PEFT.get(peft, {}), **options}
    if peft == "lora":
        method["alpha"] = options.get("alpha", float(method["rank"]))
    place = {"domain": domain} if data == "digits" else {"root": domain}
    config = {
        "seed": seed,
        "repeat": repeat,
        "model": {"_target_": "x.MaskDINO", "name": model, "hidden": 64, "levels": ["p3", "p4"]},
        "peft": {"_target_": "x.Method", **method},
        "data": {"_target_": "x.Data", "name": data, "size": [64, 64], **place},
        "hparams": HPARAMS | {"lr": method["lr"]} | (hparams or {}),
        "metrics": plain(metric),
        "trainer": TRAINER,
        "logger": {"name": "none"},
        "io": {"results": "results", "workers": seed},
        "force": False,
    }
    key = hashlib.sha256(json.dumps(config).encode()).hexdigest()[:12]
    head = {
        "schema": 1,
        "id": key,
        "name": f"{model}-{peft}-{data}-{key}",
        "status": "failed",
        "config": config,
        "choices": {"model": model, "peft": peft, "data": data},
        "git": {"commit": commit, "dirty": False},
        "versions": {"segsweep": "0.1.0"},
        "started": "2026-11-20T10:00:00+00:00",
        "ended": "2026-11-20T10:05:00+00:00",
    }
    if ap is None:
        text = "CUDA out of memory\nmore"
        return head | {"error": {"type": "OutOfMemoryError", "message": text, "traceback": "T"}}
    values: dict[str, float | None] = {
        name: ap + 20 * name.endswith("50") for name in metric.names()
    }
    return head | {
        "status": "done",
        "metrics": metric_facts(metric, values),
        "params": {
            "trainable": trainable,
            "total": total,
            "percent": 100 * trainable / total,
            "base": "b" * 12,
        },
        "memory": {"peak_rss_mib": 900.0, "peak_cuda_mib": None},
        "seconds": {"setup": 1.0, "train": 60.0, "evaluate": 2.0, "total": 63.0},
        "device": "cpu",
        "data": {"fingerprint": f"{data}{domain}", "classes": ["0"], "images": {"train": 64}},
        "best": {"epoch": 9, "step": 160},
        "error": None,
    }


def record_of(config: Config, ap: float = 40.0) -> dict[str, Any]:
    """Return the record of a finished run of a composed config, whose data need not be there.

    Every value of its metric is `ap`.
    """
    model, peft, data = config.model.name, config.peft.name, config.data.name
    place = str(plain(config.data))
    one = record(peft, ap, data=data, domain=place, model=model, metrics=config.metrics)
    key = hashlib.sha256(json.dumps(plain(config)).encode()).hexdigest()[:12]
    name = f"{model}-{peft}-{data}-{key}"
    return one | {"id": key, "name": name, "config": plain(config)}


@cache
def judge(word: str) -> Metric:
    """Return a metric as its yaml makes it."""
    options: Any = OmegaConf.to_container(OmegaConf.load(words.files("metrics")[word]))
    del options["_target_"]
    kind: Any = words.class_of("metrics", word)
    return kind(**options)


def write(results: Path, *records: dict[str, Any]) -> list[Path]:
    """Write records to their run directories and return these."""
    directories = []
    for one in records:
        directory = results / "runs" / one["name"]
        directory.mkdir(parents=True, exist_ok=True)
        file = "record.json" if one["status"] == "done" else "failed.json"
        (directory / file).write_text(json.dumps(one, indent=1))
        directories.append(directory)
    return directories
