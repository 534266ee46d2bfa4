"""ISIC 2017, part 1: skin lesions under the dermatoscope.

    ISIC-2017_Training_Data/ISIC_*.jpg, ISIC-2017_Training_Part1_GroundTruth/ISIC_*_segmentation.png
    ISIC-2017_Validation_..., ISIC-2017_Test_v2_...

The *_superpixels.png among the pictures belong to part 2 and are passed over. val is the test part
of the challenge, on which papers report; its 150 validation pictures are "held".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts
from segsweep.data.sets.paired import BinaryMasks


@dataclass
class ISIC2017(BinaryMasks):
    """Skin lesions, up to 30 megapixels; Jaccard and Dice are means over images."""

    facts: ClassVar[Facts] = Facts(
        title="ISIC 2017, part 1 (lesion segmentation)",
        licence="CC0",
        citation="Codella et al. 2018, Skin lesion analysis toward melanoma detection, ISBI, "
        "arXiv:1710.05006",
        obtain="unpack the data and the Part1_GroundTruth archives of "
        "challenge.isic-archive.com/data/#2017, training and test (v2), beside each other",
        images={"train": 2000, "val": 600, "held": 150},
        unverified="the numbers 150 and 600, and the largest size",
    )
    foreground: ClassVar[str] = "skin lesion"
    parts: ClassVar[dict[str, str]] = {"train": "Training", "val": "Test_v2", "held": "Validation"}
    folders: ClassVar[tuple[str, str]] = ("ISIC-2017_{}_Data", "ISIC-2017_{}_Part1_GroundTruth")
    matching: ClassVar[dict[str, str]] = {"suffix": "_segmentation", "without": "_superpixels"}
