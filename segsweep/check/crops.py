"""Crops, tiles and copies of one photograph on both sides of a split: by names and by pixels.

Names tell it that say so: copies of Roboflow, and what calls itself a crop or a tile. Edges tell it
where one picture goes on at the end of another, whatever the two are called. An overlap is looked
for where names are equal up to their numbers, which alone say nothing. Pixels agree if they do so
in nearly all cells with something to see: one line or one bright spot in both is no agreement.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import nsmallest
from itertools import product

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from segsweep.base.errors import UserError
from segsweep.check.parts import Part
from segsweep.check.pictures import EDGE, Look
from segsweep.data.layouts.tree import split_of
from segsweep.data.splits import COPY, PIECE, photographs, stem

SIDE = 192  # pixels of the longer side of pictures that are laid over one another
AREAS = (8, 8), 8  # pixels of a cell of these, and how many must agree
LINES = (1, 16), 5  # the same of edges
MOST = 0.8  # share of the cells with something to see that must agree
LIKE = 0.7  # correlation of what agrees
CONTRAST = 2.5  # grey levels, standard deviation: less is nothing to see
SHARE = 1 / 8  # of the smaller picture: the least overlap
FEW = 9  # pieces of one photograph; what more are called like may be a class
NEAREST, LOOKED = 6, 200  # pictures that one is laid over; of how many this is done in a part
BLOCK = 2048  # pictures of a part whose edges are compared at a time
SIDES = ((0, 1), (1, 0), (2, 3), (3, 2))  # of `Look.edges`: which goes on at which


@dataclass(eq=False)
class Picture:
    """A picture of a part."""

    part: Part
    look: Look

    @cached_property
    def name(self) -> str:
        """Its path without the folders that tell a split."""
        *folders, file = self.look.record.file.split("/")
        return "/".join([*(f for f in folders if split_of(f"{f}/_") is None), file])

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers in its name."""
        return [int(digits) for digits in re.findall(r"\d+", self.name)]

    def far(self, other: Picture) -> int:
        """Return how far the numbers of two names are apart."""
        return sum(abs(a - b) for a, b in zip(self.numbers, other.numbers, strict=False))

    @property
    def longest(self) -> int:
        """Its longer side."""
        return max(self.look.record.height, self.look.record.width)


Pairs = Iterator[tuple[Picture, Picture]]
"""An earlier and a later picture of one photograph; each later one comes once."""


def crops(
    looks: Sequence[tuple[Part, list[Look]]], known: Collection[int]
) -> Iterator[tuple[Picture, str, Picture]]:
    """Yield a picture, what tells that it is of a photograph of an earlier part, and one of that.

    `known` are the ids of looks that are told as copies already: they are not laid over others.
    """
    parts = [[Picture(part, look) for look in part_looks] for part, part_looks in looks]
    photograph = photographs([picture.name for part in parts for picture in part])
    sure = certain([picture.name for part in parts for picture in part])
    for place, left in enumerate(parts):
        earlier = [picture for part in parts[:place] for picture in part]
        for what, pairs in (
            ("is called like", lambda a, b: called(a, b, sure)),
            ("continues", touching),
            ("overlaps", lambda a, b: overlapping(a, b, photograph, known)),
        ):
            found = {second: first for first, second in pairs(earlier, left)}
            yield from ((second, what, first) for second, first in found.items())
            left = [picture for picture in left if picture not in found]


def certain(names: Sequence[str]) -> dict[str, str]:
    """Return the photograph of each name that says so itself.

    Names of more pieces than a few say it of a photograph or of a class.
    """
    copies = {name: COPY.sub("", stem(name)) for name in names}
    pieces = {name: PIECE.sub("", copy) for name, copy in copies.items()}
    counts = Counter(pieces.values())
    sure = {name: piece for name, piece in pieces.items() if counts[piece] <= FEW}
    chosen = {name: sure.get(name, copy) for name, copy in copies.items()}
    return {name: photograph for name, photograph in chosen.items() if photograph != stem(name)}


def called(earlier: Sequence[Picture], later: Sequence[Picture], sure: Mapping[str, str]) -> Pairs:
    """Yield those whose names say that they are of one photograph."""
    first = {sure[p.name]: p for p in reversed(earlier) if p.name in sure}
    for picture in later:
        if picture.name in sure and sure[picture.name] in first:
            yield first[sure[picture.name]], picture


def touching(earlier: Sequence[Picture], later: Sequence[Picture]) -> Pairs:
    """Yield those of which one goes on where the other ends."""
    found: set[Picture] = set()
    for one, other in product(blocks(earlier), blocks(later)):
        (ends, ends_of), (starts, starts_of) = edges(one), edges(other)
        for i, j in SIDES:
            fitting = starts_of[:, None, j] == ends_of[None, :, i]  # lengths
            scores = np.where(fitting, unit(starts[:, j]) @ unit(ends[:, i]).T, 0)
            best = scores.argmax(1)
            for row in np.flatnonzero(scores.max(1) > LIKE):
                first, second = one[best[row]], other[row]
                line, next_line = ends[best[row], i], starts[row, j]
                if second not in found and agree(line[None], next_line[None], *LINES):
                    found.add(second)
                    yield first, second


