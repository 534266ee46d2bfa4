"""Waste on a conveyor: ZeroWaste-f (Bashkirova et al. 2022, arXiv:2106.02740).

    ROOT/{train,val,test}/data/*.PNG    ROOT/{train,val,test}/labels.json

Frames of videos, hence the published split is kept. Papers report on val or on test, which are not
comparable; here val validates, and a split file can name pictures of test. Some annotations have an
empty mask: they are left out and counted. Ids mean rigid plastic, cardboard, metal, soft plastic,
in this order; the adapter study told SEEM three of the four in another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts
from segsweep.data.sets.published import Published


@dataclass
class ZeroWaste(Published):
    """Instances of four kinds of recyclables in clutter; metal is rare."""

    archives: ClassVar[tuple[str, ...]] = ("zerowaste-f", "splits_final_deblurred")
    files: ClassVar[dict[str, tuple[str, str]]] = {
        split: (f"{split}/labels.json", f"{split}/data") for split in ("train", "val", "test")
    }
    names: ClassVar[list[str]] = ["rigid_plastic", "cardboard", "metal", "soft_plastic"]

    facts: ClassVar[Facts] = Facts(
        title="ZeroWaste-f",
        licence="CC BY-NC 4.0",
        citation="Bashkirova et al., ZeroWaste Dataset, CVPR 2022, arXiv:2106.02740",
        obtain="download zerowaste-f-final.zip (zenodo.org/record/6412647) and unpack it: "
        "data.root is the folder with train, val and test, each with data and labels.json",
        images={"train": 3002, "val": 572, "test": 929},
        unverified="the numbers of pictures by split (4503 in all is printed)",
    )
