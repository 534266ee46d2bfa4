"""ADE20K scene parsing (SceneParse150): 150 classes of things and stuff.

    ADEChallengeData2016/images/{training,validation}/ADE_{train,val}_<8 digits>.jpg
    ADEChallengeData2016/annotations/{training,validation}/*.png      0 = other, 1..150

Pixels of "other" count nowhere. val is the published validation part, on which papers report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from segsweep.data.base import IGNORE
from segsweep.data.items import Facts
from segsweep.data.sets.paired import NumberedMasks

NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade
machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle,
buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming
pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step,
tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture,
hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin
board, shower, radiator, glass, clock, flag
"""  # the first word for each in objectInfo150.txt of CSAILVision/sceneparsing, in its order


@dataclass
class ADE20K(NumberedMasks):
    """Scenes indoors and outdoors, labelled in every pixel."""

    background: ClassVar[bool] = False
    facts: ClassVar[Facts] = Facts(
        title="ADE20K scene parsing (ADEChallengeData2016)",
        licence="images: non-commercial research and education; annotations BSD-3",
        citation="Zhou et al. 2019, Semantic understanding of scenes through the ADE20K dataset, "
        "IJCV 127, arXiv:1608.05442",
        obtain="unpack ADEChallengeData2016.zip of sceneparsing.csail.mit.edu: images and "
        "annotations, each with training and validation",
        images={"train": 20210, "val": 2000},
    )
    names: ClassVar[list[str]] = [*NAMES.strip().replace("\n", " ").split(", ")]
    zero: ClassVar[int] = IGNORE
    archive: ClassVar[str] = "ADEChallengeData2016"
    parts: ClassVar[dict[str, str]] = {"train": "training", "val": "validation"}
    folders: ClassVar[tuple[str, str]] = ("images/{}", "annotations/{}")
