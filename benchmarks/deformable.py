"""Deformable self-attention of an encoder layer: one weighted read of all levels against one
`grid_sample` per level.

The second is the usual way without a custom kernel. Same weights, same output, asserted by its
sum and that of the gradients. CPU time on one thread; peak memory is what a step adds.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import _sides
from segsweep.model.layers.deformable import DeformableAttention

SIDES = ["grid_sample", "segsweep"]
CASES: dict[str, dict[str, int]] = {
    "tiny, 8 x 128 x 128": {"images": 8, "side": 128, "channels": 64, "heads": 4, "repeats": 10},
    "R50, 1 x 512 x 512": {"images": 1, "side": 512, "channels": 256, "heads": 8, "repeats": 3},
}
STRIDES = (8, 16, 32, 64)


class Sampled(DeformableAttention):
    """The same attention, a sampled map of every level at a time."""

    def forward(self, query, reference, memory, shapes, padding=None):
        batch, count, channels = query.shape
        value = self.value_proj(memory).unflatten(2, (self.heads, -1))
        weights = self.attention_weights(query).unflatten(2, (self.heads, -1)).softmax(-1)
        offsets = self.sampling_offsets(query)
        offsets = offsets.view(batch, count, self.heads, self.levels, self.points, 2)
        size = query.new_tensor([(w, h) for h, w in shapes])
        at = reference[:, :, None, :, None] + offsets / size[:, None]
        sampled = []
        for level, part in enumerate(value.split([h * w for h, w in shapes], dim=1)):
            maps = part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, shapes[level])
            grid = 2 * at[:, :, :, level].transpose(1, 2).flatten(0, 1) - 1
            sampled.append(F.grid_sample(maps, grid, align_corners=False))
        reads = torch.stack(sampled, dim=3).flatten(3)  # (B * heads, D, N, L * P)
        weights = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)
        out = (reads * weights).sum(3).view(batch, channels, count)
        return self.output_proj(out.transpose(1, 2))


def inputs(images: int, side: int, channels: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Tokens of all levels and their centres."""
    shapes = [(side // stride, side // stride) for stride in STRIDES]
    centres = []
    for height, width in shapes:
        y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
        centres.append(torch.cartesian_prod(y, x).flip(1))
    reference = torch.cat(centres)[None, :, None].expand(images, -1, len(shapes), -1)
    tokens = torch.randn(images, reference.shape[1], channels, requires_grad=True)
    return tokens, reference, shapes


def run(case: str, side: str) -> dict[str, Any]:
    c = CASES[case]
    torch.manual_seed(0)
    kind = DeformableAttention if side == "segsweep" else Sampled
    attention = kind(c["channels"], c["heads"], len(STRIDES))
    torch.nn.init.normal_(attention.sampling_offsets.weight, std=0.1)
    tokens, reference, shapes = inputs(c["images"], c["side"], c["channels"])
    upstream, out = torch.randn_like(tokens), tokens

    @torch.no_grad()
    def inference() -> None:
        attention(tokens, reference, tokens, shapes)

    def forward() -> None:
        nonlocal out
        out = attention(tokens, reference, tokens, shapes)

    def backward() -> None:
        tokens.grad = None
        attention.zero_grad()
        out.backward(upstream)

    steps = {"inference": inference, "forward": forward, "backward": backward}
    measured = _sides.measure(steps, c["repeats"])
    assert tokens.grad is not None
    sums = {"output": out.abs().sum().item(), "gradient": tokens.grad.abs().sum().item()}
    return measured | {"result": sums}


def rows() -> list[dict[str, Any]]:
    table = _sides.rows("benchmarks.deformable", list(CASES), SIDES)
    for ours, theirs in zip(table[::2], table[1::2], strict=True):
        for key in ("output", "gradient"):
            assert abs(ours.pop(key) / theirs.pop(key) - 1) < 1e-4, table
    return table


if __name__ == "__main__":
    _sides.main(run, rows)
