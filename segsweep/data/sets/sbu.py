"""SBU: shadows in photographs.

    SBU-shadow/SBUTrain4KRecoveredSmall/{ShadowImages/*.jpg,ShadowMasks/*.png}
    SBU-shadow/SBU-Test/{ShadowImages/*.jpg,ShadowMasks/*.png}

The masks of train were corrected by a program and are noisy. val is the published test part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts
from segsweep.data.sets.paired import BinaryMasks


@dataclass
class SBU(BinaryMasks):
    """Shadows; the balanced error rate counts the pixels of the whole set, not of each image."""

    facts: ClassVar[Facts] = Facts(
        title="SBU Shadow",
        licence="none stated; research use",
        citation="Vicente et al. 2016, Large-scale training of shadow detectors with noisily-"
        "annotated shadow examples, ECCV",
        obtain="unpack SBU-shadow.zip of www3.cs.stonybrook.edu/~cvl: SBUTrain4KRecoveredSmall "
        "and SBU-Test",
        images={"train": 4089, "val": 638},
        unverified="the numbers (some copies have 4085 of train), and the licence",
    )
    foreground: ClassVar[str] = "shadow"
    archive: ClassVar[str] = "SBU-shadow"
    parts: ClassVar[dict[str, str]] = {"train": "SBUTrain4KRecoveredSmall", "val": "SBU-Test"}
    folders: ClassVar[tuple[str, str]] = ("{}/ShadowImages", "{}/ShadowMasks")
