"""Which objects one run finds and another loses, and whether that could be chance.

An object is found by a run if, of its predictions with at least the run's score, one is matched
with it as in COCO evaluation at one IoU threshold of masks, or of boxes where there are no masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segsweep.analysis.matches import Matches, match
from segsweep.analysis.numbers import size_of
from segsweep.analysis.study import BEST, threshold
from segsweep.base.config import Config
from segsweep.data.base import Annotation, Record
from segsweep.metrics.coco import SIZES
from segsweep.pages.compared.base import StoredRun, p_text, same_images
from segsweep.run.predictions import PredictionFile


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs that are compared; its objects are those of all others, in their order."""

    directory: Path
    label: str
    config: Config
    record: dict[str, Any]
    predicted: PredictionFile
    score: float
    reason: str  # why this score; nothing where it was asked for
    matches: Matches

    @property
    def found(self) -> np.ndarray:
        """Which objects it finds. (T,) bool"""
        return self.matches.finders >= self.score

    @property
    def objects(self) -> list[tuple[Record, Annotation]]:
        """All objects that are no crowds."""
        return self.matches.objects

    @property
    def quantity(self) -> str:
        """What its metric measures."""
        return self.config.metrics.quantity(self.config.metrics.key)

    def summary(self, alike: bool) -> dict[str, Any]:
        """Return what it found altogether; the metrics of the compared runs are `alike`, or not."""
        value = self.record["metrics"][self.config.metrics.key]["value"]
        told = "-" if value is None else f"{value:.2f}"
        metric = {self.quantity: value} if alike else {"metric": f"{self.quantity} {told}"}
        counted = self.matches.scores >= self.score
        return {
            "run": self.label,
            "id": self.record["id"],
            **metric,
            "score": self.score,
            "objects": len(self.objects),
            "found": int(self.found.sum()),
            "false alarms": int((counted & ~self.matches.right).sum()),
        }

    def remarks(self) -> Iterator[str]:
        """Say why a score of its own is lacking, and where nothing has the score."""
        if self.reason not in ("", BEST):
            yield f"counted from a score of {self.score:.2f} on; {self.reason}."
        scores = self.matches.scores
        if not (scores >= self.score).any():
            most = f"; the highest is {scores.max():.2f}" if len(scores) else ""
            yield f"no prediction has a score of {self.score:.2f} or more{most}."


class ObjectCounts(NamedTuple):
    """Objects of one kind by who finds them; `p` is that of the exact McNemar test."""

    kind: str
    objects: int
    both: int
    only_a: int
    only_b: int
    neither: int
    p: float


class LostObject(NamedTuple):
    """An object that one run finds and another loses.

    `score_lost` is that of the prediction which would have found it, below the run's threshold;
    None where there is none.
    """

    found_by: str
    lost_by: str
    size: str
    class_name: str
    score_found: float
    score_lost: float | None
    area: float
    file: str
    image_id: int
    annotation_id: int
    place: int  # among all objects


def compared_runs(stored: Sequence[StoredRun], score: float | str, iou: float) -> list[ComparedRun]:
    """Match the predictions of runs with the objects of their images.

    They count from a score on; "best" is each run's own threshold, that of its best F1. All are
    matched by boxes where some run has found no masks.

    Raises UserError where they were evaluated on other images.
    """
    data, runs = stored[0].config.data, []
    by_masks = all(run.predicted.masks for run in stored)
    for run in stored:
        most = getattr(run.config.metrics, "max_dets", 100)
        matches = match(data, run.predicted, iou, most, by_masks)
        least = (
            threshold(run.directory, run.config, run.record)
            if score == "best"
            else (float(score), "")
        )
        runs.append(ComparedRun(*run, *least, matches))
    same_images(stored, [run.matches.images for run in runs])
    return runs


def remarks(compared: Sequence[ComparedRun]) -> list[str]:
    """Return what a reader must know about the scores of runs; what regards several once."""
    regarded: dict[str, list[str]] = {}
    for run in compared:
        for words in run.remarks():
            regarded.setdefault(words, []).append(run.label)
    return [f"{', '.join(dict.fromkeys(names))}: {words}" for words, names in regarded.items()]


