"""Embedded data: scenes of real handwritten digits, so that everything runs without a download.

The scenes are drawn by `scenes.py` and `domains.py`. Digits: Optical Recognition of Handwritten
Digits (Alpaydin & Kaynak 1998, CC BY 4.0), as shipped inside scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.data.base import Annotation, DataSet, Record

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.sets.domains import Scene


class DomainName(Enum):
    """The looks of the scenes, from known to strange."""

    source = "source"
    clean = "clean"
    clutter = "clutter"
    xray = "xray"
    street = "street"
    sonar = "sonar"


@dataclass
class Digits(DataSet):
    """Scenes of one domain; scene number i of a split is the same on every machine, in every run.

    `domain` is the look: source (what the small base was trained on), clean (one class), clutter
    (four families of strokes), xray (the classes of source, transparent on white), street (eight
    classes in perspective), sonar (those of source, faint in grain). `train` and `val` count
    images; no handwriting is in both splits.
    """

    shown: ClassVar[dict[str, str]] = {"domain": "{}"}
    not_hashed: ClassVar[str] = ""  # all is drawn

    domain: DomainName = DomainName.clean
    train: int = within(160, least=1)
    val: int = within(64, least=1)
    side: int = within(128, least=32)  # pixels of a scene
    size: list[int] = field(default_factory=lambda: [128, 128])

    def classes(self) -> list[str]:
        """Return the names of the domain's classes."""
        from segsweep.data.sets.domains import DOMAINS

        return list(DOMAINS[self.domain.name].classes)

    def records(self, split: str) -> list[Record]:
        """Return the scenes of a split; ids count from 1 within it."""
        return self._records[split]

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a scene. (side, side, 3) uint8 RGB"""
        return self.scene(record.file).image

    def scene(self, file: str) -> Scene:
        """Draw the scene of a record's file."""
        from segsweep.data.sets.domains import scene

        split, number = file.split("/")
        return scene(self.domain.name, split, int(number), self.side)

    def prepared(self) -> bool:
        """Scenes are drawn."""
        return False

    def fingerprint(self) -> str:
        """Return a hash of what is drawn."""
        from segsweep.data.sets.scenes import VERSION

        content = (VERSION, self.domain.name, self.train, self.val, self.side)
        return sha256(repr(content).encode()).hexdigest()[:12]

    @cached_property
    def _records(self) -> dict[str, list[Record]]:
        return {
            split: [self._record(index + 1, f"{split}/{index}") for index in range(count)]
            for split, count in {"train": self.train, "val": self.val}.items()
        }

    def _record(self, number: int, file: str) -> Record:
        from segsweep.data.formats import masks

        drawn = self.scene(file)
        annotations = [
            Annotation(label, rle, masks.bbox(rle), float(masks.area(rle)), id=k)
            for k, (label, rle) in enumerate(
                zip(drawn.labels, masks.encode(drawn.masks), strict=True), start=1
            )
        ]
        return Record(number, file, self.side, self.side, annotations)
