"""The loss of SOLO (Wang 2020, arXiv:1912.04488): focal loss of cells, dice of the cells' masks.

As in mmdet's `solo_head.py`. Each level has a grid of S x S cells; those about the centre of mass
of an object whose size suits the level answer for it. Letters beside those of segmenter.py: S
cells in a row of a level's grid, n objects of an image, m cells that answer for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.loss.base import BaseCriterion, over_ranks
from segsweep.loss.focal import focal_sum

if TYPE_CHECKING:
    from segsweep.data.geometry import Size
    from segsweep.data.loader import Target

EPS = 1e-3  # of both squares below dice
NOTHING = -1  # what most cells answer for


class Cells(NamedTuple):
    """What SOLO says of the cells of each level: their classes, and what makes their masks.

    The masks of all cells would fill a gigabyte, so they are made of the cells that are read. The
    original doubles a map before it convolves it; as both are linear, they change places here.
    """

    classes: list[Tensor]  # (B, K, S, S) logits
    maps: list[Tensor]  # (B, C, h, w)
    kernels: list[Tensor]  # (S*S, C), row by row
    biases: list[Tensor]  # (S*S,)

    def masks(self, level: int, b: int, cells: Tensor | slice) -> Tensor:
        """Logits of the masks of some cells of a level, on image b. (m,) -> (m, 2h, 2w)"""
        kernels, biases = self.kernels[level][cells].float(), self.biases[level][cells].float()
        logits = torch.einsum("mc,chw->mhw", kernels, self.maps[level][b].float())
        logits = (logits + biases[:, None, None])[:, None]
        return F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)[:, 0]


def strides_of(levels: Sequence[float]) -> list[float]:
    """Return the strides of the maps that the levels of a neck become: 8, 8, 16, 32, 32 of 4 to 64

    SOLO halves the first level and doubles the last one.
    """
    return [levels[1], *levels[1:-1], levels[-2]]


class SOLOCriterion(BaseCriterion):
    """Compares every cell with the object that it answers for, if any.

    Of each level, `strides` are pixels of the input in a cell of its map, `scale_ranges` the least
    and the largest sqrt(width * height) of its objects. `pos_scale` is the part of a box in which
    cells answer, `mask_weight` that of dice in the total.
    """

    def __init__(
        self,
        strides: Sequence[float],
        scale_ranges: Sequence[Sequence[float]],
        pos_scale: float = 0.2,
        mask_weight: float = 3.0,
    ) -> None:
        super().__init__()
        self.strides, self.scale_ranges, self.pos_scale = strides, scale_ranges, pos_scale
        self.mask_weight = mask_weight

    def forward(self, output: Cells, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compute both terms; see `BaseCriterion`.

        Dice is the mean over the cells that answer for an object, the focal loss the sum over all
        cells by the number of these and one more. That number is the mean over the ranks.
        """
        with torch.autocast(output.maps[0].device.type, enabled=False):
            dices, labels = [], []
            for b, target in enumerate(targets):
                for level, owners in enumerate(self.owners(target, output)):
                    cells = (owners != NOTHING).nonzero()[:, 0]
                    dices.append(self._dices(output, level, b, cells, target.masks, owners[cells]))
                    labels.append(owners.new_full(owners.shape, output.classes[level].shape[1]))
                    labels[-1][cells] = target.labels[owners[cells]]
            logits = [grid[b].flatten(1).T for b in range(len(targets)) for grid in output.classes]
            focal, dice = focal_sum(torch.cat(logits).float(), torch.cat(labels)), torch.cat(dices)
            answers = over_ranks(len(dice), dice.device)
            mask = dice.sum() / answers.clamp(min=1)
            return {"loss_mask": mask, "loss_cls": focal / (answers + 1)}

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Sum both terms, dice with its weight. -> ()"""
        return self.mask_weight * terms["loss_mask"] + terms["loss_cls"]

    def owners(self, target: Target, output: Cells) -> list[Tensor]:
        """Return which object each cell answers for, or NOTHING. -> (S*S,) int of each level"""
        frame = target.masks.shape[-2:]
        height, width = target.size or frame
        sizes = target.boxes[:, 2:].float() * target.boxes.new_tensor([width, height])
        grids = [grid.shape[-1] for grid in output.classes]
        return assigned(target.masks, sizes, grids, self.scale_ranges, self.pos_scale)

    def _dices(
        self, output: Cells, level: int, b: int, cells: Tensor, masks: Tensor, owners: Tensor
    ) -> Tensor:
        """Dice loss of each cell's mask with its object's. (m,), (n, H, W), (m,) -> (m,)"""
        probabilities = output.masks(level, b, cells).sigmoid()
        _, height, width = probabilities.shape
        seen, which = owners.unique(return_inverse=True)
        truth = resized(masks[seen], self.strides[level] / 2, (height, width))
        return dice_loss(probabilities, truth[which].float())


def assigned(
    masks: Tensor,
    sizes: Tensor,
    grids: Sequence[int],
    scale_ranges: Sequence[Sequence[float]],
    pos_scale: float,
) -> list[Tensor]:
    """Find the cells that answer for objects: at most 3 x 3 about the centre of mass of each.

    `masks` (n, H, W) bool, `sizes` (n, 2) width and height of the boxes in pixels. Of objects that
    claim the same cell the last one has it; an object may have cells on several levels. One without
    pixels has none. -> index of the object, or NOTHING, (S*S,) int64 of each level
    """
    sides = masks.shape[:0:-1]  # width, height
    counts = [masks.sum(1), masks.sum(2)]  # by column, by row
    area = counts[0].sum(1).float()
    indices = torch.arange(len(masks), device=masks.device)[:, None, None]
    scale, owners = sizes.prod(1).sqrt(), []
    for grid, (low, high) in zip(grids, scale_ranges, strict=True):
        suits = (scale >= low) & (scale <= high) & (area > 0)
        near = []
        for count, side, half in zip(counts, sides, (0.5 * sizes * pos_scale).T, strict=True):
            centre = (count * torch.arange(side, device=masks.device)).sum(1) / area.clamp(min=1)
            near.append(_about(centre, half, side, grid))
        claims = suits[:, None, None] & near[1][:, :, None] & near[0][:, None, :]
        claimed = indices.where(claims, torch.full_like(indices, NOTHING))
        nobody = claimed.new_full((1, grid, grid), NOTHING)
        owners.append(torch.cat([nobody, claimed]).amax(0).flatten())
    return owners


def _about(centre: Tensor, half: Tensor, side: int, grid: int) -> Tensor:
    """Cells within `half` of a centre, the next one at most. (n,), (n,) in pixels -> (n, S) bool"""

    def cell(place: Tensor) -> Tensor:
        return torch.div(place / side, 1 / grid, rounding_mode="trunc")

    at, index = cell(centre), torch.arange(grid, device=centre.device)
    first = torch.maximum(cell(centre - half), at - 1)
    last = torch.minimum(cell(centre + half), at + 1)
    return (index >= first[:, None]) & (index <= last[:, None])


def resized(masks: Tensor, stride: float, size: Size) -> Tensor:
    """Resize masks by 1 / `stride` and lay them to the top left of maps. (n, H, W) -> (n, *size)

    Bilinear without antialias, one by one, for all at once would be large.
    """
    height, width = (max(1, int(side / stride + 0.5)) for side in masks.shape[1:])
    maps = masks.new_zeros(len(masks), *size)
    for place, mask in zip(maps, masks[:, None, None], strict=True):
        small = F.interpolate(mask.float(), (height, width), mode="bilinear", align_corners=False)
        small = small[0, 0, : size[0], : size[1]] >= 0.5
        place[: small.shape[0], : small.shape[1]] = small
    return maps


def dice_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Dice loss with squares in the denominator (Milletari 2016, V-Net). 2 x (m, h, w) -> (m,)"""
    shared, ours, theirs = (
        torch.einsum("mhw,mhw->m", a, b)
        for a, b in ((probabilities, truth), (probabilities, probabilities), (truth, truth))
    )
    return 1 - 2 * shared / (ours + EPS + theirs + EPS)
