"""Massachusetts Roads: roads in aerial photographs of 1500 x 1500 pixels, one metre each.

    {train,valid,test}/{sat/*.tiff,map/*.tif}

Labels are lines of OpenStreetMap drawn with one width, often shifted, and stand also where train
tiles are white. val is the published test part, on which papers report; the 14 tiles of "valid"
are "held".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts
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
    parts: ClassVar[dict[str, str]] = {"train": "train", "val": "test", "held": "valid"}
    folders: ClassVar[tuple[str, str]] = ("{}/sat", "{}/map")
