"""What a run found on the images of its evaluation, in one file: `predictions.jsonl.gz`.

    {"schema": 1, "run": id, "split": "val", "classes": [...], "data": fingerprint}
    ...

One line per image in the order of evaluation; `run.lines` says what the lines of each schema hold,
of objects (1), of label maps (2), of boxes alone (3) and of pictures as a whole (4). Whatever
follows from them can be computed again, to the last bit, without the model. Equal predictions give
equal bytes. Nothing here imports torch.
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
from segsweep.run.lines import BOXES, FORMS
from segsweep.run.shapes import record_of

if TYPE_CHECKING:
    from segsweep.run.identity import Run

FILE = PREDICTIONS
Keep = Callable[[Sequence[int], Sequence[Any]], None]
"""Takes in image ids and what was found on them, as the metric takes it in."""
HEAD = {"schema": int, "run?": str, "split?": str, "classes?": [str], "data": str}


@dataclass(frozen=True)
class Writer:
    """Takes in what was found on images, one after the other, in the form of a schema."""

    lines: TextIO
    schema: int

    def add(self, image_id: int, found: Any) -> None:
        """Write what was found on one image, as the metric takes it in."""
        self.put({"image_id": image_id, **FORMS[self.schema].write(found)})

    def put(self, value: dict[str, Any]) -> None:
        """Write one line."""
        self.lines.write(json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")


@contextmanager
def writing(path: Path, head: dict[str, Any], schema: int = 1) -> Iterator[Writer]:
    """Write a file of predictions."""
    with (
        path.open("wb") as raw,
        # neither a name nor a time in its head
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="ascii") as lines,
    ):
        writer = Writer(lines, schema)
        writer.put({"schema": schema, **head})
        yield writer


@contextmanager
def keeping(run: Run) -> Iterator[Keep]:
    """Keep what an evaluation finds, batch by batch, where `io.predictions` says so.

    Afterwards the file is there, whole, or there is none.
    """
    from segsweep.task.base import kind

    config = run.config
    run.delete(FILE)  # of an earlier attempt
    if not config.io.predictions:
        yield lambda image_ids, found: None
        return
    head = {
        "run": run.id,
        "split": "val",
        "classes": config.data.classes(),
        "data": config.data.fingerprint(),
    }
    schema = kind(config.data.task).schema(config.model.masks)
    with run.writing(FILE) as path, writing(path, head, schema) as writer:

        def keep(image_ids: Sequence[int], found: Sequence[Any]) -> None:
            for image_id, predicted in zip(image_ids, found, strict=True):
                writer.add(image_id, predicted)

        yield keep


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions; iterating reads it image by image, as often as asked."""

    path: Path
    head: dict[str, Any]

    @property
    def masks(self) -> bool:
        """Whether what it holds has masks, or is label maps: else it is boxes alone."""
        return self.head["schema"] != BOXES

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield (image_id, what was found). Raises UserError for a damaged file."""
        form, classes = FORMS[self.head["schema"]], len(self.head.get("classes", ()))
        lines = _lines(self.path)
        next(lines)
        for line in lines:
            try:
                found = form.read(line, classes, self.path)
            except (TypeError, ValueError) as error:
                raise Damaged(self.path, f"image {line['image_id']}: {error}") from error
            yield line["image_id"], found


def read(path: Path) -> PredictionFile:
    """Open a file of predictions.

    Raises UserError when it is absent, damaged, or of a newer layout.
    """
    head = next(_lines(path), None)
    schema = head.get("schema") if isinstance(head, dict) else None
    if head is None or schema not in FORMS:
        known = ", ".join(map(str, FORMS))
        raise UserError(f"{path}: predictions of schema {schema}, this version reads {known}")
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
            f"{directory}: kept no predictions (io.predictions=false, or a run of an earlier "
            f"version); {again}"
        )
    return read(verified(directory, record, FILE, again))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the head and the lines of a file, checked by what the schema in the head says."""
    shape: Any = HEAD
    try:
        with opened(path) as raw, gzip.open(raw) as file:
            for line in file:
                yield (values := checked(line, shape))
                if shape is HEAD:
                    shape = FORMS[values["schema"]].shape
    except FileNotFoundError as error:
        raise UserError(f"{path}: is gone") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise Damaged(path, f"cannot be read as predictions ({error})") from error
