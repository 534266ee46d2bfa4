"""Pictures and lists of which expert the gates of a run choose: docs/pictures.md says what is what.

OUT/shares.csv, .png ...    share of each expert, block by block
OUT/sizes.csv               the same by the size of the mask that a window holds
OUT/windows.csv             each window of the images that are drawn
OUT/image-ID.png ...        windows of some blocks over an image, coloured by their expert
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segsweep.analysis.experts import SIZES, Routing, Routings, Sampled
from segsweep.base.csv_files import as_csv
from segsweep.base.errors import UserError
from segsweep.base.files import write_text
from segsweep.results.charts.canvas import GREY, Chart, Painted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from segsweep.data.base import Record

TIE = "Of equal logits the lowest scale is chosen"
SIDE, NARROW = 2.6, 1.7  # inches: the longer side of a panel's image; what it has at least
ABOVE = 0.42  # inches for its title
READABLE = 64  # windows of an image into which numbers are written
Picture = tuple["Record", np.ndarray]
"""An image as its record names it, and its pixels (H, W, 3) uint8."""


def share_rows(found: Routings) -> list[list[Any]]:
    """Return shares in percent of each expert, block by block, heads first."""
    rows = []
    for block in found.blocks:
        rows.append([*_whose(block), len(block.expert), block.tied, *_shares(block.counts())])
    return [["block", "samples are", "samples", "ties", *_scales(found)], *rows]


def size_rows(found: Routings) -> list[list[Any]]:
    """Return the same by the size of the mask that the samples hold."""
    rows = []
    for block in found.blocks:
        sizes = found.sizes(block)
        for k, size in enumerate(SIZES):
            counts = block.counts(sizes == k)
            rows.append([*_whose(block), size, int(counts.sum()), *_shares(counts)])
    return [["block", "samples are", "mask", "samples", *_scales(found)], *rows]


def window_rows(found: Routings, pictures: Sequence[Picture]) -> list[list[Any]]:
    """Return every window of the images that are drawn: a box around it, and its expert."""
    rows: list[list[Any]] = [["image", "block", "left", "top", "right", "bottom", "scale"]]
    for record, pixels in pictures:
        for block in found.blocks:
            for k, box in _boxes(block.images[record.image_id], pixels).items():
                scale = int(block.images[record.image_id].expert[k])
                rows.append([record.file, block.block, *box, scale])
    return rows


def _boxes(sampled: Sampled, pixels: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """Return left, top, right, bottom of each window in pixels, but of those outside the image."""
    boxes, (height, width, _) = {}, pixels.shape
    for k in np.unique(sampled.window).tolist():
        y, x = np.nonzero(sampled.window == k)
        left, top = round(x.min() * sampled.width), round(y.min() * sampled.height)
        right = min(round((x.max() + 1) * sampled.width), width)
        bottom = min(round((y.max() + 1) * sampled.height), height)
        if left < right and top < bottom:
            boxes[k] = (left, top, right, bottom)
    return boxes


def _whose(block: Routing) -> tuple[str, str]:
    return block.block, "windows" if block.windowed else "images"


def _scales(found: Routings) -> list[str]:
    return [f"scale {k}, %" for k in range(1, 1 + max(b.experts for b in found.blocks))]


def _shares(counts: np.ndarray) -> list[float | None]:
    total = counts.sum()
    return [round(100 * float(n) / total, 2) if total else None for n in counts]


def remarks(found: Routings) -> list[str]:
    """Say what has to be known of the numbers."""
    ties = sum(block.tied for block in found.blocks)
    total = sum(len(block.expert) for block in found.blocks)
    had = f"{ties:,} of {total:,} samples" if ties else "no sample"
    return [f"{found.images} images of {found.split}. {TIE}; {had} had equal ones."]


def write(
    found: Routings, pictures: Sequence[Picture], blocks: Sequence[Routing], out: Path
) -> Iterator[Path]:
    """Write all files, `blocks` of each picture; yield their paths.

    Raises UserError where the folder cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    lists = {
        "shares": share_rows(found),
        "sizes": size_rows(found),
        "windows": window_rows(found, pictures),
    }
    for name, rows in lists.items():
        write_text(out / f"{name}.csv", as_csv(rows))
        yield out / f"{name}.csv"
    yield from heat_map(found).save(out / "shares")
    for record, pixels in pictures:
        yield from image_map(record, pixels, blocks).save(out / f"image-{record.image_id}")


