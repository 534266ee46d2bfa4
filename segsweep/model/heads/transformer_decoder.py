"""The transformer decoder: queries read the image and move their boxes, layer after layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segsweep.loss.boxes import invsig
from segsweep.model.layers.attention import MLP, Attention
from segsweep.model.layers.deformable import DeformableAttention
from segsweep.model.layers.position import Shape, box_position
from segsweep.model.layers.seam import Seam
from segsweep.model.necks.pixel_decoder import xavier_matrices


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention and feed-forward, each followed by its norm.

    The norms keep their official numbers: 2 after self-attention, 1 after cross-attention.
    """

    def __init__(self, channels: int, heads: int, ffn: int, levels: int):
        super().__init__()
        self.cross_attn = DeformableAttention(channels, heads, levels)
        self.after_cross_attn = Seam(channels)
        self.norm1 = nn.LayerNorm(channels)
        self.self_attn = Attention(channels, heads)
        self.after_self_attn = Seam(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, ffn)
        self.linear2 = nn.Linear(ffn, channels)
        self.norm3 = nn.LayerNorm(channels)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        shapes: Sequence[Shape],
        blocked: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, C), position (B, Q, C), reference (B, Q, L or 1, 4), memory (B, N, C) -> (B, Q, C)

        `blocked` (Q, Q) is True where a query must not see another. Runs in float32.
        """
        with torch.autocast(x.device.type, enabled=False):
            x, position = x.float(), position.float()
            query = x + position
            attended = self.self_attn(query, query, x, blocked)
            x = self.norm2(x + self.after_self_attn(attended, x))
            attended = self.cross_attn(x + position, reference.float(), memory.float(), shapes)
            x = self.norm1(x + self.after_cross_attn(attended, x))
            return self.norm3(x + self.linear2(self.linear1(x).relu()))


class Decoder(nn.Module):
    """Decoder layers with refined boxes between them.

    `norm` and `box_mlp` belong to the predictor; the official state dict repeats them here.
    """

    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        channels: int,
        norm: nn.LayerNorm,
        box_mlp: MLP,
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.ref_point_head = MLP(2 * channels, channels, channels, depth=2)
        xavier_matrices(self)
        self.norm = norm
        self.bbox_embed = nn.ModuleList([box_mlp] * len(layers))

    def forward(
        self,
        x: Tensor,
        anchors: Tensor,
        memory: Tensor,
        shapes: Sequence[Shape],
        blocked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, Q, C) content, (B, Q, 4) unsigmoided anchors, (B, N, C) memory -> per layer s = 1..S

        -> normed outputs (S, B, Q, C), and the boxes (S, B, Q, 4) that each layer started from.
        Each layer sees its box detached, while the returned one carries the gradient to the layer
        before: boxes look forward twice (Zhang 2023, DINO).
        """
        boxes = anchors.sigmoid()
        outputs, starts = [], []
        for layer, box_mlp in zip(self.layers, self.bbox_embed, strict=True):
            starts.append(boxes)
            boxes = boxes.detach()
            position = self.ref_point_head(box_position(boxes, x.shape[-1] // 2))
            x = layer(x, position, boxes[:, :, None], memory, shapes, blocked)
            outputs.append(self.norm(x))
            boxes = (box_mlp(x) + invsig(boxes)).sigmoid()
        return torch.stack(outputs), torch.stack(starts)
