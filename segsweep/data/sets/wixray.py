"""Waste bags under X-rays: WIXray (Qiu et al. 2022, ETHSeg).

    ROOT/annotations/instances_{train,val}2017.json    ROOT/images/{train,val}2017/

Masks are amodal: things are seen through each other, and masks overlap. Class names are spelled as
in the files. Pictures are nearly white, so the statistics of other sets would mislead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts
from segsweep.data.sets.published import Published


@dataclass
class WIXray(Published):
    """Instances of twelve kinds of waste that overlap."""

    archives: ClassVar[tuple[str, ...]] = ("WIXray-master", "WIXray")
    files: ClassVar[dict[str, tuple[str, str]]] = {
        split: (f"annotations/instances_{split}2017.json", f"images/{split}2017")
        for split in ("train", "val")
    }
    names: ClassVar[list[str]] = [
        "Recyclabel_PlasticBottle",
        "ResidualWaste_MealBox",
        "Recyclabel_Can",
        "Recyclabel_Carton",
        "Recyclabel_Glassbottle",
        "Recyclabel_Stick",
        "FoodWaste",
        "Recyclabel_Tableware",
        "ResidualWaste_HeatingPad",
        "ResidualWaste_Desiccant",
        "HazardousWaste_Battery",
        "HazardousWaste_Bulb",
    ]

    facts: ClassVar[Facts] = Facts(
        title="WIXray",
        licence="none stated",
        citation="Qiu et al., ETHSeg: an amodel instance segmentation network and a real-world "
        "dataset for X-ray waste inspection, CVPR 2022",
        obtain="ask the authors, or follow github.com/lingtengqiu/ETHSeg, and unpack it: data.root "
        "is the folder with annotations and images",
        images={"all": 5038},
        unverified="layout and class names are from code that reads the set, not from its files; "
        "the numbers by split are about 4435 and 600",
    )

    def expected(self) -> int | None:
        """Return about how many images train has."""
        return None if self.split else 4435
