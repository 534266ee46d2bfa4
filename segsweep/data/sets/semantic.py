"""Your own semantic data: `data=semantic data.root=FOLDER`.

    FOLDER/train.csv, FOLDER/val.csv     columns image,label: paths of pictures and masks
    FOLDER/held.csv                      of pictures to choose the best epoch by (data.select=held)
    FOLDER/classes.json                  {"classes": ["sky", "road"], "ignore_label": 11}

Masks hold class numbers: grey or palette files, never colours. Classes without values of their own
have their place in the list; {"classes": {"sky": 0, "road": 7}} gives them others. Pixels of
`ignore_label` count nowhere, those of `background_label` are of no class; each is a number or a
list. `data.labels={road: 255} data.background_label=[0]` says the same without a file.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND, IGNORE, SPLITS
from segsweep.data.items import Content, Facts, Item
from segsweep.data.source import Source
from segsweep.data.splits import HELD


@dataclass
class Semantic(Source):
    """Pictures and masks of any classes, listed in CSV files."""

    labels: dict[str, int] = field(default_factory=dict)  # value in the masks of each class
    ignore_label: list[int] = field(default_factory=list)  # values that count nowhere
    background_label: list[int] = field(default_factory=list)  # values of no class

    task: ClassVar[str] = "semantic"
    facts: ClassVar[Facts] = Facts(
        title="your own semantic data",
        licence="your own",
        citation="",
        obtain="a folder with train.csv and val.csv (columns image,label), and classes.json or "
        "data.labels={name: value}",
        images={},
    )

    def classes(self) -> list[str]:
        """Return the names of the classes. Raises UserError for a faulty classes.json."""
        return list(self._values[0])

    @property
    def background(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether some pixels are of no class."""
        return bool(self._values[2])

    def items(self) -> dict[str, list[Item]]:
        """Return the pictures of the lists. Raises UserError for files that do not exist."""
        from segsweep.data.formats.pairs import table

        names, ignore, background = self._values
        places = {value: k for k, value in enumerate(names.values())}
        places |= dict.fromkeys(ignore, IGNORE) | dict.fromkeys(background, BACKGROUND)
        lists = {split: table(self.place(f"{split}.csv")) for split in SPLITS}
        if (held := self.folder / f"{HELD}.csv").is_file():
            lists[HELD] = table(held)
        return {
            split: [replace(item, annotation=(item.annotation, places)) for item in items]
            for split, items in lists.items()
        }

    def rule(self) -> str:
        """Return in words how pictures come into train and val."""
        return "train.csv and val.csv"

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read a mask of class numbers."""
        from segsweep.data.formats.pairs import numbered

        mask, places = item.annotation
        return numbered(item.image, mask, places)

    @cached_property
    def _values(self) -> tuple[dict[str, int], list[int], list[int]]:
        """The values in the masks: of the classes by name, ignored ones, those of background."""
        if self.labels:
            content, where = {"classes": dict(self.labels)}, "data.labels"
        else:
            path = self.place("classes.json")
            content, where = read(path), str(path)
        names = content["classes"]
        if isinstance(names, list):
            names = {name: k for k, name in enumerate(names)}
        ignore = [*self.ignore_label, *listed(content.get("ignore_label"))]
        background = [*self.background_label, *listed(content.get("background_label"))]
        if not 0 < len(names) <= BACKGROUND:
            raise UserError(
                f"{where}: {len(names)} classes, but label maps hold 1 to {BACKGROUND}; leave the "
                "rarest to data.ignore_label or data.background_label"
            )
        twice = Counter([*names.values(), *{*ignore}, *{*background}])
        if any(count > 1 or value < 0 for value, count in twice.items()):
            raise UserError(
                f"{where}: classes {names}, ignored {ignore}, background {background}: each value "
                "must mean one thing and be 0 or more"
            )
        return names, ignore, background


def read(path: Path) -> dict[str, Any]:
    """Read classes.json. Raises UserError for anything that is not of its form."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    content = content if isinstance(content, dict) else {"classes": content}
    names = content.get("classes")
    values = list(names.values()) if isinstance(names, dict) else []
    texts = list(names) if isinstance(names, list | dict) else [None]
    numbers = [
        *values,
        *listed(content.get("ignore_label")),
        *listed(content.get("background_label")),
    ]
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in numbers)
    if not whole or not all(isinstance(t, str) for t in texts) or len({*texts}) < len(texts):
        raise UserError(
            f'{path}: must be like {{"classes": ["sky", "road"], "ignore_label": 11}}, names once '
            "each, values whole numbers"
        )
    return content


def listed(value: Any) -> list[Any]:
    """Return a list of one value, of several, or of none."""
    return [] if value is None else value if isinstance(value, list) else [value]
