"""SOLO (Wang 2020, arXiv:1912.04488): every cell of a grid says a class, and has a mask.

Module names, sizes and numbers are those of mmdet's `solo_head.py`. Letters beside those of
segmenter.py: S cells in a row of a level's grid, n masks of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.loss.solo import Cells, strides_of
from segsweep.model.heads.cell_instances import CellReader
from segsweep.model.heads.pyramid import PyramidHead
from segsweep.model.layers.tower import tower

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.model.found import Instances
    from segsweep.model.necks.base import Neck

STD, PRIOR = 0.01, 0.01  # of weights; probability of a class, and of a pixel, at the start


class SOLOHead(PyramidHead):
    """A branch of classes and one of masks that all levels share, and a grid for each level.

    `grids` are the cells in a row of each; `reader` says what is found.
    """

    def __init__(
        self,
        neck: Neck,
        classes: int,
        grids: Sequence[int],
        channels: int = 256,
        convs: int = 7,
        groups: int = 32,
        reader: CellReader | None = None,
    ) -> None:
        super().__init__(neck)
        inputs = neck.channels[0]
        self.cls_convs = tower(inputs, channels, convs, groups)
        self.mask_convs = tower(inputs + 2, channels, convs, groups)  # 2 coordinates
        self.conv_mask_list = nn.ModuleList(nn.Conv2d(channels, s * s, 1) for s in grids)
        self.conv_cls = nn.Conv2d(channels, classes, 3, padding=1)
        self.grids, self.strides = list(grids), strides_of(neck.strides)
        self.reader = reader or CellReader()
        for part in (self.cls_convs, self.mask_convs, self.conv_mask_list, self.conv_cls):
            part.apply(_reset)

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        named = {}
        for level, (grid, stride) in enumerate(zip(self.grids, self.strides, strict=True)):
            cells = f"of each of {grid} x {grid} cells"
            named[f"classes{level}"] = f"logits {cells} and each class; scores are their sigmoid"
            named[f"masks{level}"] = (
                f"logits {cells}, row by row, at 1/{stride / 2:g} of the input's size"
            )
        return named

    def read(self, levels: list[Tensor]) -> Cells:
        """Levels (B, C, H_l, W_l) -> what their cells say"""
        output = Cells([], [], [], [])
        levels = resampled(levels)
        for x, grid, masks_of in zip(levels, self.grids, self.conv_mask_list, strict=True):
            cells = F.interpolate(x, (grid, grid), mode="bilinear", align_corners=False)
            output.classes.append(self.conv_cls(self.cls_convs(cells)))
            output.maps.append(self.mask_convs(torch.cat([x, coordinates(x)], dim=1)))
            assert isinstance(masks_of, nn.Conv2d)
            assert masks_of.bias is not None
            output.kernels.append(masks_of.weight.flatten(1))
            output.biases.append(masks_of.bias)
        return output

    def tensors(self, output: Cells) -> dict[str, Tensor]:
        """Return logits of every level: `classes0` (B, K, S, S), `masks0` (B, S*S, 2h, 2w), ..."""
        named = {f"classes{level}": logits for level, logits in enumerate(output.classes)}
        for level, maps in enumerate(output.maps):
            masks = [output.masks(level, b, slice(None)) for b in range(len(maps))]
            named[f"masks{level}"] = torch.stack(masks)
        return named

    def only_pixels(self) -> None:
        """Leave out the run lengths of masks."""
        self.reader.encoded = False

    def reset_classes(self, generator: torch.Generator | None = None) -> None:
        """Draw the layer of the classes anew."""
        _reset(self.conv_cls, generator)

    def predict(self, output: Cells, views: Sequence[View], least: float = 0.0) -> list[Instances]:
        """Return the instances of each image; boxes, which the original leaves 0, fit the masks."""
        images = enumerate(views)
        return [self.reader.read(output, self.strides, b, view, least) for b, view in images]


def resampled(levels: list[Tensor]) -> list[Tensor]:
    """Bring the first level to the size of the second, the last to that of the one before it."""
    sizes = [level.shape[2:] for level in levels]
    sizes = [sizes[1], *sizes[1:-1], sizes[-2]]
    return [
        F.interpolate(level, size, mode="bilinear", align_corners=False)
        for level, size in zip(levels, sizes, strict=True)
    ]


def coordinates(x: Tensor) -> Tensor:
    """Columns and rows of a map's cells, from -1 at the first to 1 at the last. -> (B, 2, H, W)"""
    height, width = x.shape[2:]
    rows, columns = (torch.linspace(-1, 1, side).to(x) for side in (height, width))
    rows, columns = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([columns, rows]).expand(len(x), -1, -1, -1)


def _reset(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw a convolution as mmdet does; only last layers have biases."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=STD, generator=generator)
        if module.bias is not None:
            nn.init.constant_(module.bias, -math.log(1 / PRIOR - 1))
