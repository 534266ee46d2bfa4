"""Your own pictures of known classes: `data=imagefolder data.root=FOLDER`.

    FOLDER/train/cat/1.jpg, FOLDER/val/dog/7.jpg     a folder for each class, in train and in val
    FOLDER/cat/1.jpg, FOLDER/dog/7.jpg               the same without: a part of each class is val

Classes are the folders of train, in the order of their names, as torchvision's ImageFolder has
them. `valid`, `validation` and `test` stand for val where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS, Record
from segsweep.data.items import Content, Facts, Item, pictures
from segsweep.data.labelled import check_classes, class_of, filling
from segsweep.data.source import Source
from segsweep.data.splits import Share, few

VAL = ("val", "valid", "validation", "test")


@dataclass
class ImageFolder(Source):
    """Folders of pictures, one for each class.

    `share` is the part of each class that is val where no folder says so: whole photographs, in
    the order of a hash of their names.
    """

    share: float = within(0.2, above=0, below=1)

    task: ClassVar[str] = "label"
    background: ClassVar[bool] = False
    facts: ClassVar[Facts] = Facts(
        title="your own pictures of known classes",
        licence="your own",
        citation="",
        obtain="a folder of pictures for each class, below train and val or directly",
        images={},
    )

    def classes(self) -> list[str]:
        """Return the names of the class folders of train. Raises UserError where there are none."""
        return list(self._folders["train"])

    def items(self) -> dict[str, list[Item]]:
        """Return the pictures of each split; raises UserError as `classes`, and for new classes."""
        names = self.classes()
        parts = {split: self._listed(folders) for split, folders in self._folders.items()}
        if "val" in parts:
            return parts
        parted: dict[str, list[Item]] = {"train": [], "val": []}
        for place, name in enumerate(names):
            own = {item.key: item for item in parts["train"] if item.annotation == place}
            for split, keys in self._parted(name, list(own)).items():
                parted[split] += [own[key] for key in keys]
        return parted

    def records(self, split: str) -> list[Record]:
        """Return the pictures of a split; raises as `items`, and as `check_classes`."""
        return self._checked[split]

    def rule(self) -> str:
        """Return in words how pictures come into train and val."""
        parted = "val" not in self._folders
        return f"of each class {Share(self.share)}" if parted else "folders train and val"

    @classmethod
    def content(cls, item: Item) -> Content:
        """Return the class of a picture, of which no more than the head is read."""
        from segsweep.data.formats.images import sizes

        _, upright = sizes(item.image)
        return Content(upright, [filling(item.annotation, upright)])

    def _listed(self, folders: dict[str, Path]) -> list[Item]:
        """Return the pictures of class folders. Raises UserError for classes that train lacks."""
        names = self.classes()
        if unknown := [name for name in folders if name not in names]:
            raise UserError(
                f"{folders[unknown[0]].parent}: has folders of classes that train lacks: "
                f"{few(unknown)}; the classes are those of train: {few(names)}"
            )
        return [
            Item(path.relative_to(self.folder).as_posix(), path, names.index(name))
            for name, folder in folders.items()
            for path in pictures(folder)
        ]

    def _parted(self, name: str, keys: list[str]) -> dict[str, list[str]]:
        try:
            return Share(self.share).keys(keys)
        except UserError as error:
            raise UserError(
                f"data.root={self.root}: the {len(keys)} pictures of {name} are of one photograph, "
                "by their names; give the class more, or make folders train and val"
            ) from error

    @cached_property
    def _checked(self) -> dict[str, list[Record]]:
        check_classes(self, *([class_of(r) for r in self._records[split]] for split in SPLITS))
        return self._records

    @cached_property
    def _folders(self) -> dict[str, dict[str, Path]]:
        """The class folders by name of train, and of val where that is a folder."""
        base = self.folder / "train" if (self.folder / "train").is_dir() else self.folder
        folders = {"train": class_folders(base)}
        val = next((self.folder / name for name in VAL if (self.folder / name).is_dir()), None)
        if base != self.folder and val is not None:
            folders["val"] = class_folders(val)
        for split, found in folders.items():
            if not found:
                raise UserError(
                    f"data.root={self.root}: {split} has no class folders with pictures. "
                    f"{self._obtain}"
                )
        return folders


def class_folders(base: Path) -> dict[str, Path]:
    """Return the folders of a folder that hold pictures, by their names, in order."""
    folders = (path for path in sorted(base.iterdir()) if path.is_dir())
    return {path.name: path for path in folders if pictures(path)}
