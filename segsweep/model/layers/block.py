"""The pre-norm transformer block of ViT, DINOv2, SAM and Swin, with its places for methods.

It holds the parts of a timm block under their names, and runs them by itself: timm's own forward
has no room between its parts, pads shifted windows otherwise, and knows no prompts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.seam import Place, Tokens

PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2")
ATTENTION = ("qkv", "attn_drop", "softmax", "proj", "proj_drop")


def is_plain(block: nn.Module) -> bool:
    """Say whether a timm block has no parts but those that `HostBlock` runs."""
    attention = block.get_submodule("attn").named_children()
    return {name for name, _ in block.named_children()} <= set(PARTS) and all(
        name in ATTENTION or isinstance(part, nn.Identity) for name, part in attention
    )


class HostBlock(nn.Module):
    """A block with global attention; tokens (B, N, C) are the prefix, then the map row by row.

    Places, in the order in which a forward pass meets them, and the input stream that each is
    given beside what passes (x: input of the block, s: stream after attention):

        prompts         the prompts that were carried here (B, T, C), none at first, and the map;
                        a filling answers those to go on with: the same, others, or more
        before_block    x, x
        after_norm1     the normed stream u, x
        beside_qkv      queries, keys and values (B', N, 3C), u as attention sees it (in windows)
        after_attn      the attention's output behind its LayerScale, x
        beside_attn     s, u (outside LayerScale, on the whole map)
        after_attn_sum  s, x
        after_norm2     the normed stream v, s
        after_mlp       the feed-forward's output behind its LayerScale, s
        beside_mlp      the block's output, v
        after_block     the block's output, x

    Args:
        block: of timm, whose parts are taken over.
    """

    norm1: nn.Module
    attn: Any  # a module with qkv, proj, num_heads and its dropouts
    ls1: nn.Module
    drop_path1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    ls2: nn.Module
    drop_path2: nn.Module

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for part in PARTS:  # Swin's blocks have no LayerScale
            self.add_module(part, getattr(block, part, nn.Identity()))
        width = self.attn.proj.out_features
        self.prompts = Place(width)
        self.before_block = Place(width)
        self.after_norm1 = Place(width)
        self.beside_qkv = Place(self.attn.qkv.out_features)
        self.after_attn = Place(width)
        self.beside_attn = Place(width)
        self.after_attn_sum = Place(width)
        self.after_norm2 = Place(width)
        self.after_mlp = Place(width)
        self.beside_mlp = Place(width)
        self.after_block = Place(width)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, C) -> (B, N + T, C), T the prompts that are added here"""
        x, tokens = self.prompted(x, tokens)
        x = self.before_block(x, x, tokens)
        u = self.after_norm1(self.norm1(x), x, tokens)
        a = self.after_attn(self.ls1(self.attend(u, tokens)), x, tokens)
        s = self.beside_attn(x + self.drop_path1(a), u, tokens)
        s = self.after_attn_sum(s, x, tokens)
        v = self.after_norm2(self.norm2(s), s, tokens)
        m = self.after_mlp(self.ls2(self.mlp(v)), s, tokens)
        o = self.beside_mlp(s + self.drop_path2(m), v, tokens)
        return self.after_block(o, x, tokens)

    def reader(self, place: str) -> Any:
        """Return the linear layer that alone reads what passes a place; None if none does so."""
        layer, beside = {
            "after_norm1": (self.attn.qkv, (self.beside_qkv, self.beside_attn)),
            "after_norm2": (getattr(self.mlp, "fc1", None), (self.beside_mlp,)),
        }.get(place, (None, ()))
        return None if any(seam.filling is not None for seam in beside) else layer

    def prompted(self, x: Tensor, tokens: Tokens) -> tuple[Tensor, Tokens]:
        """Put in the prompts of this block, behind other prefix tokens (Jia et al. 2022, VPT)."""
        if self.prompts.filling is None:
            return x, tokens
        ahead = tokens.prefix - tokens.prompts
        head, prompts, cells = x[:, :ahead], x[:, ahead : tokens.prefix], x[:, tokens.prefix :]
        prompts = self.prompts(prompts, cells, tokens)
        count = prompts.shape[1]
        tokens = replace(tokens, prefix=ahead + count, prompts=count)
        return torch.cat((head, prompts, cells), dim=1), tokens

    def attend(self, u: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, C) -> (B, N, C)"""
        return self.attention(u, tokens, tokens.grid)

    def attention(self, u: Tensor, tokens: Tokens, whole: tuple[int, int]) -> Tensor:
        """Let tokens attend to each other in each map, or window of `whole`: (B', N, C) -> same."""
        attn = self.attn
        qkv = self.beside_qkv(attn.qkv(u), u, tokens)
        q, k, v = qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias(q[:, :, tokens.prefix :], tokens.grid, whole)
        if bias is not None:  # none between a prefix token and another one
            bias = F.pad(bias, (tokens.prefix, 0, tokens.prefix, 0))
        mixed = self.mix(q, k, v, bias)
        return attn.proj_drop(attn.proj(mixed.transpose(1, 2).flatten(2)))

    def bias(self, q: Tensor, grid: tuple[int, int], whole: tuple[int, int]) -> Tensor | None:
        """What is added to the logits of cells, (B', heads, rows * columns, rows * columns).

        Args:
            q: queries of the cells, (B', heads, rows * columns, C / heads).
            grid: rows and columns of the map, or of its windows.
            whole: those of the map that the windows were cut from.
        """
        return None

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Queries, keys, values (B', heads, N, C / heads) -> mixed values of the same shape"""
        dropped = self.attn.attn_drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropped)


class WindowBlock(HostBlock):
    """A block whose attention is within windows of a map padded with zeros, maybe shifted.

    Pads are keys and values like all cells, as in the originals. Every window of an image has the
    prefix tokens of this image ahead; what comes back of them is the mean over its windows.

    Args:
        block: of timm.
        window: rows and columns of a window; (0, 0) for global attention.
        shift: rows and columns by which windows are shifted.
    """

    def __init__(
        self, block: nn.Module, window: tuple[int, int], shift: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(block)
        self.window, self.shift = window, shift

    def reader(self, place: str) -> Any:
        """As of other blocks, but windows have pads, which do not pass the place."""
        return None if place == "after_norm1" and any(self.window) else super().reader(place)

    def attend(self, u: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, C) -> (B, N, C)"""
        if not any(self.window):
            return super().attend(u, tokens)
        (height, width), (rows, columns) = tokens.grid, self.window
        prefix, cells = u[:, : tokens.prefix], u[:, tokens.prefix :].unflatten(1, tokens.grid)
        cells = F.pad(cells, (0, 0, 0, -width % columns, 0, -height % rows))
        whole = (cells.shape[1], cells.shape[2])
        if any(self.shift):
            cells = cells.roll([-shift for shift in self.shift], (1, 2))
        cells = windows(cells, self.window)
        count = len(cells) // len(prefix)
        cells = joined(prefix.repeat_interleave(count, 0), cells)
        cells = self.attention(cells, replace(tokens, grid=self.window), whole)
        prefix, cells = cells[:, : tokens.prefix], cells[:, tokens.prefix :]
        cells = together(cells, self.window, whole)
        if any(self.shift):
            cells = cells.roll(self.shift, (1, 2))
        cells = cells[:, :height, :width].flatten(1, 2)
        return joined(prefix.unflatten(0, (-1, count)).mean(1), cells)


def joined(prefix: Tensor, cells: Tensor) -> Tensor:
    """Put prefix tokens, if any, ahead of cells: (B, P, C), (B, N, C) -> (B, P + N, C)"""
    return torch.cat((prefix, cells), dim=1) if prefix.shape[1] else cells


def windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut maps into windows, those of an image in a row: (B, H, W, C) -> (B nW, h w, C)"""
    rows, columns = window
    x = x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows))
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def together(x: Tensor, window: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Put windows together again: (B nW, h w, C) -> (B, H, W, C)"""
    down, across = (size // side for size, side in zip(whole, window, strict=True))
    x = x.unflatten(1, window).unflatten(0, (-1, down, across))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
