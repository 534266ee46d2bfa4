"""COCO 2017: objects of everyday scenes, the set of most published bases.

    ROOT/annotations/instances_{train,val}2017.json    ROOT/{train,val}2017/*.jpg

`data=coco` reads the same files; this word says which set they are, so that its runs belong to
published tables, and knows the classes without any file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.items import Facts
from segsweep.data.sets.published import Published

CLASSES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra,
giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush
"""


@dataclass
class Coco2017(Published):
    """80 classes of things in the published splits, by rising id of their category."""

    facts: ClassVar[Facts] = Facts(
        title="COCO 2017",
        licence="annotations CC BY 4.0; images by the terms of Flickr",
        citation="Lin et al. 2014, Microsoft COCO: Common Objects in Context, ECCV, "
        "arXiv:1405.0312",
        obtain="unpack train2017.zip, val2017.zip and annotations_trainval2017.zip of "
        "cocodataset.org in one folder",
        images={"train": 118287, "val": 5000},
    )
    archives: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[dict[str, tuple[str, str]]] = {
        split: (f"annotations/instances_{split}2017.json", f"{split}2017")
        for split in ("train", "val")
    }
    names: ClassVar[list[str]] = [*CLASSES.strip().replace("\n", " ").split(", ")]

    def expected(self) -> int | None:
        """Return how many images of train have an object that is no crowd."""
        return None if self.split else 117266