def blocks(pictures: Sequence[Picture]) -> list[list[Picture]]:
    """Return the pictures that have edges, some at a time."""
    usable = [picture for picture in pictures if picture.look.edges is not None]
    return [usable[start : start + BLOCK] for start in range(0, len(usable), BLOCK)]


def edges(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of pictures without slow changes, and their lengths. (N, 4, EDGE), (N, 4)"""
    lines = np.stack([np.asarray(p.look.edges, np.float32) for p in pictures])
    sizes = np.array([(p.look.record.height, p.look.record.width) for p in pictures])
    return lines - ndimage.gaussian_filter1d(lines, EDGE // 32), sizes[:, [1, 1, 0, 0]]


def unit(lines: np.ndarray) -> np.ndarray:
    """Return lines of length 1 and mean 0, and zeros for those with nothing to see. (N, L)"""
    lines = lines - lines.mean(1, keepdims=True)
    seen = lines.std(1, keepdims=True) >= CONTRAST
    return np.where(seen, lines, 0) / np.maximum(np.linalg.norm(lines, axis=1, keepdims=True), 1)


def overlapping(
    earlier: Sequence[Picture],
    later: Sequence[Picture],
    photograph: Mapping[str, str],
    known: Collection[int],
) -> Pairs:
    """Yield those that show the same in a part, of the ones whose names are alike."""
    siblings: defaultdict[str, list[Picture]] = defaultdict(list)
    for picture in earlier:
        siblings[photograph[picture.name]].append(picture)
    suspects = [p for p in later if id(p.look) not in known and photograph[p.name] in siblings]
    shown = lru_cache(maxsize=256)(reduced)
    for picture in suspects[:: max(1, len(suspects) // LOOKED)]:
        for other in nsmallest(NEAREST, siblings[photograph[picture.name]], key=picture.far):
            factor = max(1, round(max(picture.longest, other.longest) / SIDE))
            a, b = shown(other, factor), shown(picture, factor)
            if a is not None and b is not None and agree(*common(a, b), *AREAS):
                yield other, picture
                break


def reduced(picture: Picture, factor: int) -> np.ndarray | None:
    """Return the details of a grey picture a few times smaller, None of what cannot be read."""
    try:
        pixels = picture.part.data.image(picture.look.record)
    except (UserError, MemoryError):
        return None
    small = np.asarray(ImageOps.grayscale(Image.fromarray(pixels)).reduce(factor), np.float32)
    return ndimage.gaussian_filter(small, 0.7) - ndimage.gaussian_filter(small, 3)


def common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what of two pictures lies over one another where they are most alike.

    That is the place of the highest normalised correlation (Padfield 2012, without means: details
    have none) among those of enough overlap and contrast. (H, W), (h, w) -> (r, c) twice
    """
    shape = [m + n for m, n in zip(a.shape, b.shape, strict=True)]
    first, second = ([np.fft.rfft2(y, shape) for y in (x, x * x, np.ones_like(x))] for x in (a, b))
    products, energy, other, area = (
        np.fft.irfft2(first[i] * second[j].conj(), shape)
        for i, j in ((0, 0), (1, 2), (2, 1), (2, 2))
    )
    enough = area > SHARE * min(a.size, b.size)
    enough &= np.minimum(energy, other) > CONTRAST**2 * area
    scores = np.where(enough, products / np.sqrt(np.where(enough, energy * other, 1)), -1)
    place = np.unravel_index(scores.argmax(), scores.shape)
    offsets = [int(x) - n * (x >= m) for x, n, m in zip(place, shape, a.shape, strict=True)]
    spans = [
        (max(x, 0), max(-x, 0), min(m - max(x, 0), n - max(-x, 0)))
        for x, m, n in zip(offsets, a.shape, b.shape, strict=True)
    ]
    (y, v, height), (x, u, width) = spans
    return a[y : y + height, x : x + width], b[v : v + height, u : u + width]


def agree(a: np.ndarray, b: np.ndarray, cell: tuple[int, int], least: int) -> bool:
    """Say whether the details of two pictures of one size are the same. (H, W) twice

    That is so if they agree in `least` cells and more, and in most of those with something to see.
    """
    pieces = [in_cells(x, cell) for x in (a, b)]
    u, v = (x - x.mean(1, keepdims=True) for x in pieces)
    seen = np.maximum(u.std(1), v.std(1)) >= CONTRAST
    alike = (u * v).sum(1) > LIKE * np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    count = int((alike & seen).sum())
    return count >= max(least, MOST * seen.sum())


def in_cells(a: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Return the whole cells of a picture. (H, W) -> (N, h * w)"""
    rows, columns = (n // size for n, size in zip(a.shape, cell, strict=True))
    a = a[: rows * cell[0], : columns * cell[1]].reshape(rows, cell[0], columns, cell[1])
    return a.swapaxes(1, 2).reshape(rows * columns, cell[0] * cell[1])
