"""The ceiling of a score: what the annotations themselves would reach, seen as a model sees them.

Objects are lost before anything is learnt: where an image has more of them than the model finds or
the metric counts, and where they are hardly a pixel at the input size. So the annotations of a
split go through the input size and back (`round_trip.py`) and are judged by the metric of the data
set. Each is as sure as it is right, and where there is no room for all, rare classes go first and
of a class the best: no order or choice would score more. Masks of the input size are what a model
is trained on. Edges between its pixels may come out of an interpolation; nothing teaches them.

Annotations are read, and no pictures. Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from segsweep.base.terminal import watched
from segsweep.data.base import BACKGROUND
from segsweep.data.geometry import evaluation_geometry
from segsweep.metrics.round_trip import (
    Prediction,
    brought_back,
    map_brought_back,
    unchanged,
)
from segsweep.task.base import kind

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.data.base import Record

LITTLE = 0.5  # points that are not worth a word
LEAST, MOST = 8, 200  # images of a larger split that are looked at, evenly spaced
PIXELS = 2**26  # that these have together, about
HALF = 0.5  # IoU with itself from which on an object is found at some threshold
PERFECT = {"higher": 100.0, "lower": 0.0}  # percent


@dataclass(frozen=True)
class Crowding:
    """Objects that there is no room for, in all images of a split.

    `limits` are the keys that leave no room, with their values; `crowded` images have more objects
    than fit, `over` of their objects are too many, the fullest image has `most`.
    """

    limits: dict[str, int]
    images: int
    crowded: int
    objects: int
    over: int
    most: int

    def __str__(self) -> str:
        keys = ", ".join(f"{key}={value}" for key, value in self.limits.items())
        return (
            f"{self.crowded:,} of {self.images:,} images have more objects (up to {self.most:,}) "
            f"than {keys}; {_share(self.over, self.objects)} are too many"
        )


@dataclass(frozen=True)
class Shrinking:
    """What the input size (height, width) leaves of the objects of so many images.

    `gone` have no pixel there; `thinned` have, but less than half of what comes back is right. Of
    label maps they are `regions`: all pixels of a class in an image.
    """

    size: list[int]
    images: int
    objects: int
    gone: int
    thinned: int
    regions: bool

    def __str__(self) -> str:
        what = "regions" if self.regions else "objects"
        lost = [(self.gone, "vanish"), (self.thinned, "lose their shape")]
        parts = [f"{_share(n, self.objects, what)} {fate}" for n, fate in lost if n]
        where = f"at data.size=[{self.size[0]},{self.size[1]}]"
        return f"{where} {', '.join(parts) or f'outlines of {what} get blocky'}"


@dataclass(frozen=True)
class Ceiling:
    """What annotations would score, in percent of a metric: `by_number` for want of room alone."""

    metric: str
    direction: str  # of the better: "higher" or "lower"
    value: float
    by_number: float
    crowding: Crowding
    shrinking: Shrinking

    @property
    def notable(self) -> bool:
        """Whether even a perfect model would lose something that is worth a word."""
        return notable(self.value, self.direction)

    def causes(self) -> list[Crowding | Shrinking]:
        """Return what costs something."""
        room = PERFECT[self.direction] - self.by_number
        costs = [(self.crowding, room), (self.shrinking, self.by_number - self.value)]
        return [cause for cause, cost in costs if abs(cost) > LITTLE / 2]

    def __str__(self) -> str:
        both, side = len(self.causes()) > 1, "least" if self.direction == "lower" else "most"
        alone = f" (this alone limits it to {self.by_number:.1f})" if both else ""
        reasons = f"{alone}; ".join(map(str, self.causes()))
        looked_at, images = self.shrinking.images, self.crowding.images
        some = f" (estimated on {looked_at:,} of {images:,} images)" if looked_at < images else ""
        return f"{self.metric} at {side} {self.value:.1f}{some}: {reasons}"

    def facts(self) -> dict[str, Any]:
        """Return what a record says."""
        return asdict(self)


def notable(value: float, direction: str, points: float = LITTLE) -> bool:
    """Tell whether a ceiling in percent is so many points from perfect."""
    return abs(PERFECT[direction] - value) > points


def _share(part: int, whole: int, what: str = "objects") -> str:
    return f"{part:,} of {whole:,} {what} ({100 * part / max(whole, 1):.0f} %)"


@dataclass(frozen=True)
class Room:
    """How many objects are found in an image, and count of a class of it: values by key."""

    of_image: Mapping[str, int]
    of_class: Mapping[str, int]

    def fit(self, objects: Counter[int]) -> int:
        """Return for how many of the objects of an image, counted by class, there is room."""
        least = min(self.of_class.values(), default=objects.total())
        return min([sum(min(n, least) for n in objects.values()), *self.of_image.values()])

    def crowding(self, images: Sequence[Counter[int]]) -> Crowding:
        """Return which objects of images there is no room for."""
        over = [objects.total() - self.fit(objects) for objects in images]
        most = max((objects.total() for objects in images), default=0)
        of_class = max((n for objects in images for n in objects.values()), default=0)
        limits = {key: value for key, value in self.of_image.items() if value < most}
        limits |= {key: value for key, value in self.of_class.items() if value < of_class}
        total = sum(objects.total() for objects in images)
        return Crowding(limits, len(images), sum(n > 0 for n in over), total, sum(over), most)

    def best(self, found: Sequence[Prediction], frequency: Counter[int]) -> list[Prediction]:
        """Return the predictions of an image that there is room for: of rare classes, the best."""
        room: Counter[int] = Counter()
        least, kept = min(self.of_class.values(), default=len(found)), []
        for each in sorted(found, key=lambda p: (frequency[p["category_id"]], -p["score"])):
            room[each["category_id"]] += 1
            kept += [each] if room[each["category_id"]] <= least else []
        return kept[: min([len(kept), *self.of_image.values()])]


def objects_of(record: Record) -> Counter[int]:
    """Return how many objects of each class an image has."""
    return Counter(a.category for a in record.annotations if not a.iscrowd)


def looked_at(records: Sequence[Record]) -> Sequence[Record]:
    """Return evenly spaced images of a split that is large: fewer where images are large."""
    pixels = sum(record.height * record.width for record in records)
    most = min(MOST, max(LEAST, PIXELS * len(records) // max(pixels, 1)))
    return (
        [records[k * len(records) // most] for k in range(most)] if most < len(records) else records
    )


def ceiling(config: Config, split: str = "val", title: str = "") -> Ceiling | None:
    """Return what the annotations of a split would score, None where nothing tells.

    That is so of metrics that are no percentages or take no single images, of the classes of
    pictures, which no size costs, where there is nothing to find, and of maps that are judged as
    they are learnt. Progress is shown under the name `title`, if there is one.
    """
    data, metric = config.data, config.metrics
    unit, direction = metric.names()[metric.key]
    both, number = (metric.evaluator(data, split) for _ in range(2))
    if unit != "%" or not hasattr(both, "add") or metric.at_input or not kind(data.task).placed:
        return None
    records, room = data.records(split), Room(config.model.limits, metric.limits)
    crowding = room.crowding([objects_of(record) for record in records])
    some, objects, gone, thinned = looked_at(records), 0, 0, 0
    frequency = sum(map(objects_of, some), Counter())
    for record in watched(some, len(some), title) if title else some:
        geometry = evaluation_geometry(data, record)
        if record.labels is not None:
            truth = data.label_map(record)
            back, regions, lost = map_brought_back(truth, geometry)
            both.add(record.image_id, both.judge(truth, back, back < BACKGROUND))
            objects, gone = objects + regions, gone + lost
            continue
        found = brought_back(record, geometry, metric.masks)
        back = [each for each in found if each]
        both.add(record.image_id, room.best(back, frequency))
        if crowding.over:
            number.add(record.image_id, room.best(unchanged(record), frequency))
        objects, gone = objects + len(found), gone + len(found) - len(back)
        thinned += sum(each["score"] < HALF for each in back)
    value = both.compute()[metric.key]
    by_number = number.compute()[metric.key] if crowding.over else PERFECT[direction]
    if value is None or by_number is None:
        return None
    dense = any(record.labels is not None for record in some)
    shrinking = Shrinking([*data.size], len(some), objects, gone, thinned, dense)
    return Ceiling(metric.key, direction, value, by_number, crowding, shrinking)
