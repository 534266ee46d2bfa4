"""Massachusetts Roads: roads in aerial photographs of 1500 x 1500 pixels, one metre each.

    {train,valid,test}/{sat/*.tiff,map/*.tif}

Labels are lines of OpenStreetMap drawn with one width, often shifted, and stand also where train
tiles are white. val is the published test part, on which papers report; the 14 tiles of "valid"
are "held".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts, Item
from segsweep.data.sets.paired import BinaryMasks


@dataclass
class Road(BinaryMasks):
    """Roads from the air."""

    facts: ClassVar[Facts] = Facts(
        title="Massachusetts Roads",
        licence="none stated by its author; labels from OpenStreetMap (ODbL)",
        citation="Mnih 2013, Machine Learning for Aerial Image Labeling, thesis, Toronto",
        obtain="fetch the folders train, valid and test, each with sat and map, of "
        "www.cs.toronto.edu/~vmnih/data",
        images={"train": 1108, "val": 49, "held": 14},
        unverified="the numbers of each part (1171 in all is sure), and the licence",
    )
    foreground: ClassVar[str] = "road"

    def published(self) -> dict[str, list[Item]]:
        """Return the published parts: val is test, held is valid."""
        parts = {"train": "train", "val": "test", "held": "valid"}
        if not (self.folder / "valid").is_dir():
            del parts["held"]
        return {
            part: self.pairs(self.folder, f"{name}/sat", masks=f"{name}/map")
            for part, name in parts.items()
        }
