"""Measures of a grey map against a mask: S-measure, E-measure, weighted F-measure and MAE.

They compare how sure a model is of the foreground, pixel by pixel at the mask's size, with where it
is; each is the mean over the images, in percent (papers print MAE as a fraction). As in all
published evaluations a map is stretched to 0..1 first, unless it is constant, and the numbers are
those of pysodmetrics. Papers differ in the threshold of the E-measure: the mean over all (E_mean),
the best of all (E_max), twice the map's mean (E_adaptive). The published code of Conv-LoRA has
E_mean, and a weighted F-measure with beta2=0.3. Unlabelled pixels count as found background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from segsweep.base.config import within
from segsweep.data.base import IGNORE
from segsweep.metrics.label_maps import BinaryMetric, JudgedMap, LabelMaps, Measures, percent

if TYPE_CHECKING:
    import numpy as np

    from segsweep.data.base import DataSet

EPS = 2.0**-52
LEVELS = 256  # thresholds of the E-measure
SIGMA, REACH = 5.0, 3  # of the Gaussian of the weighted F-measure, 7 x 7 pixels


@dataclass
class Saliency(BinaryMetric):
    """Measures of a binary set; `beta2` weighs recall against precision in the F-measure."""

    values = {
        **dict.fromkeys(("S", "E_mean", "E_adaptive", "E_max", "F_weighted"), ("%", "higher")),
        "MAE": ("%", "lower"),
    }

    key: str = "S"
    beta2: float = within(1.0, above=0)

    @property
    def rules(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """ "saliency", and the weight in the F-measure where it is not 1."""
        return "saliency" if self.beta2 == 1 else f"saliency beta2 {self.beta2:g}"

    def evaluator(self, data: DataSet, split: str) -> GreyMaps:
        """Return an empty evaluator for a split."""
        return GreyMaps(data, split, self.beta2)


class GreyMaps(LabelMaps):
    """Measures each image by its grey map; only numbers stay, in memory and in what is kept."""

    def __init__(self, data: DataSet, split: str, beta2: float) -> None:
        super().__init__(data, split)
        self.beta2 = beta2
        self.values: dict[str, list[float]] = {
            name: [] for name in ("S", "E_adaptive", "F_weighted", "MAE")
        }
        self.curves: list[np.ndarray] = []  # E-measure at each threshold

    def measures(self, truth: np.ndarray, scores: np.ndarray) -> Measures:
        """Measure one image by its grey map, which is not kept."""
        import numpy as np

        mask, grey = truth == 0, stretched(scores.astype(np.float64) * (truth != IGNORE))
        adaptive, curve = enhanced_alignment(grey, mask)
        return {
            "S": [structure(grey, mask)],
            "E_adaptive": [adaptive],
            "F_weighted": [weighted_f(grey, mask, self.beta2)],
            "MAE": [float(np.abs(grey - mask).mean())],
            "E": curve.tolist(),
        }

    def add(self, image_id: int, judged: JudgedMap) -> None:
        """Take in the measures of one image."""
        import numpy as np

        self.curves.append(np.array(judged.measure("E", LEVELS)))
        for name, values in self.values.items():
            values += judged.measure(name)

    def compute(self) -> dict[str, float | None]:
        """Return all values over the images so far; None if there were none."""
        import numpy as np

        curve = np.mean(self.curves, axis=0) if self.curves else np.empty(0)
        return {
            **{name: percent(np.array(values)) for name, values in self.values.items()},
            "E_mean": percent(curve),
            "E_max": percent(curve.max(keepdims=True)) if curve.size else None,
        }


def stretched(grey: np.ndarray) -> np.ndarray:
    """Stretch a map to 0..1, a constant one excepted. (H, W)"""
    low, high = grey.min(), grey.max()
    return grey if low == high else (grey - low) / (high - low)


def structure(grey: np.ndarray, mask: np.ndarray) -> float:
    """S-measure: half of objects, half of regions (Fan 2017). (H, W) in 0..1, (H, W) bool"""
    import numpy as np

    share = mask.mean()
    if share in (0, 1):
        return float(grey.mean() if share else 1 - grey.mean())
    objects = share * _uniform(grey[mask]) + (1 - share) * _uniform(1 - grey[~mask])
    # four regions that meet at the centre of the foreground
    row, column = (int(c) + 1 for c in np.argwhere(mask).mean(0).round())
    regions = 0.0
    for rows in (slice(row), slice(row, None)):
        for columns in (slice(column), slice(column, None)):
            part = mask[rows, columns]
            if part.size:  # pysodmetrics has nan where the centre is at the border
                regions += part.size / mask.size * _similarity(grey[rows, columns], part)
    return float(max(0.0, 0.5 * objects + 0.5 * regions))


def _uniform(x: np.ndarray) -> float:
    """How high and how even values are (Fan 2017, eq. 4)."""
    mean, spread = x.mean(), x.std(ddof=1) if x.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + EPS)


def _similarity(grey: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity of two regions (Wang 2004, without its constants)."""
    x, y = grey.mean(), mask.mean()
    dx, dy, n = grey - x, mask - y, mask.size - 1 + EPS
    joint = 4 * x * y * ((dx * dy).sum() / n)
    apart = (x**2 + y**2) * ((dx**2).sum() / n + (dy**2).sum() / n)
    return joint / (apart + EPS) if joint else float(apart == 0)


