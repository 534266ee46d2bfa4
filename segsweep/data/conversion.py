"""From items to a folder of COCO files, label maps and downscaled pictures (see `store.py`)."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.base.signals import deaf
from segsweep.data import splits
from segsweep.data.base import Annotation, Segmentation
from segsweep.data.formats import masks
from segsweep.data.formats.images import Levels, common_levels, read_image, sizes
from segsweep.data.items import MANIFEST, PALETTES, Content, Facts, Item
from segsweep.data.store import Chosen, stored_picture

SHARE = 32  # items that make another process worth its start
QUALITY = 95  # of JPEG files that were downscaled


class Convertible(Protocol):
    """What a conversion asks of a set; `source.Source` is one."""

    facts: ClassVar[Facts]

    @property
    def name(self) -> str:
        """The word of the set."""
        ...

    @property
    def longest(self) -> int:
        """The most pixels of a side of stored pictures; 0: as they are."""
        ...

    @property
    def converted(self) -> Path:
        """The folder of the converted set."""
        ...

    @classmethod
    def content(cls, item: Item) -> Content:
        """Read what one item holds."""
        ...

    def file(self, item: Item) -> str:
        """Return the path of a picture below the set's root."""
        ...

    def classes(self) -> list[str]:
        """Return the names of the classes."""
        ...

    def category_ids(self) -> list[int]:
        """Return the ids of the classes in the files."""
        ...


@dataclass(frozen=True)
class Job:
    """One item on its way to another process."""

    content: Callable[[Item], Content]
    item: Item
    file: str  # of the picture, relative to the set's root
    longest: int
    folder: Path
    levels: Levels | None = None  # of the whole set

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, int], dict[int, str]]:
        """Store picture and label map; return the COCO entries without ids, counts, and colours.

        Raises UserError naming the file for anything that is wrong with the item.
        """
        of_file = sizes(self.item.image)
        try:
            content = self.content(self.item)
            self._check(content, of_file)
            size = self._size(content)
            entries = [coco_entry(a, content.size, size) for a in content.annotations]
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as e:
            beside = self.item.annotation if isinstance(self.item.annotation, Path) else ""
            files = f"{self.item.image} {beside}".rstrip()
            raise UserError(f"{files}: cannot be converted ({e!r})") from e
        counts = {"objects without a pixel left out": entries.count(None), **content.counts}
        file = self.file if size == content.size else self._picture(content, size)
        image = {"file_name": file, "height": size[0], "width": size[1], "meta": content.meta}
        if content.labels is not None:
            image["labels"] = self._labels(content.labels, size)
        elif not any(entries) and any(counts.values()):
            image["complete"] = False  # something was on it
        if content.void is not None:
            image["void"] = masks.listed(resized(content.void, content.size, size))
        return image, [entry for entry in entries if entry], counts, content.colours

    def _check(self, content: Content, of_file: Sequence[tuple[int, int]]) -> None:
        """Compare what was read with the sizes that the picture may have."""
        if content.size not in of_file:
            raise UserError(
                f"{self.item.image}: the file has {wxh(of_file[0])} pixels, its annotations are "
                f"for {wxh(content.size)}; they do not belong together"
            )
        if content.labels is not None and content.labels.shape != content.size:
            raise UserError(
                f"{self.item.annotation}: the label map has {wxh(content.labels.shape)} pixels, "
                f"its picture {wxh(content.size)}"
            )

    def _size(self, content: Content) -> tuple[int, int]:
        """Return the height and width that the picture is to have."""
        height, width = content.size
        scale = self.longest / max(content.size)
        if not self.longest or scale >= 1:
            return content.size
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _picture(self, content: Content, size: tuple[int, int]) -> str:
        """Store the picture at another size; return its file."""
        file = stored_picture(self.file)
        small = Image.fromarray(read_image(self.item.image, content.size, self.levels))
        small = small.resize((size[1], size[0]), Image.Resampling.LANCZOS)
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            small.save(path, "PNG")
        else:
            small.save(path, "JPEG", quality=QUALITY, subsampling=0)
        return file.removeprefix("images/")

    def _labels(self, labels: np.ndarray, size: tuple[int, int]) -> str:
        """Store a label map; return its file."""
        name = f"{self.item.key}.png"
        path = self.folder / "labels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(nearest(labels.astype(np.uint8), size)).save(path, "PNG")
        return name


def wxh(size: tuple[int, ...]) -> str:
    """Return (height, width) as it is commonly written."""
    return f"{size[1]}x{size[0]}"


