"""Evaluation of a large picture at its own size: what it adds to a process that holds the model.

A JPEG with ten annotated objects, polygons and run lengths, is read, resized, predicted on by the
tiny model, and scored. Dense: the picture is converted as a whole, and all masks of its predictions
exist as pixels before they are encoded, in the order of their scores. Both sides must give the
same numbers. CPU time on one thread.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hotcoco
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks import _sides
from segsweep.base.config import Config, compose
from segsweep.data.formats import images, masks
from segsweep.data.geometry import View
from segsweep.loss.outputs import Output
from segsweep.model.found import Instances
from segsweep.model.heads import frames
from segsweep.model.heads.query_instances import InstanceReader, boxes_of
from segsweep.model.segmenter import Segmenter
from segsweep.run.evaluate import validation
from segsweep.run.restore import assemble

SIDES = ["dense", "segsweep"]
CASES = {  # height, width, predictions
    "2,048 x 1,536, 100 masks": (1536, 2048, 100),
    "12,000 x 9,000, 10 masks": (9000, 12000, 10),
}
OBJECTS = 10
Image.MAX_IMAGE_PIXELS = None


@dataclass
class DenseInstances(Instances):
    """Instances that hold their masks as pixels (M, H, W), and encode them together."""

    pixels: Tensor

    def __post_init__(self) -> None:
        columns = np.asfortranarray(self.pixels.numpy().transpose(1, 2, 0))
        codes: Any = hotcoco.mask.encode(columns)
        self.rles = [{**code, "counts": code["counts"].decode()} for code in codes]


class Dense(InstanceReader):
    """The same instances out of masks that are all there at once."""

    def read(self, output: Output, b: int, view: View, least: float) -> Instances:
        result = output.matching
        assert result.boxes is not None
        scores, queries, labels = self._best(result.logits[-1, b], least)
        unique_queries, inverse = queries.unique(return_inverse=True)
        found, quality = [], []
        few = max(1, frames.CELLS // (view[-1][0] * view[-1][1]))
        for embeddings in result.embeddings[-1, b, unique_queries].split(few):
            logits = torch.einsum("mc,chw->mhw", embeddings, output.mask_features[b])[None]
            logits = frames.to_original(logits, *view, self.resize)[0]
            inside = (logits > 0).float()
            found.append(logits > 0)  # made a few at a time, but none is given back
            certain = logits.sigmoid_().mul_(inside).sum((1, 2))
            quality.append(certain / (inside.sum((1, 2)) + 1e-6))
        scores = scores * torch.cat(quality)[inverse]
        scores, order = scores.sort(descending=True, stable=True)
        boxes = boxes_of(result.boxes[-1, b, queries], *view)[order]
        pixels = torch.cat(found)[inverse[order]]
        return DenseInstances(scores, labels[order], boxes, [], view[-1], pixels)


def run(case: str, side: str) -> dict[str, Any]:
    height, width, number = CASES[case]
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as folder:
        written(Path(folder), height, width)
        words = ["data=coco", f"data.root={folder}", "model.weights=null", "peft=frozen"]
        config = compose([*words, f"model.topk={number}", f"model.queries={number}"])
        data = config.data
        model, *_ = assemble(config, data.classes(), data.subject())
        model.eval()
        if side == "dense":
            images.colours = lambda file: np.asarray(file.convert("RGB"))
            model.sem_seg_head.reader = Dense(**vars(model.sem_seg_head.reader))
        values = []
        measured = _sides.measure({"CPU": lambda: values.append(evaluated(config, model))}, 1)
    return measured | {"result": {"pixels found": values[0]}}


def evaluated(config: Config, model: Segmenter) -> int:
    """Evaluate on the validation picture; return the pixels of all masks."""
    evaluator, pixels = config.metrics.evaluator(config.data, "val"), 0
    for batch in validation(config):
        found = model.find(batch)
        evaluator.update(batch, found)
        pixels += sum(masks.area(rle) for rle in found[0].rles)
    evaluator.compute()
    return pixels


def written(folder: Path, height: int, width: int) -> None:
    """Write a data set of one picture, the same for train and val."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (height // 50, width // 50, 3), np.uint8)
    Image.fromarray(noise).resize((width, height)).save(folder / "a.jpg")
    picture = {"id": 1, "file_name": "a.jpg", "height": height, "width": width}
    annotations = []
    for number in range(OBJECTS):
        x, y, radius = random.uniform(0.2, 0.8) * width, random.uniform(0.2, 0.8) * height, 0.2
        turns = [2 * pi * k / 24 for k in range(24)]
        corners = [
            v for t in turns for v in (x + radius * height * cos(t), y + radius * height * sin(t))
        ]
        rle = masks.to_rle([corners], (height, width))
        segmentation = masks.listed(rle) if number % 2 else [corners]
        box, area = masks.bbox(rle), masks.area(rle)
        entry = {"id": number + 1, "image_id": 1, "category_id": 1, "iscrowd": 0}
        annotations.append(entry | {"segmentation": segmentation, "bbox": box, "area": area})
    content = {"images": [picture], "annotations": annotations}
    for split in ("train", "val"):
        text = json.dumps(content | {"categories": [{"id": 1, "name": "disk"}]})
        (folder / f"{split}.json").write_text(text)


def rows() -> list[dict[str, Any]]:
    return _sides.rows("benchmarks.full_size", list(CASES), SIDES)


if __name__ == "__main__":
    _sides.main(run, rows)
