"""One HTML page that needs nothing else: findings, numbers, overlays of pictures."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from segsweep.base import shell
from segsweep.base.errors import UserError
from segsweep.check.parts import Part
from segsweep.check.pictures import Look
from segsweep.data.base import Record
from segsweep.data.findings import LEVELS, Finding
from segsweep.data.formats import masks
from segsweep.data.kinds import KINDS
from segsweep.pages import painter
from segsweep.pages.painter import Outline, data_url, tinted
from segsweep.pages.palette import colour

SPAN = (240, 400)  # pixels of the longer side of an overlay
RANDOM, SUSPICIOUS, ALIKE, PAIRS = 12, 24, 4, 12


@dataclass
class Shown:
    """A picture of the page: `marked` are ids of annotations that something is said of."""

    part: Part
    record: Record
    reasons: list[str] = field(default_factory=list)
    marked: set[Any] = field(default_factory=set)
    picture: str = ""  # data URL, empty if the file cannot be shown

    @property
    def title(self) -> str:
        """Split and file."""
        return f"{self.part.name}: {self.record.file}"


def suspicious(looks: Sequence[tuple[Part, list[Look]]]) -> list[Shown]:
    """Return the pictures that findings speak of, the worst first, and the extremes."""
    pictures: dict[tuple[str, Any, str], Shown] = {}
    uses: Counter[str] = Counter()
    for part, part_looks in looks:
        places = index([look.record for look in part_looks])
        for finding in part.findings():
            if finding.level == "note" and finding.code != "tiny":
                continue
            for identity in finding.ids:
                kind = "annotation" if finding.code in OF_ANNOTATIONS else "image"
                for record in places.get((kind, identity), [])[:ALIKE]:
                    if uses[finding.code] >= ALIKE:
                        break
                    key = (part.name, record.image_id, record.file)
                    shown = pictures.setdefault(key, Shown(part, record))
                    if finding.code not in shown.reasons:
                        shown.reasons.append(finding.code)
                        uses[finding.code] += 1
                    shown.marked |= {identity} if kind == "annotation" else set()
        for reason, most in extremes(part_looks):
            key = (part.name, most.record.image_id, most.record.file)
            pictures.setdefault(key, Shown(part, most.record)).reasons.append(reason)
    severity = {code: LEVELS.index(kind.level) for code, kind in KINDS.items()}
    ranked = sorted(pictures.values(), key=lambda s: min(severity.get(r, 3) for r in s.reasons))
    return ranked[:SUSPICIOUS]


OF_ANNOTATIONS = {
    code for code in KINDS if not code.startswith(("image-", "picture-", "leak", "labels-"))
}


def index(records: Sequence[Record]) -> dict[tuple[str, Any], list[Record]]:
    """Return where ids of annotations, ids of images, and files are."""
    places: dict[tuple[str, Any], list[Record]] = {}
    for record in records:
        for key in (record.image_id, record.file, record.labels):
            places.setdefault(("image", key), []).append(record)
        for annotation in record.annotations:
            places.setdefault(("annotation", annotation.id), []).append(record)
    return places


def extremes(looks: Sequence[Look]) -> list[tuple[str, Look]]:
    """Return the most crowded picture and the one with most overlap."""
    if not looks:
        return []
    crowded = max(looks, key=lambda look: len(look.objects))
    overlapping = max(looks, key=lambda look: look.overlap)
    most = len(crowded.objects)
    extreme = [(f"most objects: {most}", crowded)] if most > 1 else []
    if overlapping.overlap >= 0.01:
        extreme.append((f"most overlap: {100 * overlapping.overlap:.0f} %", overlapping))
    return extreme


def chosen(looks: Sequence[tuple[Part, list[Look]]]) -> list[Shown]:
    """Return pictures drawn at random, the same every time."""
    usable = [Shown(part, look.record) for part, group in looks for look in group if look.usable]
    return random.Random(0).sample(usable, min(RANDOM, len(usable)))


def overlay(part: Part, record: Record, marked: Collection[Any] = ()) -> str:
    """Return a picture with its masks and boxes as a data URL, empty if it cannot be read."""
    try:
        pixels = part.data.image(record)
        if record.labels is not None:
            return data_url(tinted(pixels, part.data.label_map(record), span=SPAN))
        outlines = [
            Outline(
                a.category,
                masks.to_rle(a.segmentation, (record.height, record.width)),
                box=a.bbox,
                marked=a.id in marked,
            )
            for a in record.annotations
        ]
        return data_url(painter.overlay(pixels, outlines, SPAN))
    except (UserError, MemoryError):
        return ""


def render(
    report: dict[str, Any],
    findings: Sequence[Finding],
    looks: Sequence[tuple[Part, list[Look]]],
    pairs: Sequence[tuple[str, Look, Look]],
) -> str:
    """Return the page."""
    owner = {id(look): part for part, part_looks in looks for look in part_looks}
    groups = {"suspicious": suspicious(looks), "random": chosen(looks)}
    twins = [
        (code, [Shown(owner[id(look)], look.record) for look in (first, second)])
        for code, first, second in pairs[:PAIRS]
    ]
    for shown in chain(*groups.values(), *(both for _, both in twins)):
        shown.picture = overlay(shown.part, shown.record, shown.marked)
    return shell.render(
        "check/page.html",
        report=report,
        findings=findings,
        groups=groups,
        twins=twins,
        pairs=len(pairs),
        colour=lambda category: f"rgb{colour(category)}",
    )
