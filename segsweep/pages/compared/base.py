"""Runs of the same images beside one another: what every kind of result can tell.

A kind is one file of this folder: its name is the word of a task (segsweep/task), its `compared`
makes the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from segsweep.analysis.study import refuse_unplaced
from segsweep.base.errors import UserError
from segsweep.run import predictions
from segsweep.run.predictions import PredictionFile
from segsweep.run.restore import finished

if TYPE_CHECKING:
    from PIL import Image

    from segsweep.base.config import Config

TRUTH = "Ground truth"


class StoredRun(NamedTuple):
    """A run that kept what it found, and what tells it from the others in few words."""

    directory: Path
    label: str
    config: Config
    record: dict[str, Any]
    predicted: PredictionFile


class PairTable(NamedTuple):
    """The first run beside another one; the first of the rows is about all."""

    other: str
    heads: list[str]
    rows: list[list[str]]
    note: str  # what the table leaves out
    test: str  # what its p means


class ImageRow(NamedTuple):
    """An image as the panels of `ComparedRuns.titles` show it."""

    file: str
    panels: list[Image.Image]


class ComparedRuns(Protocol):
    """Runs of the same images; the first is the one that the others are compared with."""

    @property
    def runs(self) -> Sequence[Any]:
        """The runs, by their `label`, `config` and `record` at least."""
        ...

    @property
    def titles(self) -> list[str]:
        """What the panels of an image show."""
        ...

    def about(self) -> tuple[str, str, str]:
        """Say what is compared, what its columns mean, and which images are shown."""
        ...

    def summaries(self) -> list[dict[str, Any]]:
        """Return what each run found altogether, by column."""
        ...

    def remarks(self) -> list[str]:
        """Return what a reader must know of single runs."""
        ...

    def pairs(self) -> Iterator[PairTable]:
        """Yield the first run beside each other one."""
        ...

    def pictures(self, count: int, crops: int = 0) -> tuple[list[ImageRow], list[list[Any]]]:
        """Draw the images on which the runs differ most, and what one finds and another loses.

        Of the latter at most so many `crops` each way; see compare.html.
        """
        ...

    def lists(self) -> dict[str, str]:
        """Return CSV files by name."""
        ...


def compared(
    directories: Sequence[Path], words: Sequence[str], score: float | str, iou: float
) -> ComparedRuns:
    """Compare what runs kept. A score ("best": each run's own) and an IoU make objects count.

    Raises UserError where they kept none, or were evaluated on other images.
    """
    stored = stored_runs(directories, words)
    refuse_unplaced(stored[0].config, "compare")
    task = import_module(f"segsweep.pages.compared.{stored[0].config.data.task}")
    return task.compared(stored, score, iou)


def stored_runs(directories: Sequence[Path], words: Sequence[str]) -> list[StoredRun]:
    """Return runs that were evaluated on the same data, as they are now; raises as `compared`."""
    found = [(*finished(path, words), predictions.of_run(path)) for path in directories]
    (config, record, first), *others = found
    for (_, other, predicted), directory in zip(others, directories[1:], strict=True):
        for key, what in (("data", "other data"), ("split", "another split")):
            if predicted.head[key] != first.head[key]:
                raise UserError(
                    f"compare: {directory.name} was evaluated on {what} than {directories[0].name} "
                    f"(data={other['choices']['data']} {predicted.head[key]}, "
                    f"data={record['choices']['data']} {first.head[key]}); compare needs one set"
                )
    if config.data.fingerprint() != first.head["data"]:
        raise UserError(
            f"compare: data={config.data.name} changed since {directories[0].name} was evaluated; "
            "say where the old ones lie, as in data.root=FOLDER"
        )
    names = labels([record for _, record, _ in found])
    return [
        StoredRun(*run) for run in zip(directories, names, *zip(*found, strict=True), strict=True)
    ]


def same_images(stored: Sequence[StoredRun], images: Sequence[Sequence[int]]) -> None:
    """Raise UserError for runs that were evaluated on other images (ids) than the first."""
    for run, own in zip(stored, images, strict=True):
        if list(own) != list(images[0]):
            raise UserError(
                f"compare: {run.directory.name} was evaluated on {len(own)} images, "
                f"{stored[0].directory.name} on {len(images[0])} (trainer.limit_val)"
            )


def labels(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return what tells runs apart in few words: the method, then model, seed or id."""
    from segsweep.results.frame import flatten
    from segsweep.results.settings import arrange, locate

    runs = arrange(locate([flatten(record) for record in records]))
    names = [run.setting for run in runs]
    for more in ([run.model for run in runs], [f"seed {r['config']['seed']}" for r in records]):
        if len({*names}) < len(names) and len({*more}) > 1:
            names = [f"{name}, {detail}" for name, detail in zip(names, more, strict=True)]
    if len({*names}) < len(names):
        names = [f"{name}, {r['id'][:6]}" for name, r in zip(names, records, strict=True)]
    return names


def p_text(p: float) -> str:
    """Return a probability as tables show it."""
    return f"{p:.2g}" if p >= 1e-4 else "<1e-4"
