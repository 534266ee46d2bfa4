"""The same picture twice: equal bytes, or nearly equal by a perceptual hash.

The hash is the 64-bit difference hash (Krawetz 2013): is the next cell of a 9x8 grey picture
brighter? Pairs within a small Hamming distance agree in at least one of distance + 1 bands of bits
(pigeonhole), so only pictures that share a band are compared; a second look at 16x16 grey pixels
takes away what is alike by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice, pairwise

import numpy as np

from segsweep.check.crops import crops
from segsweep.check.parts import Part
from segsweep.check.pictures import Look

DISTANCE = 4  # bits
GREY = 8.0  # mean difference of grey levels
MOST = 100_000  # pairs: a film has more than anybody wants to see
BLOCK = 2048  # pictures of one band that are compared at a time
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
    known = {id(second) for code, _, second in pairs if code.startswith("leak")}
    return pairs + [("leak-crop", *pair) for pair in across(looks, known)]


def across(looks: Sequence[tuple[Part, list[Look]]], known: Collection[int]) -> list[Pair]:
    """Add to the findings of each part what is of a photograph of an earlier one; return pairs."""
    found = list(crops(looks, known))
    for part, part_looks in looks:
        of_part = [pair for pair in found if pair[0].part is part]
        share = f"{len(of_part)} of {len(part_looks)} pictures of {part.name}: "
        for place, (second, how, first) in enumerate(of_part):
            file, other = second.look.record.file, first.look.record.file
            detail = f"{file} {how} {other} of {first.part.name}"
            part.defects.add("leak-crop", file, detail if place else share + detail)
    return [(first.look, second.look) for second, _, first in found]


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
