"""Which expert the gates of a run choose, window by window, and what the windows hold.

A sample of a gate is what attention sees as one: a window, or an image in a block without windows.
A sample that is padding only is left out. It holds the mask that has most pixels in it, and counts
by the size of this mask in the whole image; sizes are thirds of all masks of the split, as the
network sees them (our definitions).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.base.terminal import watched
from segsweep.model.layers.block import HostBlock, WindowBlock, windows
from segsweep.model.layers.seam import Tokens
from segsweep.peft.layers_conv_lora import LowRankExperts, logits_of
from segsweep.run.evaluate import validation
from segsweep.run.machine import arithmetic

if TYPE_CHECKING:
    from segsweep.data.loader import Batch
    from segsweep.run.restore import Restored

Grid = tuple[int, int]  # rows, columns
SIZES = ("nothing", "small", "medium", "large")
"""What a sample can hold: no mask, or one of the smallest, middle or largest third."""


@dataclass(frozen=True)
class Sampled:
    """One image in one block: which sample each cell of the map belongs to, and its expert.

    `window` (rows, columns) is the number of a sample, `expert` (n,) that of each; a cell has
    `height` x `width` pixels of the image's own (H, W), which ends within the map where that is
    padded.
    """

    window: np.ndarray
    expert: np.ndarray
    height: float
    width: float


@dataclass(frozen=True)
class Routing:
    """What the gate of one block chose on a split.

    Experts are called by their scale, from 1 on. `expert` (n,) is that of each sample, `held` (n,)
    how many pixels the mask has that it holds, 0 without; `tied` counts samples whose highest logit
    had equals, so that the lowest index was chosen. `images` are some images by their id.
    """

    block: str
    windowed: bool
    experts: int
    expert: np.ndarray
    held: np.ndarray
    tied: int
    images: dict[int, Sampled]

    def counts(self, among: np.ndarray | None = None) -> np.ndarray:
        """Count the samples, or some of them (n,) bool, of each expert. -> (M,)"""
        chosen = self.expert if among is None else self.expert[among]
        return np.bincount(chosen, minlength=self.experts + 1)[1:]


@dataclass(frozen=True)
class Routings:
    """All gates of a run on a split; `areas` (n,) are pixels of all masks, as the network sees."""

    split: str
    images: int
    blocks: list[Routing]
    areas: np.ndarray

    @property
    def cuts(self) -> list[float]:
        """Pixels above which a mask is medium, and large; none without masks."""
        return np.quantile(self.areas, [1 / 3, 2 / 3]).tolist() if len(self.areas) else []

    def sizes(self, block: Routing) -> np.ndarray:
        """Index of SIZES of what each sample of a block holds. -> (n,)"""
        return np.where(block.held > 0, 1 + np.digitize(block.held, self.cuts, right=True), 0)


def gated(model: nn.Module) -> dict[str, HostBlock]:
    """Return the blocks that have experts, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, HostBlock) and isinstance(module.beside_qkv.filling, LowRankExperts)
    }


@torch.no_grad()
def routings(restored: Restored, split: str, pictures: Iterable[int] = ()) -> Routings:
    """Send a split through a run and hear what its gates choose; keep where of some images.

    Raises UserError for a run without experts.
    """
    config, model = restored.config, restored.model
    blocks, wanted = gated(model), set(pictures)
    if not blocks:
        raise UserError(
            f"{restored.directory}: peft={config.peft.name} has no experts to choose from; name a "
            "run of peft=conv_lora"
        )
    device, cast = arithmetic(config.trainer)
    model.to(device).eval()
    loader, areas = validation(config, split), []
    with listening(blocks, model.backbone) as logs:
        for batch in watched(loader, len(loader), f"{restored.directory.name}, batches"):
            with cast:
                model.features(batch.images.to(device))
            for log in logs:
                log.take(batch, wanted)
            areas += [target.masks.sum((1, 2)) for target in batch.targets]
    sizes = torch.cat(areas).numpy()
    count = len(config.data.records(split))
    return Routings(split, count, [log.routing() for log in logs], sizes[sizes > 0])


@contextmanager
def listening(blocks: dict[str, HostBlock], backbone: Any) -> Iterator[list[GateLog]]:
    """Log what gates choose as long as this lasts."""
    logs = [GateLog(name, block, backbone.patch_embed.patch_size) for name, block in blocks.items()]
    hooks = [hook for log in logs for hook in log.hooks()]
    try:
        yield logs
    finally:
        for hook in hooks:
            hook.remove()


