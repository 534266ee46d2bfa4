"""Which format a folder is of: every file of this package is asked."""

from __future__ import annotations

import zipfile
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from segsweep.base.errors import UserError
from segsweep.data import layouts
from segsweep.data.layouts.base import Layout
from segsweep.data.layouts.tree import PICTURES, Tree, keys

SHOWN = 12  # annotation files in a message
TEXTS = (".json", ".json.gz", ".zip", ".xml", ".csv", ".txt", ".yaml", ".yml", ".tfrecord")


def formats() -> dict[str, type[Layout]]:
    """Return the class of each format by the word that `data.layout=` calls it: its file."""
    kinds: dict[str, type[Layout]] = {}
    for info in iter_modules(layouts.__path__):
        module = import_module(f"{layouts.__name__}.{info.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__ != Layout.__module__:
                kinds |= {info.name: kind} if issubclass(kind, Layout) else {}
    return kinds


def of_files(root: Path, parts: dict[str, list[Path]]) -> Layout:
    """Return how files that somebody named are read: as the first of them looks, else as COCO's."""
    first, kinds = next(iter(parts.values()))[0], formats()
    unpacked(first)
    head = keys(first)
    if why := next((why for kind in kinds.values() if (why := kind.refuses(head))), ""):
        raise UserError(f"{first}: is {why}")
    kind = next((kind for kind in kinds.values() if kind.reads(head)), kinds["coco"])
    return kind(root, "", parts)


def found(root: Path, word: str | None = None) -> Layout:
    """Return how a folder is read; `word` names the format where several are there.

    Raises UserError that names the annotation files that were seen, if it is of none or of several.
    """
    kinds, tree = formats(), Tree(root)
    if word is not None and word not in kinds:
        raise UserError(f"data.layout={word}: must be one of {', '.join(kinds)}")
    chosen = {name: kind for name, kind in kinds.items() if word in (None, name)}
    every = {name: layout for name, kind in chosen.items() if (layout := kind.find(tree))}
    strong = {name: layout for name, layout in every.items() if not layout.weak} or every
    if len(strong) == 1:
        return next(iter(strong.values()))
    if strong:
        several = "; ".join(f"data.layout={name} ({layout})" for name, layout in strong.items())
        raise UserError(f"data.root={root}: annotations of several formats; choose one: {several}")
    raise UserError(
        f"data.root={root}: no annotations in a format that is known were found there. Seen: "
        f"{seen(tree)}. Known are {'; '.join(kind.hint for kind in chosen.values())}. "
        "Or name COCO files: data.train=path/to/file.json data.val=path/to/other.json. Photographs "
        "only? A finished run predicts on them: predict run=ID images=FOLDER"
    )


def unpacked(path: Path) -> None:
    """Raise UserError for an archive."""
    if zipfile.is_zipfile(path):
        raise UserError(f"{path}: is an archive; unpack it and name the folder")


def seen(tree: Tree) -> str:
    """Return which files of a folder may be annotations, and what each seems to be."""
    kinds, words = formats().values(), []
    paths = tree.ending(*TEXTS)
    for path in paths[:SHOWN]:
        head = tree.jsons.get(path, frozenset())
        what = next((why for kind in kinds if (why := kind.refuses(head))), "")
        what = what or ", ".join(sorted(head)[:4])
        words.append(f"{path} ({what})" if what else path)
    if len(paths) > SHOWN:
        words.append(f"{len(paths) - SHOWN} more")
    return ", ".join([*words, f"{len(tree.ending(*PICTURES))} pictures"])
