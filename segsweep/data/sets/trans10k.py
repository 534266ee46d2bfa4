"""Trans10K-v2: transparent things of eleven kinds.

    Trans10K_v2/{train,validation,test}/{images/*.jpg,masks_12/*_mask.png}

Masks are palette images whose indices are the classes, 0 is background; their colours mean nothing.
Pictures without a mask are passed over and counted, as the authors' loader does. val is the test
part, on which papers report; the validation part is "held". Means over classes leave background
out, as the SAM rows of the Conv-LoRA study do; those of TransLab and Trans2Seg count it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.base import BACKGROUND
from segsweep.data.items import Content, Facts, Item
from segsweep.data.sets.paired import Paired

CLASSES = ["shelf", "jar or tank", "freezer", "window", "glass door", "eyeglass", "cup"]
CLASSES += ["floor glass", "glass bowl", "water bottle", "storage box"]
VALUES = {0: BACKGROUND} | {k + 1: k for k in range(len(CLASSES))}


@dataclass
class Trans10K(Paired):
    """Glass and plastic one can look through."""

    facts: ClassVar[Facts] = Facts(
        title="Trans10K-v2",
        licence="not known here; non-commercial research by its authors' page",
        citation="Xie et al. 2021, Segmenting Transparent Object in the Wild with Transformer, "
        "IJCAI, arXiv:2101.08461",
        obtain="unpack Trans10K_v2 of github.com/xieenze/Trans2Seg: train, validation, test, each "
        "with images and masks_12",
        images={"train": 5000, "val": 4428, "held": 1000},
        unverified="the licence, and that published numbers are of the test part",
    )

    def classes(self) -> list[str]:
        """Return the eleven things, by their value in the masks less one."""
        return list(CLASSES)

    def items(self) -> dict[str, list[Item]]:
        """Return the published parts: val is test, held is validation."""
        base = self.base("Trans10K_v2")
        parts = {"train": "train", "val": "test", "held": "validation"}
        if not (base / "validation").is_dir():
            del parts["held"]
        return {
            part: self.pairs(
                base, f"{name}/images", masks=f"{name}/masks_12", suffix="_mask", skip=True
            )
            for part, name in parts.items()
        }

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read a mask by its indices."""
        from segsweep.data.formats.pairs import fitted, indexed

        return fitted(item.image, item.annotation, indexed(item.annotation, VALUES))