def rows(a: ComparedRun, b: ComparedRun) -> list[ObjectCounts]:
    """Count objects by who finds them: all, by size, by class of those that there are."""
    sizes = np.array([size_of(annotation.area) for _, annotation in a.objects])
    classes = np.array([annotation.category for _, annotation in a.objects])
    kinds = {"all": np.ones(len(sizes), bool)}
    kinds |= {{"s": "small", "m": "medium", "l": "large"}[s]: sizes == s for s in SIZES}
    names = a.record["data"]["classes"]
    there = np.unique(classes) if len(names) > 1 else ()
    kinds |= {names[k]: classes == k for k in there}
    return [_row(kind, a.found[chosen], b.found[chosen]) for kind, chosen in kinds.items()]


def absent(a: ComparedRun) -> str:
    """Say how many classes the table of two runs leaves out."""
    names = a.record["data"]["classes"]
    number = len(names) - len({annotation.category for _, annotation in a.objects})
    kinds = f"{number} classes have" if number > 1 else "1 class has"
    return f"{kinds} no object on these images." if number and len(names) > 1 else ""


def _row(kind: str, a: np.ndarray, b: np.ndarray) -> ObjectCounts:
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    return ObjectCounts(kind, len(a), both, only_a, only_b, neither, mcnemar(only_a, only_b))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p that a difference is chance (McNemar 1947, binomial form).

    It takes objects as independent; those of one image are not quite, so it is a little too small.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def lost(a: ComparedRun, b: ComparedRun) -> list[LostObject]:
    """List objects that `a` finds and `b` loses: by size from large on, by class, best first."""
    names = a.record["data"]["classes"]
    objects = [_lost(a, b, int(place)) for place in np.flatnonzero(a.found & ~b.found)]
    return sorted(
        objects, key=lambda x: (-SIZES.index(x.size), names.index(x.class_name), -x.score_found)
    )


def _lost(a: ComparedRun, b: ComparedRun, place: int) -> LostObject:
    record, annotation = a.objects[place]
    below = float(b.matches.finders[place])
    return LostObject(
        a.label,
        b.label,
        size_of(annotation.area),
        a.record["data"]["classes"][annotation.category],
        float(a.matches.finders[place]),
        below if below >= 0 else None,
        annotation.area,
        record.file,
        record.image_id,
        annotation.id,
        place,
    )


def all_objects(compared: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """Return all objects with the score of what found each, by run; None where nothing did."""
    names = compared[0].record["data"]["classes"]
    return [
        {
            "image_id": record.image_id,
            "file": record.file,
            "annotation_id": annotation.id,
            "class_name": names[annotation.category],
            "size": size_of(annotation.area),
            "area": annotation.area,
            **{f"score {s.label}": _or_none(s.matches.finders[k]) for s in compared},
            **{f"found {s.label}": int(s.found[k]) for s in compared},
        }
        for k, (record, annotation) in enumerate(compared[0].objects)
    ]


def _or_none(score: float) -> float | None:
    return float(score) if score >= 0 else None


def contested(compared: Sequence[ComparedRun], count: int) -> list[int]:
    """Return the images (ids) on whose objects the runs disagree most; of equal ones the first."""
    finders = np.sum([side.found for side in compared], axis=0)
    amounts = dict.fromkeys(compared[0].matches.images, 0)
    for k, (record, _) in enumerate(compared[0].objects):
        amounts[record.image_id] += 0 < finders[k] < len(compared)
    return sorted(amounts, key=lambda image_id: -amounts[image_id])[:count]


def heads(a: ComparedRun, b: ComparedRun) -> list[str]:
    """Return the columns of a table of two runs."""
    return [
        "objects",
        "number",
        "found by both",
        f"only {a.label}",
        f"only {b.label}",
        "neither",
        "p",
    ]


def cells(row: ObjectCounts) -> list[str]:
    """Return a row of such a table."""
    return [row.kind, *(str(n) for n in row[1:-1]), p_text(row.p)]