def nearest(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map by the pixels whose centres are nearest. (H, W) uint8 -> (h, w)"""
    if pixels.shape == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.NEAREST))


def coco_entry(
    annotation: Annotation, before: tuple[int, int], size: tuple[int, int]
) -> dict[str, Any] | None:
    """Return an instance as a COCO entry at a new size, None if no pixel of it is left."""
    segmentation, box, area = annotation.shape, annotation.bbox, annotation.area
    if before != size:
        segmentation, box, area = resized(segmentation, before, size), [], 0
    rle = masks.to_rle(segmentation, size)
    pixels = masks.area(rle)
    if not pixels:
        return None
    if not box or min(box[2:]) <= 0:
        box = masks.bbox(rle) if isinstance(segmentation, dict) else extent(segmentation, size)
    return {
        "category": annotation.category,
        "segmentation": annotation.segmentation and masks.listed(segmentation),
        "bbox": box,
        "area": float(area or pixels),
        "iscrowd": int(annotation.iscrowd),
    } | ({"id": annotation.id} if annotation.id else {})


def extent(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> list[float]:
    """Return the box [x, y, w, h] of the corners of polygons, within the frame."""
    xs, ys = ([v for polygon in polygons for v in polygon[axis::2]] for axis in (0, 1))
    x, y = max(min(xs), 0), max(min(ys), 0)
    return [x, y, min(max(xs), size[1]) - x, min(max(ys), size[0]) - y]


def resized(
    segmentation: Segmentation, before: tuple[int, int], size: tuple[int, int]
) -> Segmentation:
    """Return a segmentation of a picture at its new size: exact polygons, nearest pixels."""
    if before == size:
        return segmentation
    if not isinstance(segmentation, dict):
        return masks.moved(segmentation, (size[1] / before[1], size[0] / before[0]), (0, 0))
    mask = masks.to_mask(segmentation, before).astype(np.uint8)
    return masks.encode(nearest(mask, size)[None].astype(bool))[0]


def convert(
    source: Convertible, chosen: Chosen, folder: Path, levels: Levels | None = None
) -> None:
    """Fill a new folder with the splits of a set; tell what was found, left out and mended.

    Pictures of more than 8 bits that are stored are scaled by `levels`, by default their own.
    """
    numbers = {split: len(items) for split, items in chosen.items()}
    published = {split: source.facts.images.get(split, number) for split, number in numbers.items()}
    published_text = "" if numbers == published else f", published: {source.facts.images}"
    message = " and ".join(f"{number} {split}" for split, number in numbers.items())
    print(f"converting {source.name}: {message} pictures{published_text}", file=sys.stderr)
    started, counts = time.time(), Counter[str]()
    shown: dict[int, dict[str, str]] = {}  # by value of the masks and colour: where first
    items = [item for several in chosen.values() for item in several]
    if source.longest and levels is None:
        levels = common_levels(item.image for item in items)
    jobs = [
        Job(type(source).content, item, source.file(item), source.longest, folder, levels)
        for item in items
    ]
    with contextlib.closing(_run(jobs, source.name)) as results:
        for split, several in chosen.items():
            entries = [next(results) for _ in several]
            write_text(folder / f"{split}.json", json.dumps(coco(source, entries)))
            for item, (_, _, counted, used) in zip(several, entries, strict=True):
                counts.update(counted)
                for value, colour in used.items():
                    shown.setdefault(value, {}).setdefault(colour, item.key)
    keys = {split: [item.key for item in several] for split, several in chosen.items()}
    if differing := [(value, colours) for value, colours in shown.items() if len(colours) > 1]:
        value, colours = differing[0]
        examples = " and ".join(f"{colour} in {key}" for colour, key in [*colours.items()][:2])
        write_text(folder / PALETTES, f"{len(differing)} values, {value} is {examples}")
    write_text(folder / MANIFEST, splits.text(keys))
    remarks = "".join(f"; {number} {what}" for what, number in sorted(counts.items()) if number)
    message = f"  {time.time() - started:.0f} s, {source.converted}{remarks}"
    print(message, file=sys.stderr, flush=True)


def coco(source: Convertible, entries: list[Any]) -> dict[str, Any]:
    """Return a split in COCO form; ids count from 1."""
    ids, images, annotations = source.category_ids(), [], []
    for number, (image, objects, *_) in enumerate(entries, start=1):
        images.append({"id": number, **image})
        for entry in objects:
            annotation = {"id": len(annotations) + 1, "image_id": number, **entry}
            annotation["category_id"] = ids[annotation.pop("category")]
            annotations.append(annotation)
    names = zip(ids, source.classes(), strict=True)
    categories = [{"id": number, "name": name} for number, name in names]
    facts = source.facts
    info = {"description": facts.title, "licence": facts.licence, "citation": facts.citation}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _run(jobs: list[Job], name: str) -> Generator[Any]:
    """Yield the results of jobs in their order, from as many processes as they are worth."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    options = {"description": name, "total": len(jobs), "console": console}
    options["disable"] = not console.is_terminal
    workers = min(len(jobs) // SHARE, available())
    if workers < 2:
        yield from track(map(Job.run, jobs), **options)
        return
    start = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
    pool = ProcessPoolExecutor(workers, start, initializer=_worker)
    try:
        yield from track(pool.map(Job.run, jobs, chunksize=8), **options)
    except BrokenProcessPool as error:
        raise UserError(
            f"data={name}: a process of the conversion was killed; is there enough memory?"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def available() -> int:
    """Return the number of processors that this process may use."""
    with contextlib.suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _worker() -> None:
    """Leave signals to the parent, and end with it even if it is killed."""
    deaf()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
