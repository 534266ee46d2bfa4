"""Hosts: transformers whose blocks have places, and who have two of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segsweep.model.backbones.base import Backbone, State, Step, numbered
from segsweep.model.layers.block import HostBlock
from segsweep.model.layers.seam import Place, Tokens, seams

Grid = tuple[int, int]  # rows, columns


class Host(Backbone):
    """Patch embedding, blocks, and what makes maps of the last tokens, each of them a step.

    Between steps a state holds `x`, the tokens (B, P + H W, C) with the prefix ahead, `image` and
    `embedded`, without columns or channels where no place is filled, and, where `side` is filled,
    `output0`, the input of the first block, and the output of each.

    Places beside those of its blocks:

        side    at the end: the last tokens, the same; a filling sees all outputs, see `Tokens`, and
                what it gives goes on to the final norm or the neck in the place of the last tokens
        shared  nothing passes; holds modules that fillings of other places use in common

    Args:
        patch_embed: of timm; H, W = image size / patch size, rounded up.
        width: C of the last tokens.
    """

    prefix: int = 0  # class token and registers

    def __init__(self, patch_embed: nn.Module, width: int) -> None:
        super().__init__()
        self.patch_embed: Any = patch_embed
        self.side, self.shared = Place(width), Place(width)

    def stream(self, embedded: Tensor) -> Tensor:
        """Add the position code and the prefix: (B, H, W, C) -> (B, P + H W, C)"""
        return embedded.flatten(1, 2)

    def front(self) -> tuple[nn.Module, ...]:
        """Return the modules of `stream`."""
        return ()

    def read(self, x: Tensor, state: State) -> list[Tensor]:
        """Turn the last tokens, and what the state holds beside, into maps."""
        raise NotImplementedError

    def narrow(self, width: int, rel_pos: bool = True) -> list[HostBlock]:
        """Build new blocks like its own, but of this width, with biases and without LayerScale.

        `rel_pos=False` leaves out tables of relative positions where its own have some.
        """
        raise NotImplementedError

    def trunk(self) -> list[Step]:
        """Return the steps between the patch embedding and the end: one per block."""
        blocks = enumerate(self.get_submodule("blocks").children())
        return [Step((block,), partial(self.pass_block, block, i)) for i, block in blocks]

    def tail(self) -> tuple[nn.Module, ...]:
        """Return the modules of `read`."""
        raise NotImplementedError

    def steps(self) -> list[Step]:
        """Return the patch embedding with position code and prefix, the trunk, the end."""
        first = Step((self.patch_embed, *self.front(), *self._own()), self._embed)
        return [first, *self.trunk(), Step((self.side, *self.tail()), self._end)]

    def _own(self) -> list[nn.Module]:
        """Return what is no module as one: own parameters, and which places are filled.

        States that hold more for the sake of a filling thus differ for whoever keeps states.
        """
        own = nn.Module()
        own._parameters = self._parameters
        filled = [self.side.filling is not None, self._filled()]
        own.register_buffer("filled", torch.tensor(filled))
        edits = [self.parametrizations] if parametrize.is_parametrized(self) else []
        return [own, *edits]  # type: ignore[list-item]

    def _filled(self) -> bool:
        return any(seam.filling is not None for seam in seams(self).values())

    def _embed(self, state: State) -> State:
        images = state["images"]
        height, width = self.patch_embed.patch_size
        images = F.pad(images, (0, -images.shape[3] % width, 0, -images.shape[2] % height))
        patches = self.patch_embed.proj(images).permute(0, 2, 3, 1)
        embedded = self.patch_embed.norm(patches)
        x = self.stream(embedded)
        if not self._filled():  # its grid is still needed
            embedded, images = (t.new_empty((*t.shape[:-1], 0)) for t in (embedded, images))
        return Forward({"x": x, "image": images, "embedded": embedded} | self.output(x, 0))

    def pass_block(self, block: nn.Module, index: int, state: State, stage: int = 0) -> State:
        """Run a block; each stage before it has halved the map."""
        tokens = self.tokens(state, index, stage)
        x = block(state["x"], tokens)
        return Forward({**state, "x": x} | self.output(x, index + 1), tokens.computed)

    def output(self, x: Tensor, index: int) -> State:
        """What is kept for the place `side`."""
        return {f"output{index}": x} if self.side.filling is not None else {}

    def tokens(self, state: State, block: int = 0, stage: int = 0) -> Tokens:
        """Say where the tokens x of a state are."""
        x, embedded = state["x"], state["embedded"]
        grid = halved(embedded, stage)
        prefix = x.shape[1] - grid[0] * grid[1]
        return Tokens(
            grid,
            prefix,
            prompts=prefix - self.prefix,
            block=block,
            images=len(x),
            image=state["image"],
            embedded=embedded,
            outputs=[tensor for name, tensor in state.items() if name.startswith("output")],
            shared=self.shared.filling,
            computed=getattr(state, "computed", {}),
        )

    def _end(self, state: State) -> State:
        x = state["x"]
        if self.side.filling is not None:
            x = self.side(x, x, self.tokens(state))
        return numbered(self.read(x, state))


class Forward(dict[str, Tensor]):
    """A state with what fillings have computed since it was last put together from others."""

    def __init__(self, state: State, computed: dict[str, Any] | None = None) -> None:
        super().__init__(state)
        self.computed: dict[str, Any] = {} if computed is None else computed


def halved(embedded: Tensor, times: int) -> Grid:
    """Rows and columns of (B, H, W, C) after so many times 2 x 2 cells became one."""
    rows, columns = embedded.shape[1:3]
    return -(-rows // 2**times), -(-columns // 2**times)


def as_map(x: Tensor, grid: Grid) -> Tensor:
    """Drop the prefix: (B, P + H W, C) -> (B, C, H, W)"""
    cells = x[:, x.shape[1] - grid[0] * grid[1] :]
    return cells.transpose(1, 2).unflatten(2, grid).contiguous()


def resampled(code: Tensor, grid: Grid) -> Tensor:
    """Resample a position code as the originals do, bicubic without antialias.

    (1, h, w, C) -> (1, H, W, C); timm has antialias.
    """
    if code.shape[1:3] == grid:
        return code
    fine = F.interpolate(code.permute(0, 3, 1, 2), grid, mode="bicubic")
    return fine.permute(0, 2, 3, 1)


def single(tensor: Tensor) -> Tensor:
    """Return what is to be resampled in single precision or better; files have half, too."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
