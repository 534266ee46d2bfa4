"""How large the levels of a simple feature pyramid are. Needs no torch: a config may ask."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.explain import choices
from segsweep.data.geometry import DIVISOR

if TYPE_CHECKING:
    from segsweep.data.base import DataSet

LEVELS = (2, 1, 0.5, 0.25)  # scales, unless others are asked for
SCALES = (4, 2, 1, 0.5, 0.25)  # of the map: what levels may be
TOPS = ("pool", "subsample", "none")  # how the last level is halved into one more


def check_levels(scales: Sequence[float], top: str) -> None:
    """Refuse scales and tops that there are not.

    Raises:
        UserError: names the key, its value and the choices.
    """
    if not scales or list(scales) != [scale for scale in SCALES if scale in scales]:
        each = ", ".join(map(str, SCALES))
        raise UserError(
            f"model.neck.kwargs.scales={list(scales)}: must be some of {each}, in this order"
        )
    if top not in TOPS:
        message = f"model.neck.kwargs.top={top}: there is no such level"
        raise UserError(message + choices(top, TOPS))


def check_input(
    backbone: str,
    kwargs: Mapping[str, Any],
    data: DataSet,
    scales: Sequence[float] = LEVELS,
    top: str = "pool",
    **other: Any,
) -> None:
    """Refuse data of which a level has no cell, where a config alone tells: raises as `check_size`.

    Args:
        backbone, kwargs: `model.backbone.name` and `.kwargs`, which may say the size of patches.
        data: of which `data.size` is that of every input if `data.transform` says so.
        scales, top, other: `model.neck.kwargs`.
    """
    named = re.search(r"patch(\d+)", backbone)
    patch = kwargs.get("patch_size", named and int(named[1]))
    if isinstance(patch, int) and data.transform.value.exact:
        height, width = (-(-side // DIVISOR) * DIVISOR for side in data.size)
        check_size(height, width, patch, scales, top)


def check_size(height: int, width: int, stride: int, scales: Sequence[float], top: str) -> None:
    """Refuse an input of which a level of the pyramid has no cell.

    Args:
        height, width: of the input in pixels, as the network gets it.
        stride: of the map that the levels are made of.
        scales, top: see `SimpleFeaturePyramid`.

    Raises:
        UserError: names the level, its size, and the least input that has a cell of each.
    """
    parts = [min(scale, 1) for scale in scales]
    strides = [stride / scale for scale in scales]
    if top == "pool":  # subsampling keeps the first cell
        parts, strides = [*parts, parts[-1] / 2], [*strides, 2 * strides[-1]]
    grid = ceil(height / stride), ceil(width / stride)
    least = ceil(1 / min(parts)) * stride
    for level, (part, coarse) in enumerate(zip(parts, strides, strict=True), start=1):
        rows, columns = (int(cells * part) for cells in grid)
        if not rows or not columns:
            raise UserError(
                f"data.size: an input of {height} x {width} leaves level {level} of the neck, at "
                f"stride {coarse:g}, {rows} x {columns} cells; the least input is "
                f"{least} x {least}: data.size=[{least},{least}] or larger, or a neck without that "
                "level (model.neck.kwargs)"
            )
