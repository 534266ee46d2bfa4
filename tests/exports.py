"""One small set as many programs write it: six pictures, two classes, eight objects.

Each function writes the folder of one program, in the layout of its documentation, and its name is
that of the export. What differs from the truth is what the format cannot say.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 40, 60
BOLT, NUT = "bolt", "nut"
LEFT = [5, 5, 25, 5, 25, 30, 5, 30]
RIGHT = [35, 10, 50, 10, 50, 35, 35, 35]
TRUTH: dict[str, list[tuple[str, list[int]]]] = {
    "p1": [(BOLT, LEFT)], "p2": [(NUT, RIGHT)], "p3": [(BOLT, LEFT), (NUT, RIGHT)],
    "p4": [], "p5": [(NUT, LEFT), (BOLT, RIGHT)], "p6": [(BOLT, RIGHT), (NUT, LEFT)],
}  # fmt: skip
SPLITS = {"train": ["p1", "p2", "p3", "p4"], "val": ["p5"], "test": ["p6"]}
NAMES = [BOLT, NUT]


def picture(path: Path) -> Path:
    """Write the picture that its name says, different from all others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = int(path.stem[1])
    coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    image.save(path)
    return path


def write(path: Path, what: Any) -> None:
    """Write a file of JSON, or of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(what if isinstance(what, str) else json.dumps(what))


def coco(names: list[str], file_name: str = "{}.jpg", first: int = 1) -> dict[str, Any]:
    """Content of a COCO file."""
    images, annotations = [], []
    for number, name in enumerate(names, start=1):
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"id": number, "license": 1, "file_name": file_name.format(name), **size})
        for label, ring in TRUTH[name]:
            left, top, right, bottom = ring[0], ring[1], ring[2], ring[5]
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "bbox": box, "iscrowd": 0,
                 "category_id": NAMES.index(label) + first, "area": box[2] * box[3],
                 "segmentation": [ring]}
            )  # fmt: skip
    kinds = [{"id": n, "name": x, "supercategory": "none"} for n, x in enumerate(NAMES, first)]
    info = {"year": "2024", "version": "1"}
    return {"info": info, "licenses": [], "categories": kinds, "images": images,
            "annotations": annotations}  # fmt: skip


def roboflow(root: Path) -> None:
    """COCO segmentation: a file in the folder of each split, a root category, names with hashes."""
    for split, names in SPLITS.items():
        folder = root / {"val": "valid"}.get(split, split)
        stems = [f"{name}_jpg.rf.{ord(name[1]):032x}" for name in names]
        for stem in stems:
            picture(folder / f"{stem}.jpg")
        content = coco(names)
        for image, stem in zip(content["images"], stems, strict=True):
            image |= {"file_name": f"{stem}.jpg", "extra": {"name": f"{stem[:2]}.jpg"}}
        parent = {"id": 0, "name": "things", "supercategory": "none"}
        kinds = [kind | {"supercategory": "things"} for kind in content["categories"]]
        write(folder / "_annotations.coco.json", content | {"categories": [parent, *kinds]})
    write(root / "README.roboflow.txt", "This dataset was exported via roboflow.com")


def coco2017(root: Path) -> None:
    """The archives of COCO, other tasks and the list of test pictures included."""
    for split, names in SPLITS.items():
        for name in names:
            picture(root / f"{split}2017/{name}.jpg")
        content = coco(names)
        kind = "image_info" if split == "test" else "instances"
        if split == "test":
            del content["annotations"]
        write(root / f"annotations/{kind}_{split}2017.json", content)
    captions = {"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "a bolt"}]}
    write(root / "annotations/captions_train2017.json", captions)


def cvat(root: Path) -> None:
    """COCO 1.0 of a task: the subset is called default."""
    for name in TRUTH:
        picture(root / f"images/default/{name}.jpg")
    write(root / "annotations/instances_default.json", coco([*TRUTH]))


def cvat_project(root: Path) -> None:
    """COCO 1.0 of a project with subsets; the same names in each."""
    for split, names in SPLITS.items():
        subset = {"train": "Train", "val": "Validation", "test": "Test"}[split]
        for name in names:
            picture(root / f"images/{subset}/{name}.jpg")
        write(root / f"annotations/instances_{subset}.json", coco(names))


def label_studio(root: Path) -> None:
    """COCO with images: result.json, ids from 0."""
    for name in TRUTH:
        picture(root / f"images/{name}.jpg")
    write(root / "result.json", coco([*TRUTH], "images/{}.jpg", first=0))


def _lines(name: str) -> str:
    rows = []
    for label, ring in TRUTH[name]:
        parts = [v / (HEIGHT if k % 2 else WIDTH) for k, v in enumerate(ring)]
        rows.append(" ".join([str(NAMES.index(label)), *map(str, parts)]))
    return "\n".join(rows)


def ultralytics(root: Path) -> None:
    """images/train and labels/train; a picture without objects has no file of labels."""
    for split, names in SPLITS.items():
        for name in names:
            picture(root / f"images/{split}/{name}.jpg")
            if TRUTH[name]:
                write(root / f"labels/{split}/{name}.txt", _lines(name) + "\n")
    named = "".join(f"  {n}: {name}\n" for n, name in enumerate(NAMES))
    places = "train: images/train # 4 images\nval: images/val\ntest: # optional\n"
    write(root / "set.yaml", f"path: ../datasets/set\n{places}\nnames:\n{named}")


def roboflow_yolo(root: Path) -> None:
    """train/images and train/labels, paths that lead one folder too high, an empty file."""
    for split, names in SPLITS.items():
        folder = root / {"val": "valid"}.get(split, split)
        for name in names:
            picture(folder / f"images/{name}.jpg")
            write(folder / f"labels/{name}.txt", _lines(name))
    places = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    more = "roboflow:\n  workspace: w\n  license: CC BY 4.0\n"
    write(root / "data.yaml", f"{places}\nnc: 2\nnames: ['bolt', 'nut']\n\n{more}")


def cvat_yolo(root: Path) -> None:
    """A list of pictures, one subset."""
    for name in TRUTH:
        picture(root / f"images/train/{name}.jpg")
        write(root / f"labels/train/{name}.txt", _lines(name))
    write(root / "train.txt", "".join(f"images/train/{name}.jpg\n" for name in TRUTH))
    write(root / "data.yaml", "names:\n  0: bolt\n  1: nut\npath: ./\ntrain: train.txt\n")


def label_studio_yolo(root: Path) -> None:
    """classes.txt and notes.json instead of data.yaml."""
    for name in TRUTH:
        picture(root / f"images/{name}.jpg")
        write(root / f"labels/{name}.txt", _lines(name))
    write(root / "classes.txt", "bolt\nnut")
    notes = [{"id": n, "name": name} for n, name in enumerate(NAMES)]
    write(root / "notes.json", {"categories": notes, "info": {"contributor": "Label Studio"}})


def _via(folder: Path, names: list[str], version: int) -> dict[str, Any]:
    entries = {}
    for name in names:
        size = picture(folder / f"{name}.jpg").stat().st_size
        regions = [
            {"shape_attributes": {"name": "polygon", "all_points_x": ring[0::2],
                                  "all_points_y": ring[1::2]},
             "region_attributes": {"class": label}}
            for label, ring in TRUTH[name]
        ]  # fmt: skip
        listed = dict(enumerate(map(dict, regions))) if version == 1 else regions
        entry = {"fileref": "", "base64_img_data": ""} if version == 1 else {}
        entry |= {"filename": f"{name}.jpg", "size": size, "file_attributes": {}}
        entries[f"{name}.jpg{size}"] = entry | {"regions": listed}
    return entries


def via1(root: Path) -> None:
    """The layout of the balloon set: an export of VIA 1 in the folder of each split."""
    for split in ("train", "val"):
        write(root / split / "via_region_data.json", _via(root / split, SPLITS[split], 1))


def via2(root: Path) -> None:
    """A project of VIA 2 for each split, pictures in one folder."""
    for split in ("train", "val"):
        project = {"_via_settings": {"ui": {}, "core": {}, "project": {"name": split}},
                   "_via_img_metadata": _via(root / "images", SPLITS[split], 2),
                   "_via_attributes": {"region": {}, "file": {}},
                   "_via_data_format_version": "2.0.10"}  # fmt: skip
        write(root / f"via_project_{split}.json", project)


def labelme(root: Path) -> None:
    """A file for each picture: a polygon, and as mask what has a group; the last one embeds it."""
    for name, objects in TRUTH.items():
        data = picture(root / f"{name}.jpg").read_bytes()
        shapes = []
        for number, (label, ring) in enumerate(objects):
            points = [[x, y] for x, y in zip(ring[0::2], ring[1::2], strict=True)]
            shape = {"label": label, "points": points, "group_id": None, "description": "",
                     "shape_type": "polygon", "flags": {}, "mask": None}  # fmt: skip
            shapes.append(shape | drawn(ring) if number else shape)
        embedded = base64.b64encode(data).decode() if name == "p6" else None
        size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
        told = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg"}
        write(root / f"{name}.json", told | {"imageData": embedded} | size)


def drawn(ring: list[int]) -> dict[str, Any]:
    """A rectangle as LabelMe draws a mask: a PNG file between two corners, both inside."""
    left, top, right, bottom = ring[0], ring[1], ring[2], ring[5]
    file = io.BytesIO()
    Image.fromarray(np.full((bottom - top, right - left), 255, np.uint8)).save(file, "PNG")
    points = [[left, top], [right - 1, bottom - 1]]
    mask = base64.b64encode(file.getvalue()).decode()
    return {"shape_type": "mask", "points": points, "mask": mask}


def mask_of(name: str, values: list[int]) -> Image.Image:
    """The objects of a picture with a value for each."""
    image = Image.new("L", (WIDTH, HEIGHT))
    for (_, ring), value in zip(TRUTH[name], values, strict=False):
        corners = [ring[0], ring[1], ring[2] - 1, ring[5] - 1]
        ImageDraw.Draw(image).rectangle(corners, fill=value)
    return image


def masks(root: Path) -> None:
    """images/ and masks/ of black and white, below each split."""
    for split, names in SPLITS.items():
        for name in names:
            picture(root / split / f"images/{name}.jpg")
            (root / split / "masks").mkdir(parents=True, exist_ok=True)
            mask_of(name, [255, 255]).save(root / split / f"masks/{name}.png")


def cellpose(root: Path) -> None:
    """a.png and a_masks.png in one folder, a value for each cell."""
    for name in TRUTH:
        picture(root / f"{name}.png")
        mask_of(name, [1, 2]).save(root / f"{name}_masks.png")


def data_science_bowl(root: Path) -> None:
    """A folder for each picture, in it a mask for each object; pictures of test have none."""
    for name, objects in TRUTH.items():
        picture(root / f"{name}/images/{name}.png")
        for number in range(len(objects)):
            (root / f"{name}/masks").mkdir(exist_ok=True)
            values = [255 if k == number else 0 for k in range(len(objects))]
            mask_of(name, values).save(root / f"{name}/masks/{name}{number}f.png")
