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
from segsweep.check.parts import JoinedFinding, Part
from segsweep.check.pictures import Look
from segsweep.data.base import Record
from segsweep.data.findings import LEVELS, SHOWN
from segsweep.data.kinds import KINDS
from segsweep.pages import painter
from segsweep.pages.outlines import Outline, mask_of
from segsweep.pages.painter import data_url, tinted
from segsweep.pages.palette import colour
from segsweep.results.wording import elided

SPAN = (240, 400)  # pixels of the longer side of an overlay
RANDOM, SUSPICIOUS, ALIKE, PAIRS = 12, 24, 4, 12
NAME = 40  # letters of a name of others
MARKED = 8  # annotations that a caption names


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
    pictures: dict[int, Shown] = {}  # by record
    uses: Counter[tuple[str, str]] = Counter()
    places = [(part, index([look.record for look in part_looks])) for part, part_looks in looks]
    for part, part_looks in looks:
        for finding in part.findings():
            if finding.level == "note" and finding.code != "tiny":
                continue
            for identity in finding.ids:
                key = (finding.kind.ids, identity)
                for home, record in records(key, part, places):
                    shown = pictures.get(id(record)) or Shown(home, record)
                    if finding.code not in shown.reasons:
                        if uses[part.name, finding.code] >= ALIKE:
                            continue
                        uses[part.name, finding.code] += 1
                        shown.reasons.append(finding.code)
                        pictures[id(record)] = shown
                    shown.marked |= {identity} if finding.kind.ids == "annotation" else set()
        for reason, most in extremes(part_looks):
            shown = pictures.setdefault(id(most.record), Shown(part, most.record))
            shown.reasons.append(reason)
    severity = {code: LEVELS.index(kind.level) for code, kind in KINDS.items()}
    ranked = sorted(pictures.values(), key=lambda s: min(severity.get(r, 3) for r in s.reasons))
    return ranked[:SUSPICIOUS]


Index = dict[tuple[str, Any], list[Record]]
"""Records by what an id is of (`Kind.ids`), and the id."""


def records(
    key: tuple[str, Any], part: Part, places: Sequence[tuple[Part, Index]]
) -> list[tuple[Part, Record]]:
    """Return the records that an id of a finding leads to, with the part that has them.

    Where one file is divided into parts, its findings are those of the first.
    """
    file = part.defects.file
    own = [(other, found) for other, found in places if other is part and key in found]
    others = [(p, found) for p, found in places if p.defects.file == file and key in found]
    return [(p, record) for p, found in (own or others)[:1] for record in found[key][:ALIKE]]


def index(records: Sequence[Record]) -> Index:
    """Return where ids of annotations, ids of images, and files are."""
    places: Index = {}
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


def some_of_each(pairs: Sequence[tuple[str, Look, Look]]) -> list[tuple[str, Look, Look]]:
    """Return the pairs that are shown: the first of each code, then the second ones."""
    seen: Counter[str] = Counter()
    places = []
    for code, *_ in pairs:
        places.append(seen[code])
        seen[code] += 1
    ranked = sorted(zip(places, pairs, strict=True), key=lambda ranked: ranked[0])
    return [pair for _, pair in ranked[:PAIRS]]


def overlay(part: Part, record: Record, marked: Collection[Any] = ()) -> str:
    """Return a picture with its masks and boxes as a data URL, empty if it cannot be read."""
    try:
        pixels = part.data.image(record)
        if record.labels is not None:
            return data_url(tinted(pixels, part.data.label_map(record), span=SPAN))
        size = (record.height, record.width)
        outlines = [
            Outline(a.category, mask_of(a, size), box=a.bbox, marked=a.id in marked)
            for a in record.annotations
        ]
        return data_url(painter.overlay(pixels, outlines, SPAN))
    except (UserError, MemoryError):
        return ""


def render(
    report: dict[str, Any],
    findings: Sequence[JoinedFinding],
    looks: Sequence[tuple[Part, list[Look]]],
    pairs: Sequence[tuple[str, Look, Look]],
) -> str:
    """Return the page."""
    owner = {id(look): part for part, part_looks in looks for look in part_looks}
    groups = {"suspicious": suspicious(looks), "random": chosen(looks)}
    twins = [
        (code, [Shown(owner[id(look)], look.record) for look in (first, second)])
        for code, first, second in some_of_each(pairs)
    ]
    for shown in chain(*groups.values(), *(both for _, both in twins)):
        shown.picture = overlay(shown.part, shown.record, shown.marked)
    return shell.render(
        "check/page.html",
        {"elided": lambda text, most=NAME: elided(str(text), most)},
        report=report,
        findings=findings,
        groups=groups,
        twins=twins,
        pairs=len(pairs),
        most={"examples": SHOWN, "marked": MARKED},
        colour=lambda category: f"rgb{colour(category)}",
        ranked=ranked,
    )


def ranked(classes: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Return the classes that occur with their places, which give the colours; the most first."""
    present = [(place, row) for place, row in enumerate(classes) if row["images"]]
    return sorted(present, key=lambda placed: -placed[1]["share"])
