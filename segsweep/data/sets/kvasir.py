"""Kvasir-SEG: polyps in colonoscopy.

    Kvasir-SEG/images/*.jpg, Kvasir-SEG/masks/*.jpg      masks are JPEG: grey rims, three channels

The authors' lists (880 and 120) are not known here, hence a rule of the same sizes: val is not the
same images as theirs. The packed archive `polyp` trains on Kvasir-SEG and CVC-ClinicDB together
(900 + 550, the lists of PraNet) and reports on the rest of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts, Item
from segsweep.data.sets.paired import Pooled
from segsweep.data.splits import Rule


@dataclass
class Kvasir(Pooled):
    """Polyps in 1000 frames of many sizes."""

    facts: ClassVar[Facts] = Facts(
        title="Kvasir-SEG",
        licence="research and education only, by its authors' terms; one mirror says CC BY 4.0",
        citation="Jha et al. 2020, Kvasir-SEG: A Segmented Polyp Dataset, MMM, arXiv:1911.07069",
        obtain="unpack kvasir-seg.zip of datasets.simula.no: Kvasir-SEG/images and masks",
        images={"train": 880, "val": 120},
        unverified="the sizes of the official lists; their content is unknown here",
    )
    foreground: ClassVar[str] = "polyp"
    test: ClassVar[str] = "test_Kvasir"
    division: ClassVar[Rule] = Rule("kvasir", val=120)

    def pool(self) -> list[Item]:
        """Return all frames."""
        return self.pairs(self.base("Kvasir-SEG"), "images", masks="masks")
