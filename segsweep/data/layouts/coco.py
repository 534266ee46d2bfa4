"""COCO files, wherever programs put them.

train.json, val.json                                    a name that tells the split
annotations/instances_train2017.json, train2017/...     COCO's own archives, CVAT
train/_annotations.coco.json, valid/...                 Roboflow
result.json, images/...                                 Label Studio: one file, no split
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.data.layouts.base import Layout
from segsweep.data.layouts.tree import by_split

if TYPE_CHECKING:
    from segsweep.data.formats.coco_file import CocoFile
    from segsweep.data.formats.listing import Pictures
    from segsweep.data.layouts.tree import Tree

PLAIN = (
    "{split}.json",
    "annotations/{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}2017.json",
)
"""Where a split's file is looked for first, whatever else lies there."""
SHOWN = 8  # files in a message
OTHER_TASKS = ("captions", "keypoints", "panoptic", "stuff", "image_info")  # beside instances_


class CocoLayout(Layout):
    """Annotation files in COCO form."""

    hint = (
        "COCO files (train.json and val.json, annotations/instances_train2017.json, "
        "train/_annotations.coco.json, result.json and the like)"
    )

    @classmethod
    def find(cls, tree: Tree) -> CocoLayout | None:
        """Return the COCO files of each split, named by themselves or by their folder.

        Raises UserError where a split has several.
        """
        paths = [path for path, keys in tree.jsons.items() if cls.reads(keys)]
        own = [path for path in paths if not any(word in path.lower() for word in OTHER_TASKS)]
        parts = by_split(own, tree.root)
        for split, files in parts.items():
            if len(files) > 1:
                names = ", ".join(path.relative_to(tree.root).as_posix() for path in files[:SHOWN])
                raise UserError(
                    f"data.root={tree.root}: {len(files)} COCO files may be {split} ({names}); "
                    f"choose with data.train= and data.val="
                )
        return cls(tree.root, title(own), parts) if parts else None

    @classmethod
    def reads(cls, keys: frozenset[str]) -> bool:
        """Tell by the keys in its head whether a JSON file is of COCO's form."""
        listed = keys & {"images", "annotations", "categories"}
        return len(listed) > 1 or bool(listed and keys & {"file_name", "image_id", "supercategory"})

    def read(self, places: Mapping[str, Pictures]) -> dict[str, CocoFile]:
        """Return what can be used of files that are of COCO's form already."""
        from segsweep.data.formats.coco_file import survey

        files = {split: self.parts[split][0] for split in places}
        return {s: survey(path, places[s], self.needs_masks) for s, path in files.items()}

    def original(self, split: str) -> dict[str, Any]:
        """Return the content of the file."""
        from segsweep.data.formats.coco_file import parse

        return parse(self.parts[split][0])


def plain(root: Path, named: Mapping[str, list[Path]]) -> CocoLayout | None:
    """Return the files of train and val that are named or lie where they are looked for first.

    None if one of both does not.
    """
    parts = dict(named)
    for split in ("train", "val", "test"):
        paths = (root / place.format(split=split) for place in PLAIN)
        first = next((path for path in paths if path.is_file()), None)
        parts |= {split: [first]} if first and split not in parts else {}
    return CocoLayout(root, "", parts) if {"train", "val"} <= parts.keys() else None


def title(paths: list[str]) -> str:
    """Return what files at such places are called: by the program that writes them so."""
    names = [path.rpartition("/")[2] for path in paths]
    if all(name == "_annotations.coco.json" for name in names):
        return "Roboflow export (COCO)"
    if all(path.startswith("annotations/instances_") for path in paths):
        return "COCO's own layout, as CVAT exports it too"
    if names == ["result.json"]:
        return "Label Studio export (COCO)"
    return "COCO files"
