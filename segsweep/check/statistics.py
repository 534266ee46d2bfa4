"""Numbers of a part: counts, class balance, sizes, crowding, brightness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from segsweep.check.pictures import Look

STEPS = (0, 1, 2, 5, 10, 20, 50)  # edges of CROWDING
CROWDING = ("0", "1", "2-4", "5-9", "10-19", "20-49", "50 and more")
SMALL, LARGE = 32**2, 96**2  # pixels: the sizes of COCO


def numbers(looks: Sequence[Look], names: Sequence[str]) -> dict[str, Any]:
    """Return what a report tells of one part, from the pictures that were looked at."""
    records = [look.record for look in looks]
    areas = np.array([area for look in looks for _, area in look.objects], float)
    per_image = np.array([len(look.objects) for look in looks], int)
    overlaps = np.array([look.overlap for look in looks if len(look.objects) > 1], float)
    decoded = [look for look in looks if look.mean is not None]
    mean = np.array([look.mean for look in decoded]).mean(0) if decoded else np.zeros(3)
    square = np.array([look.square for look in decoded]).mean(0) if decoded else np.zeros(3)
    bins = np.digitize(per_image, STEPS) - 1
    resolutions = Counter(f"{r.width}x{r.height}" for r in records)
    counts = np.bincount(bins, minlength=len(STEPS)).tolist() if len(bins) else []
    return {
        "images": len(looks),
        "without": sum(not r.annotations and r.labels is None for r in records),
        "objects": len(areas),
        "crowds": sum(a.iscrowd for r in records for a in r.annotations),
        "classes": balance(looks, names),
        "sizes": {  # objects by COCO's areas
            "small": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
            "large": int((areas >= LARGE).sum()),
        },
        "sides": quantiles(np.sqrt(areas)),  # in pixels
        "per_image": quantiles(per_image),
        "overlap": quantiles(overlaps, digits=3),  # part of the pixels that several objects have
        "resolutions": resolutions.most_common(5),
        "mean": np.round(mean, 2).tolist(),  # of pixels, 0..255 RGB: data.mean and data.std
        "std": np.round(np.sqrt(np.maximum(square - mean**2, 0)), 2).tolist(),
        "crowded": list(zip(CROWDING, counts, strict=False)),  # images by number of objects
    }


def balance(looks: Sequence[Look], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return how much there is of each class; of label maps pixels, and what is of no class."""
    maps = [look.pixels for look in looks if look.pixels is not None]
    if maps:
        amounts = np.sum(maps, axis=0)
        images = np.sum([counts > 0 for counts in maps], axis=0)
        names = [*names, "(background)", "(ignored)"]
    else:
        amounts, images = np.zeros(len(names), int), np.zeros(len(names), int)
        for look in looks:
            classes = [category for category, _ in look.objects]
            np.add.at(amounts, classes, 1)
            images[list(set(classes))] += 1
    total = max(int(amounts.sum()), 1)
    rows = zip(names, amounts.tolist(), images.tolist(), strict=True)
    key = "pixels" if maps else "objects"
    return [
        {"name": name, key: amount, "images": count, "share": amount / total}
        for name, amount, count in rows
    ]


def quantiles(values: np.ndarray, digits: int = 1) -> dict[str, float]:
    """Return minimum, median, 90 % and maximum; nothing of nothing."""
    if not len(values):
        return {}
    edges = np.quantile(values, (0, 0.5, 0.9, 1)).round(digits).tolist()
    return dict(zip(("min", "median", "90 %", "max"), edges, strict=True))
