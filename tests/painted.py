"""The embedded scenes as a semantic set: the label map of an image is its instances, painted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from segsweep.data.base import BACKGROUND, Record
from segsweep.data.formats import masks
from segsweep.data.sets.digits import Digits

WORDS = [f"hydra.searchpath=[segsweep://{Path(__file__).parent}/conf]", "data=painted"]


@dataclass
class Painted(Digits):
    """Digits of a domain, told by label maps."""

    task: ClassVar[str] = "semantic"

    def records(self, split: str) -> list[Record]:
        return [replace(r, annotations=[], labels=r.file) for r in super().records(split)]

    def label_map(self, record: Record) -> np.ndarray:
        split, index = record.file.split("/")
        shape = record.height, record.width
        labels = np.full(shape, BACKGROUND, np.uint8)
        for instance in super().records(split)[int(index)].annotations:
            labels[masks.to_mask(instance.segmentation, shape)] = instance.category
        return labels
