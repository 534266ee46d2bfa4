"""Published sets whose annotations are COCO files; classes are the authors', in their order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from segsweep.base.errors import UserError
from segsweep.data.items import Content, Item
from segsweep.data.source import Source


@dataclass
class Published(Source):
    """A set of COCO files: where they and their pictures lie, by split."""

    archives: ClassVar[tuple[str, ...]]  # folders that archives unpack to
    files: ClassVar[dict[str, tuple[str, str]]]  # split -> annotation file, folder of pictures
    names: ClassVar[list[str]]  # of classes, by rising category id

    def classes(self) -> list[str]:
        """Return the names of the classes."""
        return list(self.names)

    def category_ids(self) -> list[int]:
        """Return the ids of the training file. Raises UserError for other names than expected."""
        from segsweep.data.formats.coco_file import parse

        path = self._base / self.files["train"][0]
        return sorted(self._known(path, {c["id"]: c["name"] for c in parse(path)["categories"]}))

    def items(self) -> dict[str, list[Item]]:
        """Return the pictures of all splits that are there; train and val must be."""
        existing = [
            split for split, (file, _) in self.files.items() if (self._base / file).is_file()
        ]
        return {split: self._items(split) for split in dict.fromkeys(("train", "val", *existing))}

    def _items(self, split: str) -> list[Item]:
        """Read an annotation file; what is useless in it is left out with a warning of counts."""
        from segsweep.data.formats.coco_file import read

        file, folder = (self._base / place for place in self.files[split])
        if not file.is_file() or not folder.is_dir():
            raise UserError(f"{self._base}: needs {file.name} and {folder}. {self._obtain}")
        content = read(file)
        place = {c: k for k, c in enumerate(sorted(self._known(file, content.categories)))}
        pictures = {path.name.lower(): path for path in folder.iterdir()}  # suffixes in any case
        items = []
        for record in content.records:
            for annotation in record.annotations:
                annotation.category = place[annotation.category]
            name = Path(record.file).name
            image = pictures.get(name.lower(), folder / name)
            items.append(Item(image.relative_to(self._base).as_posix(), image, record))
        return items

    @classmethod
    def content(cls, item: Item) -> Content:
        """Return what was read already."""
        record = item.annotation
        counts = {"pictures with annotations that cannot be read": int(not record.complete)}
        size = record.height, record.width
        return Content(size, record.annotations, meta=record.meta, counts=counts)

    @cached_property
    def _base(self) -> Path:
        """The folder of the set: `root`, or what its archive unpacks to therein."""
        file, _ = self.files["train"]
        path = self.place(file, *(f"{archive}/{file}" for archive in self.archives))
        return Path(str(path).removesuffix(file))

    def _known(self, file: Path, categories: dict[int, str]) -> dict[int, str]:
        """Return the categories of a file if they are the classes, by rising id."""
        names = [categories[key] for key in sorted(categories)]
        if names != self.names:
            raise UserError(f"{file}: its classes are {names}, those of the set {self.names}")
        return categories
