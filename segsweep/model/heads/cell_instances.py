"""Instances of the cells of SOLO: scored masks of single objects, and boxes that fit them.

Neither the masks of all cells nor those of a large picture are held: they are made of what `Cells`
holds when they are measured, when they are compared, and when they are encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.formats import masks
from segsweep.loss.boxes import bitmask
from segsweep.model.found import Instances
from segsweep.model.heads import frames
from segsweep.model.heads.matrix_nms import MatrixNMS, peaks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segsweep.data.geometry import View
    from segsweep.loss.solo import Cells


@dataclass
class CellReader:
    """Finds the best instances of each image.

    Those are cells that exceed their neighbours by a class score above `threshold`. The pixels of
    the mask are those above `mask_threshold`; if there are no more of them than the stride of the
    level, in pixels of the finest map, there is no object. The score is that of the class times the
    mean probability of these pixels, after `nms`.
    """

    threshold: float = 0.1
    mask_threshold: float = 0.5
    nms: MatrixNMS = field(default_factory=MatrixNMS)
    encoded: bool = True  # masks, as run lengths

    def read(
        self, output: Cells, strides: Sequence[float], b: int, view: View, least: float
    ) -> Instances:
        """Return the best instances of image b at its original size; see `Head.predict`."""
        scores, cells, labels = self._candidates(output, b, least)
        seen, which = cells.unique(return_inverse=True)  # a cell may say several classes
        area, certainty = self._measured(output, b, seen)
        counts = torch.tensor([len(kernels) for kernels in output.kernels])
        smallest = torch.tensor(strides).repeat_interleave(counts).to(area)[cells]
        large = area[which] > smallest
        scores, cells, labels = (scores * certainty[which])[large], cells[large], labels[large]
        scores, kept = self.nms(scores, labels, lambda index: self._masks(output, b, cells[index]))
        rles, boxes = self._encoded(output, b, cells[kept], view)
        return Instances(scores, labels[kept], boxes, rles, view[-1])

    def _candidates(self, output: Cells, b: int, least: float) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, cells counted through the levels, and classes. -> 3 x (n,)

        The rest of the way makes scores only smaller.
        """
        grids = [peaks(logits[b].float().sigmoid()) for logits in output.classes]
        scores = torch.cat([grid.flatten(1).T for grid in grids])
        wanted = (scores > self.threshold) & (scores >= scores.max().clamp(max=least))
        cells, labels = wanted.nonzero(as_tuple=True)
        return scores[cells, labels], cells, labels

    def _measured(self, output: Cells, b: int, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of the cells' masks, and the mean probability of these. (n,) -> 2 x (n,)"""
        sums = []
        for part in cells.split(at_once(*finest(output))):
            probabilities = probabilities_of(output, b, part)
            inside = probabilities > self.mask_threshold
            sums.append(torch.stack([inside.sum((1, 2)), (probabilities * inside).sum((1, 2))]))
        area, certain = torch.cat(sums, dim=1)
        return area, certain / area.clamp(min=1)

    def _masks(self, output: Cells, b: int, cells: Tensor) -> Tensor:
        """Masks in the finest map. (n,) -> (n, h, w) bool"""
        parts = cells.split(at_once(*finest(output)))
        return torch.cat(
            [probabilities_of(output, b, part) > self.mask_threshold for part in parts]
        )

    def _encoded(
        self, output: Cells, b: int, cells: Tensor, view: View
    ) -> tuple[list[dict], Tensor]:
        """Run lengths of masks at the original size, and their boxes. (n,) -> n, (n, 4) xyxy"""
        rles, boxes = [], []
        _, padded, original = view
        for part in cells.split(min(at_once(*padded), at_once(*original))):
            probabilities = probabilities_of(output, b, part)[:, None]
            found = frames.to_original(probabilities, *view, "bilinear")[:, 0] > self.mask_threshold
            rles.append(masks.encode(found.cpu().numpy()) if self.encoded else [{}] * len(found))
            boxes.append(bitmask(found))
        return list(chain.from_iterable(rles)), torch.cat(boxes)


def probabilities_of(output: Cells, b: int, cells: Tensor) -> Tensor:
    """Masks of cells of any levels of image b, at the size of the finest. (n,) -> (n, h, w)"""
    size = finest(output)
    maps = output.maps[0].new_empty(len(cells), *size, dtype=torch.float32)
    first = 0
    for level, kernels in enumerate(output.kernels):
        here = (cells >= first) & (cells < first + len(kernels))
        logits = output.masks(level, b, cells[here] - first)[:, None]
        resized = F.interpolate(logits.sigmoid(), size, mode="bilinear", align_corners=False)
        maps[here] = resized[:, 0]
        first += len(kernels)
    return maps


def finest(output: Cells) -> tuple[int, int]:
    """Return height and width of the masks of the first level."""
    height, width = output.maps[0].shape[2:]
    return 2 * height, 2 * width


def at_once(height: int, width: int) -> int:
    """Return how many maps of this size are made at once."""
    return max(1, frames.CELLS // (height * width))
