"""Modules of methods that add tokens, read the image beside them, or run a network beside blocks.

Those of `vpt`, `sam_adapter` and `lst`; letters as in their papers, d is the width of the host.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.block import HostBlock, joined
from segsweep.model.layers.seam import Tokens

TEMPERATURE = 0.1  # of the ladder's gates


class Prompts(nn.Module):
    """The filling of the place `prompts`: T tokens in the place of those that were carried there.

    Args:
        count: T.
        width: d, or that of the projection.
        bound: they start at U(-bound, bound).
        projected: whether what fills the host's place `shared` brings them to the width d.
    """

    def __init__(self, count: int, width: int, bound: float, projected: bool) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))
        self.projected = projected

    def forward(self, carried: Tensor, cells: Tensor, tokens: Tokens) -> Tensor:
        """(B, T' or 0, d), (B, N, d) -> (B, T, d), the same for all images"""
        prompts = self.prompts
        if self.projected:
            assert tokens.shared is not None
            prompts = tokens.shared(prompts)
        return prompts.expand(len(carried), -1, -1)


def projection(narrow: int, width: int) -> nn.Linear:
    """The layer that brings prompts to the width d; its weight starts at N(0, sqrt(2 / d))."""
    layer = nn.Linear(narrow, width)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return layer


class Ladder(nn.Module):
    """The filling of the place `side`: blocks of width e, fed with what the host's blocks give.

    Args:
        width: d.
        blocks: one of width e per rung.
        taps: indices of the host's blocks beside them.
        bias: whether the layers between d and e have biases.
        norm: whether there is a norm before the last one.
        after: whether each block comes before the sum that it is fed with, not behind it.
    """

    def __init__(
        self,
        width: int,
        blocks: Iterable[HostBlock],
        taps: Iterable[int],
        bias: bool,
        norm: bool,
        after: bool,
    ) -> None:
        super().__init__()
        self.blocks, self.taps, self.after = nn.ModuleList(blocks), list(taps), after
        block: Any = self.blocks[0]
        narrow = block.before_block.width
        self.first = nn.Linear(width, narrow, bias)
        self.downs = nn.ModuleList(nn.Linear(width, narrow, bias) for _ in self.taps)
        self.gates = nn.ParameterList(torch.zeros(1) for _ in self.taps)
        self.norm = copy.deepcopy(block.norm1) if norm else nn.Identity()
        self.up = nn.Linear(narrow, width, bias)

    def forward(self, x: Tensor, same: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, d) -> (B, N, d), of `tokens.outputs` alone; no gradient goes back into these"""
        s = self.first(tokens.outputs[0].detach())
        rungs = zip(self.taps, self.downs, self.gates, self.blocks, strict=True)
        for tap, down, gate, block in rungs:
            h, g = down(tokens.outputs[tap + 1].detach()), (gate / TEMPERATURE).sigmoid()
            s = block(s, tokens) if self.after else s
            s = g * s + (1 - g) * h
            s = s if self.after else block(s, tokens)
        return self.up(self.norm(s))


def sizes(block: HostBlock) -> tuple[int, int, int, int]:
    """Width e, what goes into and out of the feed-forward's activation, numbers in tables."""
    mlp: Any = block.mlp
    tables = sum(table.numel() for table in block.attn.parameters(recurse=False))
    return block.before_block.width, mlp.fc1.out_features, mlp.fc2.in_features, tables


class TaskFeatures(nn.Module):
    """What all blocks share, for the place `shared`: F_hand + F_emb, and the layer up to d.

    Args:
        width: d.
        hidden: e.
        patch: rows and columns of a patch.
        tau: share of the spectrum that the high-pass filter takes away.
        scrambled: whether the patch embedding is read in another order of axes than it has.
    """

    def __init__(
        self, width: int, hidden: int, patch: tuple[int, int], tau: float, scrambled: bool
    ) -> None:
        super().__init__()
        self.tau, self.scrambled = tau, scrambled
        self.hand = nn.Conv2d(3, hidden, patch, stride=patch)
        self.embedding = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        std = math.sqrt(2 / (hidden * math.prod(patch)))
        for layer in (self.hand, self.embedding, self.up):
            start(layer, std if layer is self.hand else 0.02)

    def forward(self, tokens: Tokens) -> Tensor:
        """The image and its patches, see `Tokens` -> (B, H W, e)"""
        assert tokens.image is not None
        assert tokens.embedded is not None
        hand = self.hand(highpass(tokens.image, self.tau).to(self.hand.weight.dtype))
        patches = tokens.embedded.flatten(1, 2)
        if self.scrambled:
            patches = patches.reshape(len(patches), -1, patches.shape[1]).transpose(1, 2)
        return hand.flatten(2).transpose(1, 2) + self.embedding(patches)


class TaskPrompt(nn.Linear):
    """The filling of `before_block`: x + W_s GELU(W_i (F_hand + F_emb)), at the cells of the map.

    W_s and the features are those of `TaskFeatures`, which are computed once in a forward pass.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, hidden)
        start(self, 0.02)

    def forward(self, x: Tensor, same: Tensor, tokens: Tokens) -> Tensor:  # type: ignore[override]
        """(B, P + H W, d) -> (B, P + H W, d), the prefix unchanged"""
        shared, computed = tokens.shared, tokens.computed
        assert isinstance(shared, TaskFeatures)
        if "task_features" not in computed:
            computed["task_features"] = shared(tokens)
        prompt = shared.up(F.gelu(super().forward(computed["task_features"])))
        return joined(x[:, : tokens.prefix], x[:, tokens.prefix :] + prompt)


def highpass(image: Tensor, tau: float) -> Tensor:
    """Take the square in the middle of the spectrum out of an image: (B, 3, H, W) -> same.

    Its half side is half the root of tau H W, rounded down, as far as there is image: where one
    side is more than four times the other, the original has a negative index, and takes out hardly
    anything. In single precision or better, also of images in half.
    """
    height, width = image.shape[-2:]
    half = int(math.sqrt(height * width * tau) // 2)
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    spectrum = torch.fft.fftshift(torch.fft.fft2(image), dim=(-2, -1))
    keep = torch.ones(height, width, dtype=image.dtype, device=image.device)
    rows, columns = (slice(max(0, n // 2 - half), n // 2 + half) for n in (height, width))
    keep[rows, columns] = 0
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * keep, dim=(-2, -1))).real.abs()


def start(layer: nn.Linear | nn.Conv2d, std: float) -> None:
    """Start a layer at N(0, std), and its bias at zero."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