def heat_map(found: Routings) -> Chart:
    """Draw blocks x experts: the share of samples that chose an expert."""
    experts, rows = max(b.experts for b in found.blocks), len(found.blocks)
    size = (1.9 + 0.42 * experts, 0.75 + 0.24 * rows)
    return Chart([partial(_shares_panel, found)], remarks(found), size)


def _shares_panel(found: Routings, ax: Axes) -> Painted:
    counts = [block.counts() for block in found.blocks]
    shares = np.array([100 * own / max(own.sum(), 1) for own in counts])
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(shares):
        ink = "white" if value > 55 else "black" if value else GREY
        ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    labels = [f"{b.block.removeprefix('backbone.')}  {len(b.expert):,} {_whose(b)[1]}"
              for b in found.blocks]  # fmt: skip
    ax.set_yticks(range(len(labels)), labels)
    ax.set_xticks(range(shares.shape[1]), [f"×{k + 1}" for k in range(shares.shape[1])])
    ax.set_xlabel("scale of the expert")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.set_title("Share of samples that chose an expert, %", loc="left")
    return Painted()


def image_map(record: Record, pixels: np.ndarray, blocks: Sequence[Routing]) -> Chart:
    """Draw the windows of blocks over an image, a panel each, coloured by their expert's scale."""
    height, width = pixels.shape[:2]
    inches = SIDE / max(height, width)
    painters = [partial(_image_panel, block, block.images[record.image_id], pixels)
                for block in blocks]  # fmt: skip
    size = (max(NARROW, inches * width), inches * height + ABOVE)
    return Chart(painters, [record.file], size)


def _image_panel(block: Routing, sampled: Sampled, pixels: np.ndarray, ax: Axes) -> Painted:
    from matplotlib.patches import Patch

    colours = _colours(block.experts)
    (height, width, _), (rows, columns) = pixels.shape, sampled.window.shape
    grey = np.repeat(pixels.mean(2, keepdims=True) / 255, 3, axis=2)
    ax.imshow(grey, extent=(0, width, height, 0))
    whole = (0, columns * sampled.width, rows * sampled.height, 0)
    tint = colours[sampled.expert[sampled.window] - 1]
    ax.imshow(tint, extent=whole, alpha=0.5, interpolation="nearest")
    boxes = _boxes(sampled, pixels)
    _outline(ax, sampled)
    _write_scales(ax, sampled, boxes)
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    what = f"{len(boxes)} windows" if block.windowed else "whole image"
    ax.set_title(f"{block.block.removeprefix('backbone.')}: {what}", loc="left")
    return Painted({f"scale {k + 1}": Patch(color=rgb) for k, rgb in enumerate(colours)})


def _outline(ax: Axes, sampled: Sampled) -> None:
    """Draw the borders between windows."""
    from matplotlib.collections import LineCollection

    window, cell = sampled.window, np.array([sampled.width, sampled.height])
    y, x = np.nonzero(window[:, 1:] != window[:, :-1])
    lines = [[(x + 1, y), (x + 1, y + 1)] for y, x in zip(y, x, strict=True)]
    y, x = np.nonzero(window[1:] != window[:-1])
    lines += [[(x, y + 1), (x + 1, y + 1)] for y, x in zip(y, x, strict=True)]
    ax.add_collection(LineCollection([np.array(line) * cell for line in lines],
                                     colors="white", linewidths=0.9))  # fmt: skip


def _write_scales(ax: Axes, sampled: Sampled, boxes: Mapping[int, tuple[int, ...]]) -> None:
    """Write the scale into each window, if they are few enough to be read."""
    if len(boxes) > READABLE:
        return
    look: dict[str, Any] = {"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.8}
    for k, (left, top, right, bottom) in boxes.items():
        middle = (left + right) / 2, (top + bottom) / 2
        ax.annotate(f"{sampled.expert[k]}", middle, ha="center", va="center", bbox=look)


def _colours(experts: int) -> np.ndarray:
    """Colours of scales that grow lighter, and that all people tell apart. -> (M, 3)"""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.05, 1, experts))[:, :3]
