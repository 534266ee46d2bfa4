"""The cache of converted sets: by which key a set is known, who converts it, and how it is read.

    <cache>/<set>-<key>/train.json, val.json    COCO form; images may have meta, labels and void
                        split.tsv               the manifest: split, tab, key on each line
                        images/...              pictures that were downscaled, no others
                        labels/...              label maps

The key is a hash of all content and of paths below the set's root: the same set at another place is
not converted again, a changed one never mistaken for the old. A folder is there wholly or not at
all; of several processes that want it, one converts and the others wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.base.owner import Busy, Ownership, owned
from segsweep.data import splits
from segsweep.data.base import Annotation, Record
from segsweep.data.items import MANIFEST, Item

if TYPE_CHECKING:
    import numpy as np

VERSION = 1  # raise it when a conversion gives other files
POLL = 0.3  # seconds between two looks at somebody else's conversion

Chosen = Mapping[str, list[Item]]


def content_hash(recipe: dict[str, Any], items: Chosen) -> str:
    """Return a hash of a recipe, of all annotations, and of keys and sizes of the pictures."""

    @cache
    def digest(path: Path) -> str:
        try:
            with open(path, "rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error

    def default(value: Any) -> Any:
        if isinstance(value, Path):
            return digest(value)
        if isinstance(value, array):
            return value.tolist()
        if isinstance(value, bytes):  # run lengths
            return value.decode()
        if is_dataclass(value) and not isinstance(value, type):
            told = asdict(value)
            return {f.name: told[f.name] for f in fields(value) if not f.metadata.get("outside")}
        raise TypeError(f"annotation of an item: {value!r}")

    state = sha256(json.dumps([VERSION, recipe], sort_keys=True).encode())
    for split, several in items.items():
        for item in several:
            facts = [split, item.key, item.image.stat().st_size, item.annotation]
            state.update(json.dumps(facts, sort_keys=True, default=default).encode())
    return state.hexdigest()[:12]


def layout_hash(key: str, files: list[str]) -> str:
    """Return a hash of a set's content and of the paths of its pictures, which its cache holds."""
    return sha256(json.dumps([key, files]).encode()).hexdigest()[:12]


def remembered(
    cache: Path,
    name: str,
    root: Path,
    split: Path | None,
    recipe: dict[str, Any],
    hashed: Callable[[], list[str]],
) -> list[str]:
    """Return the keys of a set: as they were, while no file below its root changes, else `hashed`.

    A look at names, sizes and times of files is much cheaper than a hash of what they hold: many
    runs over one set are composed at once.
    """

    def digest(*more: Any) -> str:
        return sha256(json.dumps([VERSION, recipe, more]).encode()).hexdigest()[:16]

    manifest = splits.text(splits.read(split, splits.WITH_HELD)) if split else ""
    state = digest(manifest, sorted(_stats(root)))
    memo = cache / ".keys" / f"{name}-{digest(str(root.resolve()))}"
    with contextlib.suppress(OSError, ValueError):
        known_state, *keys = memo.read_text().split()
        if known_state == state:
            return keys
    keys = hashed()
    with contextlib.suppress(OSError):  # it only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, " ".join([state, *keys]))
    return keys


def _stats(root: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of change of every file below a folder."""
    try:
        for entry in os.scandir(root):
            if entry.is_dir():
                yield from _stats(Path(entry.path))
            elif entry.is_file():
                stat = entry.stat()
                yield entry.path, stat.st_size, stat.st_mtime_ns
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error


def cache_folder(named: str | None) -> Path:
    """Return the folder of converted sets: the one named, $SEGSWEEP_CACHE, or the default."""
    return Path(named or os.environ.get("SEGSWEEP_CACHE") or "~/.cache/segsweep").expanduser()


def stored_picture(file: str) -> str:
    """Return the place of a downscaled picture in its set's folder: JPEG, or PNG of all else."""
    return f"images/{file if file.lower().endswith(('.jpg', '.jpeg')) else f'{file}.png'}"


def ensure(folder: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill a new folder, unless it is there; wait while another process does.

    Raises UserError when there is no room, or no right, to write.
    """
    lock, waiting = folder.parent / ".converting" / folder.name, False
    while not (folder / MANIFEST).exists():
        try:
            with owned(lock) as mine:
                if not (folder / MANIFEST).exists():
                    _fill(folder, mine, build)
        except Busy as busy:
            if not waiting:
                print(f"waiting for the conversion of {folder.name}: {busy}", file=sys.stderr)
            waiting = True
            time.sleep(POLL)
        except OSError as error:
            raise UserError(
                f"data.cache={folder.parent}: the set cannot be stored there ({error.strerror}); "
                "name another folder with data.cache= or the variable SEGSWEEP_CACHE"
            ) from error


def _fill(folder: Path, mine: Ownership, build: Callable[[Path], None]) -> None:
    """Build beside the folder, then rename, which it must not be there for.

    Raises LostOwnership when another process took over.
    """
    new = mine.directory / f"new.{mine.number}"
    for left in mine.directory.glob("new*"):  # by somebody who was killed, or took too long
        if int(left.suffix[1:] or 0) < mine.number:
            shutil.rmtree(left, ignore_errors=True)
    mine.check()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        new.mkdir()
        build(new)
        mine.check()
        new.rename(folder)
    except OSError:  # of a folder that its new owner has deleted, or has made meanwhile
        mine.check()
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def read_records(path: Path) -> list[Record]:
    """Return the records of a converted split; categories are contiguous."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); delete {path.parent} to convert again"
        ) from error
    number = {category["id"]: k for k, category in enumerate(content["categories"])}
    records = {image["id"]: _record(image) for image in content["images"]}
    for a in content["annotations"]:
        category, crowd = number[a["category_id"]], bool(a["iscrowd"])
        annotation = Annotation(category, a["segmentation"], a["bbox"], a["area"], crowd, a["id"])
        records[a["image_id"]].annotations.append(annotation)
    return list(records.values())


def _record(image: dict[str, Any]) -> Record:
    size = image["height"], image["width"]
    more = {key: image[key] for key in ("labels", "meta", "void", "complete") if key in image}
    return Record(image["id"], image["file_name"], *size, [], **more)


def read_labels(path: Path) -> np.ndarray:
    """Return a stored label map. (H, W) uint8"""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as file:
            return np.array(file)
    except OSError as error:
        folder = next(p.parent for p in path.parents if p.name == "labels")
        raise UserError(
            f"{path}: cannot be read ({error}); delete {folder} to convert again"
        ) from error
