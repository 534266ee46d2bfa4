"""Trans10K-v2: transparent things of eleven kinds.

    Trans10K_v2/{train,validation,test}/{images/*.jpg,masks_12/*_mask.png}

Masks are palette images whose indices are the classes, 0 is background; their colours mean nothing.
Pictures without a mask are passed over and counted, as the authors' loader does. val is the test
part, on which papers report; the validation part is "held". Means over classes leave background
out, as the SAM rows of the Conv-LoRA study do; those of TransLab and Trans2Seg count it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from segsweep.data.items import Facts
from segsweep.data.sets.paired import NumberedMasks


@dataclass
class Trans10K(NumberedMasks):
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
    names: ClassVar[list[str]] = [
        *("shelf", "jar or tank", "freezer", "window", "glass door", "eyeglass", "cup"),
        *("floor glass", "glass bowl", "water bottle", "storage box"),
    ]
    archive: ClassVar[str] = "Trans10K_v2"
    parts: ClassVar[dict[str, str]] = {"train": "train", "val": "test", "held": "validation"}
    folders: ClassVar[tuple[str, str]] = ("{}/images", "{}/masks_12")
    matching: ClassVar[dict[str, Any]] = {"suffix": "_mask", "skip": True}
