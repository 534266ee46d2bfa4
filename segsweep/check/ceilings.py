"""What no model could reach on a set: objects without room or pixels, as findings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segsweep.metrics.ceiling import Ceiling, Room, ceiling, notable, objects_of

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.check.parts import Part

MUCH = 5.0  # points below everything that are worth a warning


def add_ceilings(config: Config, parts: Sequence[Part], quiet: bool = False) -> dict[str, Ceiling]:
    """Note of each part what its own annotations would lose with this model and metric.

    Return the ceilings by part; none where training would be refused.
    """
    if any(finding.level == "fatal" for part in parts for finding in part.findings()):
        return {}
    found: dict[str, Ceiling] = {}
    for part, split in zip(parts, config.data.splits(), strict=False):
        with warnings.catch_warnings(action="ignore"):  # of what findings tell
            limit = ceiling(config, split, "" if quiet else f"{part.name}, ceiling")
        if limit is None:
            continue
        found[part.name] = limit
        if limit.notable:
            much = notable(limit.value, limit.direction, MUCH)
            detail = f"with model={config.model.name}, {limit}"
            part.defects.add("ceiling" if much else "ceiling-near", detail=detail)
            _add_crowded(part, Room(config.model.limits, config.metrics.limits))
    return found


def _add_crowded(part: Part, room: Room) -> None:
    for record in part.records:
        objects = objects_of(record)
        if room.fit(objects) < objects.total():
            detail = f"{record.file} has {objects.total():,}"
            part.defects.add("image-crowded", record.image_id, detail)
