"""Which form results have; that of classes of pictures: pictures as they are, a CSV of classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from PIL import Image

from segsweep.base.csv_files import as_csv
from segsweep.pages.found import InstanceForm, LabelMapForm, ResultForm, Values, shortened, span

if TYPE_CHECKING:
    from segsweep.data.folder import Shot
    from segsweep.model.found import PictureClass
    from segsweep.run.restore import Restored


@dataclass
class LabelForm:
    """The best class of each picture and its probability; see `pages.found.ResultForm`."""

    heads: ClassVar[tuple[str, ...]] = ("class", "score")

    classes: list[str]
    rows: list[list[Any]] = field(default_factory=list)

    @property
    def folders(self) -> list[str]:
        """Return none."""
        return []

    def draw(self, shot: Shot, stem: Path, result: PictureClass) -> tuple[Image.Image, Values]:
        """Keep the class of a picture; nothing is drawn on it."""
        label, score = result.best
        name = self.classes[label]
        self.rows.append([shot.name, name, round(score, 6)])
        return Image.fromarray(shot.pixels), {name: [score]}

    def words(self, values: Values, pictures: int) -> str:
        """Say what a file shows, and how sure that is."""
        return ", ".join(f"{name} ({span(own)})" for name, own in _frequent(values))

    def cells(self, values: Values, pictures: int) -> list[str]:
        """Return the most frequent classes, and the scores of the first."""
        names = [name for name, _ in _frequent(values)]
        return [shortened(names, 3), span(values[names[0]])]

    def total(self, values: Values, pictures: int) -> str:
        """Say how many pictures each class has."""
        counts = shortened([f"{len(own)} {name}" for name, own in _frequent(values)], 10)
        return f"{pictures} picture{'s' * (pictures != 1)}: {counts}"

    def summary(self) -> str:
        """Say what is kept."""
        return "The most probable class of each picture"

    def hint(self) -> str:
        """Return nothing: each picture has a class, however sure it is."""
        return ""

    def texts(self) -> dict[str, str]:
        """Return the classes of all pictures."""
        return {"classes.csv": as_csv([["picture", "class", "score"], *self.rows])}


def _frequent(values: Values) -> list[tuple[str, list[float]]]:
    """Return the classes with their scores, the most frequent first."""
    order = Counter({name: len(own) for name, own in values.items()}).most_common()
    return [(name, values[name]) for name, _ in order]


def result_form(
    restored: Restored, category_ids: list[int], threshold: float, out: Path, crops: bool
) -> ResultForm:
    """Return the form of what a run finds: of pictures, of label maps, or of objects."""
    from segsweep.task.base import kind

    classes, task = restored.record["data"]["classes"], kind(restored.config.data.task)
    if not task.placed:
        return LabelForm(classes)
    if task.dense:
        return LabelMapForm(classes, restored.background, out / "labels")
    cut = out / "crops" if crops else None
    return InstanceForm(classes, category_ids, threshold, cut, restored.config.model.masks)
