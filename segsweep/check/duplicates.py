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
    where = {id(look): part for part, part_looks in looks for look in part_looks}
    readable = [look for _, part_looks in looks for look in part_looks if look.digest]
    pairs = []
    for first_look, second_look in (*same_bytes(readable), *similar(readable)):
        first, second = where[id(first_look)], where[id(second_look)]
        same = first_look.digest == second_look.digest
        if first is second and (not same or first_look.record.file == second_look.record.file):
            continue
        code = "picture-twice" if first is second else "leak" if same else "leak-similar"
        names = f"{first.name} {first_look.record.file} = {second.name} {second_look.record.file}"
        second.defects.add(code, second_look.record.file, names)
        pairs.append((code, first_look, second_look))
    for part, name, copy in sources(looks):
        part.defects.add("leak-source", name, f"{name} ({copy})")
    return pairs


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
    for i, j in close_pairs(hashes, DISTANCE):
        a, b = smalls[i], smalls[j]
        assert a is not None
        assert b is not None
        if np.abs(a.astype(np.int16) - b).mean() <= GREY:
            yield unique[j], unique[i]


def close_pairs(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Return all pairs of places whose hashes differ in at most `distance` bits. (n,) uint64"""
    pairs: set[tuple[int, int]] = set()
    edges = np.linspace(0, 64, distance + 2).astype(int).tolist()
    for low, high in pairwise(edges):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")  # so places rise within a group
        cuts = np.flatnonzero(np.diff(band[order])) + 1
        for group in np.split(order, cuts):
            pairs.update(islice(_pairs(hashes, group, distance), MOST - len(pairs)))
    return sorted(pairs)


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
    for part, part_looks in looks:
        for look in part_looks:
            match = STEM.match(look.record.file)
            if match:
                stems[match[1]].setdefault(part.name, look.record.file)
    parts = {part.name: part for part, _ in looks}
    for names in stems.values():
        for (_, first), (second, name) in combinations(names.items(), 2):
            yield parts[second], name, first
