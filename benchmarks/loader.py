"""Images per second of the training loader, against torchvision's `CocoDetection`.

Both read the same JPEGs (640 x 480, 10 polygons each), squash them to 512 x 512, flip half of them,
and give normalised batches of 8 with masks, classes and tight boxes. torchvision's side is its own
recipe: `wrap_dataset_for_transforms_v2`, then v2 transforms. An epoch in turns, by worker
processes; ours keeps decoded pictures while they fit, so its first epoch stands by itself.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from benchmarks.evaluator import HEIGHT, WIDTH
from segsweep.data.base import IMAGENET_MEAN, IMAGENET_STD
from segsweep.data.loader import Batch, TrainLoader
from segsweep.data.sets.coco import Coco

IMAGES, OBJECTS, BATCH, SIDE = 96, 10, 8, 512
EPOCHS = 3


def rows() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return [row for workers in (0, 1, 2) for row in compared(Path(folder), workers)]


def compared(folder: Path, workers: int) -> list[dict[str, Any]]:
    """Time epochs of both sides in turns."""
    data = Coco(name="coco", root=str(folder), size=[SIDE, SIDE])
    segsweep = TrainLoader(data, BATCH, seed=0, workers=workers)
    torchvision = torchvision_loader(folder, workers)
    times: dict[str, list[float]] = {"segsweep": [], "torchvision CocoDetection": []}
    for epoch in range(EPOCHS):
        ours = segsweep.epoch(epoch * len(segsweep))
        for name, batches in zip(times, (ours, torchvision), strict=True):
            start = time.perf_counter()
            instances = sum(count(batch) for batch in batches)
            times[name].append(time.perf_counter() - start)
            assert instances == IMAGES * OBJECTS, (name, instances)
    return [
        {
            "loader": name,
            "workers": workers,
            "first epoch, images/s": IMAGES / seconds[0],
            "later epochs, images/s": IMAGES / median(seconds[1:]),
        }
        for name, seconds in times.items()
    ]


def count(batch: Any) -> int:
    """Return the number of instances in a batch of either side."""
    if isinstance(batch, Batch):
        return sum(len(target.labels) for target in batch.targets)
    return sum(len(target["labels"]) for target in batch[1])


def torchvision_loader(folder: Path, workers: int) -> DataLoader[Any]:
    """Return torchvision's own pipeline of the same work."""
    transforms = v2.Compose(
        [v2.ToImage(), v2.RandomHorizontalFlip(), v2.Resize((SIDE, SIDE), antialias=True)]
    )
    data = datasets.CocoDetection(
        str(folder / "images"), str(folder / "train.json"), transforms=transforms
    )
    wrapped = datasets.wrap_dataset_for_transforms_v2(data, target_keys=("masks", "labels"))
    return DataLoader(
        wrapped,
        BATCH,
        shuffle=True,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )


def collate(samples: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> tuple[Any, Any]:
    """Normalise, stack, and put tight boxes around the masks."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images = torch.stack([(image - mean) / std for image, _ in samples])
    targets = [
        {"labels": t["labels"], "masks": t["masks"].bool(), "boxes": masks_to_boxes(t["masks"])}
        for _, t in samples
    ]
    return images, targets


def write(folder: Path) -> None:
    """Write pictures of smooth noise with polygons of 24 corners, in COCO form."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations = [], []
    for image_id in range(1, IMAGES + 1):
        noise = random.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"{image_id}.jpg", quality=90)
        images.append(
            {"id": image_id, "file_name": f"{image_id}.jpg", "height": HEIGHT, "width": WIDTH}
        )
        for polygon in polygons(random):
            number = len(annotations) + 1
            annotations.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": 1,
                    "segmentation": [polygon],
                    "iscrowd": 0,
                }
            )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "thing"}],
    }
    for split in ("train", "val"):
        (folder / f"{split}.json").write_text(json.dumps(content))


def polygons(random: np.random.Generator) -> Iterator[list[float]]:
    """Yield ellipses of 24 corners that lie inside the picture."""
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for x, y, a, b in random.uniform(
        [80, 80, 10, 10], [WIDTH - 80, HEIGHT - 80, 70, 70], (OBJECTS, 4)
    ):
        corners = np.stack([x + a * np.cos(turns), y + b * np.sin(turns)], 1)
        yield corners.round(2).ravel().tolist()
