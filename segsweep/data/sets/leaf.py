"""Leaf disease: diseased parts of leaves, photographs of PlantDoc.

    data/data/{images/*.jpg,masks/*.png}, aug_data/aug_data/...

The second folder holds augmented copies of the first (2940) and is never read; copies that were
mixed into the first are known by their names and left out. Masks may hold 0 and 1, or a colour.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts, Item
from segsweep.data.sets.paired import Pooled
from segsweep.data.splits import Rule, few


@dataclass
class Leaf(Pooled):
    """Diseased parts of leaves; a rule of the study's sizes, whose lists are not known here."""

    facts: ClassVar[Facts] = Facts(
        title="Leaf disease segmentation",
        licence="not known here; see the page it is taken from",
        citation="kaggle.com/datasets/fakhrealam9537/leaf-disease-segmentation-dataset, from "
        "PlantDoc (Singh et al. 2020, arXiv:1911.10317)",
        obtain="unpack the archive of the Kaggle page: data/data/images and data/data/masks",
        images={"train": 498, "val": 90},
        unverified="the sizes of the parts (588 in all is sure), the names of folders and of "
        "augmented copies, the licence",
    )
    foreground: ClassVar[str] = "diseased leaf"
    division: ClassVar[Rule] = Rule("leaf", val=90)

    def pool(self) -> list[Item]:
        """Return all pictures but augmented copies."""
        items = self.pairs(self.base("data/data", "data"), "images", masks="masks")
        return originals(items, sum(self.facts.images.values()))


def originals(items: list[Item], most: int) -> list[Item]:
    """Return the items that are no copies, with a warning, where there are more than `most`.

    A copy has the stem of another picture and more behind a sign: "7_flip", "7 (2)" of "7".
    """
    if len(items) <= most:
        return items
    stems = {item.image.stem for item in items}
    copies = [item for item in items if not stems.isdisjoint(beginnings(item.image.stem))]
    if copies:
        warnings.warn(
            f"{copies[0].image.parent}: {few([item.key for item in copies])} are augmented copies "
            "by their names; left out",
            stacklevel=2,
        )
    copied_keys = {item.key for item in copies}
    return [item for item in items if item.key not in copied_keys]


def beginnings(stem: str) -> set[str]:
    """Return what a stem begins with, up to each sign that is no letter or digit."""
    return {stem[:place].rstrip() for place, sign in enumerate(stem) if not sign.isalnum()} - {""}
