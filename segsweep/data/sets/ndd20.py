"""Dolphins above and below water: NDD20 (Trotter et al. 2020, arXiv:2005.13359).

    ROOT/ABOVE/0.jpg ... 2200.jpg    ROOT/ABOVE_LABELS.json
    ROOT/BELOW/0.jpg ... 2200.jpg    ROOT/BELOW_LABELS.json

Both folders have files of the same names with different pictures. Outlines are polylines of VIA;
each is closed and filled, and those whose ends are far apart are counted. Nobody published a split:
the adapter study's code trains on 1500 pictures of the pool and validates on 300, which ones is not
known. Here blocks of consecutive numbers stay together, since bursts of photographs are near
duplicates; that numbers follow time is an assumption.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, Record
from segsweep.data.items import Content, Facts, Item
from segsweep.data.source import Source
from segsweep.data.splits import Rule, few

WATERS = ("ABOVE", "BELOW")
BLOCK = 25  # consecutive numbers that stay together
OPEN = 0.3  # of its size: a polyline with a larger gap is counted as open


@dataclass
class NDD20(Source):
    """Instances of one class; `train` and `val` pictures are taken out of the pool by a rule.

    Pictures have 18 megapixels above water, so smaller copies are stored; results are for these
    sizes. Columns to slice by: water, species (BND or WBD), out_of_focus.
    """

    longest: int = 1024
    train: int = within(1500, least=1)
    val: int = within(300, least=1)

    facts: ClassVar[Facts] = Facts(
        title="Northumberland Dolphin Dataset 2020 (NDD20)",
        licence="CC BY-NC-SA 4.0",
        citation="Trotter et al., NDD20, CVPR workshops 2020, arXiv:2005.13359",
        obtain="download NDD20 from the data repository of Newcastle University "
        "(doi 10.25405/data.ncl.c.4982342) and unpack it: data.root is the folder with ABOVE, "
        "BELOW, ABOVE_LABELS.json and BELOW_LABELS.json",
        images={"all": 4402},
        unverified="that file numbers follow time; which pictures are behind published results",
    )

    def classes(self) -> list[str]:
        """Return the one class; species are known above water only."""
        return ["dolphin"]

    def expected(self) -> int | None:
        """Return how many images the rule takes for train."""
        return None if self.split else self.train

    def rule(self) -> str:
        """Return the rule in words."""
        return f"blocks of {BLOCK} consecutive file numbers: {self._rule}"

    @property
    def _rule(self) -> Rule:
        return Rule("ndd20", val=self.val, train=self.train)

    def items(self) -> dict[str, list[Item]]:
        """Return train and val, and as "rest" the pictures of neither."""
        pool = [item for water in WATERS for item in self._pool(water)]
        if self.split is not None:
            return {"rest": pool}
        if len(pool) < self.train + self.val:
            raise UserError(
                f"data.train={self.train} data.val={self.val}: there are only {len(pool)} "
                f"annotated pictures below {self.root}"
            )
        return self._rule.split(pool)

    def _pool(self, water: str) -> list[Item]:
        from segsweep.data.formats.via import read

        path = self.place(f"{water}_LABELS.json", f"NDD20/{water}_LABELS.json")
        images, faults = read(path)
        left_out = Counter(fault.entry for fault in faults)
        if broken := [fault.entry for fault in faults if fault.region is None]:
            warnings.warn(f"{path}: {few(broken)} broken entries left out", stacklevel=2)
        items = []
        for image in images:
            number = Path(image.file).stem
            block = int(number) // BLOCK if number.isdigit() else number
            key = f"{water}/{image.file}"
            annotation = (image, left_out[image.key])
            items.append(Item(key, path.parent / key, annotation, f"{water}/{block}"))
        return items

    @classmethod
    def content(cls, item: Item) -> Content:
        """Close and fill the polylines of a picture."""
        from PIL import Image

        from segsweep.data.formats.instances import Defect, polygon

        via, left_out = item.annotation
        with Image.open(item.image) as picture:
            record = Record(0, item.key, picture.height, picture.width, [])
        annotations = []
        for region in via.regions:
            with contextlib.suppress(Defect):
                outline, _ = polygon(region.polygon, record)
                annotations.append(Annotation(0, [outline], [], 0))
        counts = {
            "open outlines closed": sum(region.gap > OPEN for region in via.regions),
            "outlines left out": left_out + len(via.regions) - len(annotations),
        }
        return Content((record.height, record.width), annotations, meta=meta(item), counts=counts)


def meta(item: Item) -> dict[str, str]:
    """Return the columns of a picture: what holds for any of its outlines."""
    via, _ = item.annotation
    attributes = [region.attributes for region in via.regions]
    species = sorted({a["species"] for a in attributes if a.get("species")})
    focus = {a["out of focus"] for a in attributes if a.get("out of focus")}
    return {
        "water": item.key.partition("/")[0].lower(),
        "species": "+".join(species) or "unknown",
        "out_of_focus": "true" if "true" in focus else "false" if focus else "unknown",
    }
