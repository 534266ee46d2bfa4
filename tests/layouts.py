"""Tiny sets in the layouts of NDD20, ZeroWaste-f and WIXray, faults of the real ones included."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

import tests
from segsweep.data.source import Source
from tests import words

HEIGHT, WIDTH = 40, 60
BLOCK = [10, 5, 30, 5, 30, 25, 10, 25]  # polygon of pixels [5:25, 10:30]
MODULES = [m.name for m in iter_modules(tests.__path__) if m.name.startswith("layouts")]
MORE = {"ndd20": ["train=20", "val=5"]}  # of the fakes' own


def kind(name: str) -> type:
    """The class of a set."""
    return words.class_of("data", name)


def make(name: str, root: Path) -> Path:
    """Write the fake of a set, which is the function of its name, and return its root."""
    for module in MODULES:
        write = getattr(importlib.import_module(f"tests.{module}"), name, None)
        if write is not None:
            write(root)
            return root
    raise LookupError(f"no fake: tests/layouts*.py must have `def {name}(root: Path)`")


def source(name: str, root: Path, cache: Path, *more: str) -> Source:
    """A set as its yaml and words of the command line make it, without composing a run."""
    node: Any = OmegaConf.load(words.files("data")[name])
    for key in ("_target_", "defaults"):
        node.pop(key, None)
    keys = [f"root={root}", f"cache={cache}", *MORE.get(name, []), *more]
    data = OmegaConf.merge(OmegaConf.structured(kind(name)), node, OmegaConf.from_dotlist(keys))
    config = OmegaConf.create({"model": {"input": [64, 64]}, "data": data})
    data = OmegaConf.to_object(config.data)
    assert isinstance(data, Source)
    return data


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Write an image file of noise, smooth enough for JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path)
    return path


def region(points: Sequence[float], **attributes: str) -> dict[str, Any]:
    shape = {"name": "polyline", "all_points_x": points[0::2], "all_points_y": points[1::2]}
    return {"shape_attributes": shape, "region_attributes": {"object": "dolphin", **attributes}}


def ndd20(root: Path, per_folder: int = 30) -> Path:
    """Equal names in both folders; closed, open and useless outlines; species above only."""
    for water in ("ABOVE", "BELOW"):
        entries = {}
        for number in range(per_folder):
            path = picture(root / water / f"{number}.jpg", number + 100 * (water == "BELOW"))
            closed, open_ = [*BLOCK, *BLOCK[:2]], [5, 35, 5, 28, 50, 28, 50, 35]
            attributes = (
                {"species": "BND"} if water == "ABOVE" else {"out of focus": "true", "id": " "}
            )
            regions = [region(closed, **attributes)] + [region(open_, **attributes)] * (number == 0)
            regions += [region([1, 1, 2, 2], **attributes)] * (number == 1)
            size = path.stat().st_size
            entries[f"{number}.jpg{size}"] = {
                "filename": f"{number}.jpg",
                "size": size,
                "regions": regions,
                "file_attributes": {},
            }
        (root / f"{water}_LABELS.json").write_text(json.dumps(entries))
    return root


def coco(path: Path, files: list[str], names: dict[int, str], polygons: list[list[int]]) -> None:
    """Write a COCO file in which every picture has all polygons, of one class after the other."""
    ids = list(names)
    annotations = [
        {"image_id": image, "category_id": ids[k % len(ids)], "segmentation": [p] if p else []}
        for image in range(len(files))
        for k, p in enumerate(polygons)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation |= {"id": number, "bbox": [0, 0, 0, 0], "area": 0, "iscrowd": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [
            {"id": k, "file_name": f, "height": HEIGHT, "width": WIDTH} for k, f in enumerate(files)
        ],
        "categories": [{"id": i, "name": n} for i, n in reversed(names.items())],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))


def zerowaste(root: Path) -> Path:
    """Suffixes in capitals, label maps beside the pictures, annotations without a mask."""
    names = dict(enumerate(["rigid_plastic", "cardboard", "metal", "soft_plastic"], start=1))
    for k, (split, count) in enumerate({"train": 3, "val": 2, "test": 1}.items()):
        files = [f"0{k}_frame_{n:06}.PNG" for n in range(count)]
        for n, file in enumerate(files):
            picture(root / split / "data" / file, 10 * k + n)
            picture(root / split / "sem_seg" / file)
        shifted = [[v + 5 for v in BLOCK], [v + 9 for v in BLOCK], [1, 30, 9, 30, 9, 38]]
        coco(root / split / "labels.json", files, names, [BLOCK, *shifted, []])
    return root


def wixray(root: Path) -> Path:
    """Ids with gaps, masks over each other."""
    return archives("wixray", root, root / "images")


def coco2017(root: Path) -> Path:
    """The same with pictures in the folder itself."""
    return archives("coco2017", root, root)


def archives(name: str, root: Path, pictures: Path) -> Path:
    """Write annotations and pictures as COCO's archives have them."""
    names = {3 * k + 2: name for k, name in enumerate(kind(name).names)}
    for split, count in {"train": 3, "val": 1}.items():
        files = [f"{split}_{n}.jpg" for n in range(count)]
        for n, file in enumerate(files):
            picture(pictures / f"{split}2017" / file, n)
        path = root / "annotations" / f"instances_{split}2017.json"
        coco(path, files, names, [[v + k for v in BLOCK] for k in range(12)])
    return root
