"""ADE20K instances: the 100 classes of things of the Places Challenge 2017.

    ADEChallengeData2016/images/{training,validation}/ADE_{train,val}_<8 digits>.jpg
    ADEChallengeData2016/annotations_instance/{training,validation}/*.png     RGB

Red is the class, 1..100; green is the number of the object in its picture, 0 where there is none.
Both folders may also lie below `root` itself. The challenge scores up to 255 predictions of a
picture by COCO's rules (metrics=coco_255).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation
from segsweep.data.items import Content, Facts, Item
from segsweep.data.source import Source

ARCHIVE = "ADEChallengeData2016"
# the class table of CSAILVision/placeschallenge (BSD-3-Clause): the first word for each id
CLASSES = """
bed, windowpane, cabinet, person, door, table, curtain, chair, car, painting, sofa, shelf, mirror,
armchair, seat, fence, desk, wardrobe, lamp, bathtub, railing, cushion, box, column, signboard,
chest of drawers, counter, sink, fireplace, refrigerator, stairs, case, pool table, pillow, screen
door, bookcase, coffee table, toilet, flower, book, bench, countertop, stove, palm, kitchen island,
computer, swivel chair, boat, arcade machine, bus, towel, light, truck, chandelier, awning,
streetlight, booth, television receiver, airplane, apparel, pole, bannister, ottoman, bottle, van,
ship, fountain, washer, plaything, stool, barrel, basket, bag, minibike, oven, ball, food, step,
trade name, microwave, pot, animal, bicycle, dishwasher, screen, sculpture, hood, sconce, vase,
traffic light, tray, ashcan, fan, plate, monitor, bulletin board, radiator, glass, clock, flag
"""


@dataclass
class ADE20KInstance(Source):
    """Scenes indoors and outdoors with the objects in them, in the published splits."""

    facts: ClassVar[Facts] = Facts(
        title="ADE20K instances (Places Challenge 2017)",
        licence="images: non-commercial research and education; annotations BSD-3",
        citation="Zhou et al. 2019, Semantic understanding of scenes through the ADE20K dataset, "
        "IJCV 127, arXiv:1608.05442",
        obtain="unpack annotations_instance.tar and images.tar of placeschallenge.csail.mit.edu "
        "(ChallengeData2017) in one folder; the images are those of ADEChallengeData2016.zip",
        images={"train": 20210, "val": 2000},
    )

    def classes(self) -> list[str]:
        """Return the 100 classes; ids begin with 1."""
        return [*CLASSES.strip().replace("\n", " ").split(", ")]

    def items(self) -> dict[str, list[Item]]:
        """Return the pictures of the published splits.

        Raises UserError for missing folders, and for pictures without annotation or vice versa.
        """
        from segsweep.data.formats.pairs import by_stem, pair

        def files(folder: str) -> dict[str, Path]:
            return by_stem(self.place(f"{ARCHIVE}/{folder}", folder))

        splits = {"train": "training", "val": "validation"}
        return {
            split: pair(self.folder, files(f"images/{name}"), files(f"annotations_instance/{name}"))
            for split, name in splits.items()
        }

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read the objects of a picture; their ids are its numbers.

        An object's class is that of its first pixel, as in the challenge's program. Raises
        UserError for a file without colours and for classes above 100.
        """
        import numpy as np

        from segsweep.data.formats import masks
        from segsweep.data.formats.pairs import opened

        image = opened(item.annotation)
        values = np.asarray(image)
        if image.mode not in ("RGB", "RGBA"):
            raise UserError(
                f"{item.annotation}: holds {image.mode} values, must hold class and number of an "
                "object in red and green; is it a label map of scene parsing?"
            )
        objects = []
        for number in map(int, np.unique(values[..., 1])):
            mask = values[..., 1] == number
            category = int(values[mask][0, 0])
            if number == 0 or category == 0:
                continue
            if category > 100:
                raise UserError(f"{item.annotation}: object {number} is of class {category} of 100")
            rle = masks.encode(mask[None])[0]
            objects.append(Annotation(category - 1, rle, [], 0, id=number))
        return Content(values.shape[:2], objects)