class GateLog:
    """What the gate of one block chooses, forward pass by forward pass, and where.

    Args:
        name: of the block.
        block: with experts.
        patch: rows and columns of pixels of a token in front of the first block.
    """

    def __init__(self, name: str, block: HostBlock, patch: Grid) -> None:
        self.name, self.block, self.patch = name, block, patch
        filling: Any = block.beside_qkv.filling
        self.gate, self.experts = filling.gate, len(filling.experts)
        self.last: dict[str, Any] = {}  # of the forward pass: tokens, expert (B n,), tied (B n,)
        self.samples: list[tuple[Tensor, Tensor, Tensor]] = []  # expert, held, tied of an image
        self.images: dict[int, Sampled] = {}

    def hooks(self) -> list[Any]:
        """Begin to listen; what is returned ends it."""
        before = self.block.register_forward_pre_hook(self._given)
        return [before, self.gate.register_forward_hook(self._chosen)]

    def _given(self, block: nn.Module, inputs: tuple[Tensor, Tokens]) -> None:
        self.last["tokens"] = inputs[1]

    def _chosen(self, gate: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        logits = logits_of(inputs[0], gate.weight)
        equals = logits.eq(logits.amax(1, keepdim=True)).sum(1)
        self.last |= {"expert": output[0].cpu() + 1, "tied": equals.gt(1).cpu()}

    def take(self, batch: Batch, wanted: set[int]) -> None:
        """Add the samples of a batch that has just passed; keep the images that are wanted."""
        tokens: Tokens = self.last["tokens"]
        assert tokens.embedded is not None
        merged = round(tokens.embedded.shape[1] / tokens.grid[0])  # cells that became one before
        cell = (merged * self.patch[0], merged * self.patch[1])
        cells = cells_of(self.block, tokens.grid)
        chosen = [self.last[name].view(-1, len(cells)) for name in ("expert", "tied")]
        sizes = zip(batch.image_ids, batch.sizes, batch.original_sizes, strict=True)
        for each, target, expert, tied in zip(sizes, batch.targets, *chosen, strict=True):
            image_id, (h, w), (height, width) = each
            frame = torch.zeros(1, *batch.images.shape[2:], dtype=torch.bool)
            frame[:, :h, :w] = True
            real = pixels(frame, tokens.grid, cell, cells)[0] > 0
            held = largest(target.masks, pixels(target.masks, tokens.grid, cell, cells))
            self.samples.append((expert[real], held[real], tied[real]))
            if image_id in wanted:
                own = cell[0] * height / h, cell[1] * width / w
                window = window_of(cells, tokens.grid)
                self.images[image_id] = Sampled(window.numpy(), expert.numpy(), *own)

    def routing(self) -> Routing:
        """Return all that was heard."""
        windowed = isinstance(self.block, WindowBlock) and any(self.block.window)
        expert, held, tied = (torch.cat(own).numpy() for own in zip(*self.samples, strict=True))
        total = int(tied.sum())
        return Routing(self.name, windowed, self.experts, expert, held, total, self.images)


def cells_of(block: HostBlock, grid: Grid) -> Tensor:
    """Say which cells of the map each window holds, -1 for its padding; one of all without windows.

    -> (windows, cells)
    """
    cells = torch.arange(grid[0] * grid[1]).view(grid)
    if not isinstance(block, WindowBlock) or not any(block.window):
        return cells.view(1, -1)
    rows, columns = block.window
    cells = F.pad(cells, (0, -grid[1] % columns, 0, -grid[0] % rows), value=-1)
    cells = cells.roll([-shift for shift in block.shift], (0, 1))
    return windows(cells[None, :, :, None], block.window)[..., 0]


def pixels(masks: Tensor, grid: Grid, cell: Grid, cells: Tensor) -> Tensor:
    """Count the pixels of each mask in each window: (n, H, W) bool -> (n, windows)"""
    below, right = (n * side for n, side in zip(grid, cell, strict=True))
    whole = F.pad(masks, (0, right - masks.shape[2], 0, below - masks.shape[1]))
    by_cell = whole.unflatten(2, (grid[1], cell[1])).unflatten(1, (grid[0], cell[0])).sum((2, 4))
    return F.pad(by_cell.flatten(1), (0, 1))[:, cells].sum(2)  # the last, -1, is padding


def largest(masks: Tensor, inside: Tensor) -> Tensor:
    """Size of the mask with most pixels in each window, 0 for none: (n, H, W), (n, w) -> (w,)"""
    if not len(masks):
        return inside.new_zeros(inside.shape[1])
    most, which = inside.max(0)
    return torch.where(most > 0, masks.sum((1, 2))[which], 0)


def window_of(cells: Tensor, grid: Grid) -> Tensor:
    """Number of the window that each cell lies in: (windows, cells) -> (rows, columns)"""
    window = torch.zeros(grid[0] * grid[1] + 1, dtype=torch.long)
    window[cells] = torch.arange(len(cells))[:, None].expand_as(cells)
    return window[:-1].view(grid)  # the last, -1, is padding