def enhanced_alignment(grey: np.ndarray, mask: np.ndarray) -> tuple[float, np.ndarray]:
    """E-measure at twice the map's mean, and at thresholds 255 .. 0 of 255 (Fan 2018). -> (256,)"""
    import numpy as np

    levels = (grey * 255).astype(np.uint8)
    inside, outside = (
        np.bincount(levels[part], minlength=LEVELS)[::-1].cumsum() for part in (mask, ~mask)
    )
    chosen = grey >= min(2 * grey.mean(), 1)
    adaptive = _aligned(np.array((chosen & mask).sum()), np.array((chosen & ~mask).sum()), mask)
    return float(adaptive), _aligned(inside, outside, mask)


def _aligned(inside: np.ndarray, outside: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """E-measure from the numbers of chosen pixels in and outside of a mask. -> their shape"""
    import numpy as np

    total, area = mask.size, int(mask.sum())
    chosen = inside + outside
    if area in (0, total):
        agreed = chosen if area else total - chosen
    else:
        # by whether a pixel is chosen, and in the mask
        numbers = {(1, 1): inside, (1, 0): outside}
        numbers |= {(0, 1): area - inside, (0, 0): total - area - outside}
        agreed = np.zeros(chosen.shape)
        for (positive, true), number in numbers.items():
            a, b = positive - chosen / total, true - area / total
            agreed = agreed + number * (2 * a * b / (a**2 + b**2 + EPS) + 1) ** 2 / 4
    return agreed / (total - 1 + EPS)


def weighted_f(grey: np.ndarray, mask: np.ndarray, beta2: float) -> float:
    """F-measure with errors weighed by where they are (Margolin 2014); 0 without foreground."""
    import numpy as np
    from scipy.ndimage import convolve1d, distance_transform_edt

    if not mask.any():
        return 0.0
    distance, nearest = cast("Any", distance_transform_edt(~mask, return_indices=True))
    error = np.abs(grey - mask)
    # an error of the foreground is one of its surroundings too; those of the background near it
    # are taken to be those of the closest foreground
    weights = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * SIGMA**2))
    smooth = error[tuple(nearest)]
    for axis in (0, 1):
        smooth = convolve1d(smooth, weights / weights.sum(), axis, mode="constant")
    inside = np.minimum(error, smooth)[mask]
    outside = (error * (2 - np.exp(np.log(0.5) / 5 * distance)))[~mask]
    hits, recall = inside.size - inside.sum(), 1 - inside.mean()
    precision = hits / (hits + outside.sum() + EPS)
    return float((1 + beta2) * recall * precision / (recall + beta2 * precision + EPS))
