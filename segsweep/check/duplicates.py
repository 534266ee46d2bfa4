"""The same picture twice: equal bytes, or nearly equal by a perceptual hash.

The hash is the 64-bit difference hash (Krawetz 2013): is the next cell of a 9x8 grey picture
brighter? Pairs within a small Hamming distance agree in at least one of distance + 1 bands of bits
(pigeonhole), so only pictures that share a band are compared; a second look at 16x16 grey pixels
takes away what is alike by chance.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, islice, pairwise

import numpy as np

from segsweep.check.parts import Part
from segsweep.check.pictures import Look

DISTANCE = 4  # bits
GREY = 8.0  # mean difference of grey levels
MOST = 100_000  # pairs: a film has more than anybody wants to see
BLOCK = 2048  # pictures of one band that are compared at a time
STEM = re.compile(r"(.+?)(?:_(?:jpe?g|png|bmp|tiff?))?\.rf\.[0-9a-zA-Z]{8,}", re.IGNORECASE)
COUNTS = np.array([number.bit_count() for number in range(1 << 16)], np.uint8)

Pair = tuple[Look, Look]


def duplicates(looks: Sequence[tuple[Part, list[Look]]]) -> list[tuple[str, Look, Look]]:
    """Find copies within and across parts, add them to the findings; return pairs to be shown."""
    where = {id(look): part for part, own in looks for look in own}
    every = [look for _, own in looks for look in own if look.digest]
    shown = []
    for one, other in (*same_bytes(every), *similar(every)):
        first, second = where[id(one)], where[id(other)]
        same = one.digest == other.digest
        if first is second and (not same or one.record.file == other.record.file):
            continue
        code = "picture-twice" if first is second else "leak" if same else "leak-similar"
        names = f"{first.name} {one.record.file} = {second.name} {other.record.file}"
        second.found.add(code, other.record.file, names)
        shown.append((code, one, other))
    for part, name, copy in sources(looks):
        part.found.add("leak-source", name, f"{name} ({copy})")
    return shown


def same_bytes(looks: Sequence[Look]) -> Iterator[Pair]:
    """Yield each picture that has the bytes of an earlier one, together with the first of them."""
    first: dict[bytes, Look] = {}
    for look in looks:
        earlier = first.setdefault(look.digest, look)
        if earlier is not look:
            yield earlier, look


def similar(looks: Sequence[Look]) -> Iterator[Pair]:
    """Yield pairs of other bytes but nearly equal pixels."""
    unique = list(
        {look.digest: look for look in reversed(looks) if look.dhash is not None}.values()
    )
    hashes = np.array([look.dhash for look in unique], np.uint64)
    smalls = [look.small for look in unique]
    for one, other in near(hashes, DISTANCE):
        a, b = smalls[one], smalls[other]
        assert a is not None
        assert b is not None
        if np.abs(a.astype(np.int16) - b).mean() <= GREY:
            yield unique[other], unique[one]


def near(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Return all pairs of places whose hashes differ in at most `distance` bits. (n,) uint64"""
    found: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, distance + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")  # so places rise within a group
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for group in np.split(order, cuts):
            found.update(islice(_pairs(hashes, group, distance), MOST - len(found)))
    return sorted(found)


def _pairs(hashes: np.ndarray, group: np.ndarray, distance: int) -> Iterator[tuple[int, int]]:
    """Compare all of a group with one another, a block of pictures at a time."""
    for start in range(0, len(group) - 1, BLOCK):
        rows = group[start : start + BLOCK]
        for begin in range(start, len(group), BLOCK):
            columns = group[begin : begin + BLOCK]
            differing = hashes[rows][:, None] ^ hashes[columns][None, :]
            bits = COUNTS[differing.view(np.uint16)].reshape(*differing.shape, 4).sum(-1)
            for i, j in zip(*np.nonzero(bits <= distance), strict=True):
                if rows[i] < columns[j]:
                    yield int(rows[i]), int(columns[j])


def sources(looks: Sequence[tuple[Part, list[Look]]]) -> Iterator[tuple[Part, str, str]]:
    """Yield names that are augmented copies (Roboflow's `.rf.`) of a photograph of another part."""
    stems: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for part, own in looks:
        for look in own:
            match = STEM.match(look.record.file)
            if match:
                stems[match[1]].setdefault(part.name, look.record.file)
    parts = {part.name: part for part, _ in looks}
    for names in stems.values():
        for (_, first), (second, name) in combinations(names.items(), 2):
            yield parts[second], name, first
