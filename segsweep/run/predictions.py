"""What a run found on the images of its evaluation, in one file: `predictions.jsonl.gz`.

    {"schema": 1, "run": id, "split": "val", "classes": [...], "data": fingerprint}
    {"image_id": 7, "size": [h, w], "found": [[category, score, [x, y, w, h], "RLE counts"], ...]}
    ...

One line per image in the order of evaluation, its instances best first, categories contiguous
(0..K-1), all numbers as they were evaluated. So whatever follows from predictions can be computed
again, to the last bit, without the model. Equal predictions give equal bytes. Nothing here imports
torch.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import checked, opened
from segsweep.run.folder import PREDICTIONS, known_hash, verified
from segsweep.run.shapes import record_of

if TYPE_CHECKING:
    from segsweep.run.identity import Run

SCHEMA = 1
FILE = PREDICTIONS
HEAD = {"schema": int, "run?": str, "split?": str, "classes?": [str], "data": str}
IMAGE = {
    "image_id": int,
    "size": ([range(1, 2**16)] * 2, None),
    "found": [[range(2**16), float, [float] * 4, str]],
}

Found = list[dict[str, Any]]
"""Instances of one image, best first: category_id, score, bbox [x, y, w, h], segmentation (RLE)."""


@dataclass(frozen=True)
class Writer:
    """Takes in the instances of images, one after the other."""

    lines: TextIO

    def add(self, image_id: int, predicted: Found) -> None:
        """Write the instances of one image in the COCO form, as the metric takes them in."""
        size = predicted[0]["segmentation"]["size"] if predicted else None
        instances = [
            (entry["category_id"], entry["score"], entry["bbox"], entry["segmentation"]["counts"])
            for entry in predicted
        ]
        self.put({"image_id": image_id, "size": size, "found": instances})

    def put(self, value: dict[str, Any]) -> None:
        """Write one line."""
        self.lines.write(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


@contextmanager
def writing(path: Path, head: dict[str, Any]) -> Iterator[Writer]:
    """Write a file of predictions."""
    with (
        path.open("wb") as raw,
        # neither a name nor a time in its head
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="ascii") as lines,
    ):
        writer = Writer(lines)
        writer.put({"schema": SCHEMA, **head})
        yield writer


@contextmanager
def keeping(run: Run) -> Iterator[Callable[[Sequence[int], Sequence[Any]], None]]:
    """Keep what an evaluation finds, where `io.predictions` says so and its task can be kept.

    Yields a function of image ids and what was found on them, batch by batch. Afterwards the file
    is there, whole, or there is none.
    """
    from segsweep.task.base import kind

    config = run.config
    run.delete(FILE)  # of an earlier attempt
    if not (config.io.predictions and kind(config.data.task).kept):
        yield lambda image_ids, instances: None
        return
    head = {
        "run": run.id,
        "split": "val",
        "classes": config.data.classes(),
        "data": config.data.fingerprint(),
    }
    with run.writing(FILE) as path, writing(path, head) as writer:

        def keep(image_ids: Sequence[int], instances: Sequence[Any]) -> None:
            for image_id, found in zip(image_ids, instances, strict=True):
                writer.add(image_id, found.coco)

        yield keep


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions; iterating reads it image by image, as often as asked."""

    path: Path
    head: dict[str, Any]

    def __iter__(self) -> Iterator[tuple[int, Found]]:
        """Yield (image_id, instances). Raises UserError for a damaged file."""
        from segsweep.data.formats import masks

        lines = _lines(self.path)
        next(lines)
        for line in lines:
            found = as_coco(line)
            try:
                for instance in found:
                    masks.area(instance["segmentation"])
            except (TypeError, ValueError) as error:
                raise Damaged(self.path, f"image {line['image_id']}: {error}") from error
            yield line["image_id"], found


def as_coco(line: dict[str, Any]) -> Found:
    """Return the instances of a line in the COCO form."""
    return [
        {
            "category_id": category,
            "score": score,
            "bbox": box,
            "segmentation": {"size": line["size"], "counts": counts},
        }
        for category, score, box, counts in line["found"]
    ]


def read(path: Path) -> PredictionFile:
    """Open a file of predictions.

    Raises UserError when it is absent, damaged, or of a newer layout.
    """
    head = next(_lines(path), None)
    schema = head.get("schema") if isinstance(head, dict) else None
    if head is None or schema != SCHEMA:
        raise UserError(f"{path}: predictions of schema {schema}, this version reads {SCHEMA}")
    return PredictionFile(path, head)


def of_run(directory: Path) -> PredictionFile:
    """Open the predictions of a finished run, which its record names with their hash.

    Raises UserError when the run has not finished, kept none, or kept others.
    """
    record = record_of(directory)
    if record is None:
        raise UserError(f"{directory}: has no record.json yet; its run has not finished")
    path, known = directory / FILE, known_hash(record, FILE)
    again = (
        f"bring that file back, or delete it and make it: python -m segsweep predict "
        f"run={record.get('id')} split=val; or give its command line again with force=true"
    )
    if known is None and path.is_file():  # of the verb `predict`
        file = read(path)
        if (file.head["run"], file.head["data"]) == (record["id"], record["data"]["fingerprint"]):
            return file
    if known is None:
        raise UserError(
            f"{directory}: kept no predictions (io.predictions=false, a set of label maps, or a "
            f"run of an earlier version); {again}"
        )
    return read(verified(directory, record, FILE, again))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with opened(path) as raw, gzip.open(raw) as file:
            for number, line in enumerate(file):
                yield checked(line, IMAGE if number else HEAD)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is gone") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise Damaged(path, f"cannot be read as predictions ({error})") from error
