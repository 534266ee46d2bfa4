"""CAMO: camouflaged objects, animals and people.

    CAMO-V.1.0-CVIU2019/Images/{Train,Test}/*.jpg, CAMO-V.1.0-CVIU2019/GT/*.png

Some masks are not purely 0 and 255. The benchmark of camouflaged objects trains on CAMO and COD10K
together (4040 images); the packed archive `camo_sem_seg` may do so too. Here train is CAMO alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts, Item
from segsweep.data.sets.paired import BinaryMasks


@dataclass
class CAMO(BinaryMasks):
    """Camouflaged objects; val is the published test part."""

    facts: ClassVar[Facts] = Facts(
        title="CAMO 1.0",
        licence="none stated for the archive; research use",
        citation="Le et al. 2019, Anabranch Network for Camouflaged Object Segmentation, CVIU 184, "
        "arXiv:2105.09451",
        obtain="unpack CAMO-V.1.0-CVIU2019.zip: Images/Train, Images/Test, GT",
        images={"train": 1000, "val": 250},
        unverified="the numbers, the licence, and what the packed archive trains on",
    )
    foreground: ClassVar[str] = "camouflaged object"
    test: ClassVar[str] = "test_CAMO"

    def published(self) -> dict[str, list[Item]]:
        """Return the two folders of pictures, which share one of masks."""
        base = self.base("CAMO-V.1.0-CVIU2019")
        items = self.pairs(base, "Images/Train", "Images/Test", masks="GT")
        return {
            part: [item for item in items if item.image.parent.name == folder]
            for part, folder in (("train", "Train"), ("val", "Test"))
        }
