"""SAM's prompt encoder: points, boxes and masks as tokens and a map, or that there is none.

Kirillov 2023 (arXiv:2304.02643), `prompt_encoder.py` of segment_anything; module names are the
official ones. Letters: B images, N points, T tokens, C channels, (h, w) the grid of the embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from segsweep.model.layers.norm2d import LayerNorm2d

NOT_A_POINT = -1  # label of the padding; 0 = background, 1 = foreground
TOP_LEFT, BOTTOM_RIGHT = 2, 3  # rows of `point_embeddings` for the corners of a box


class PositionCode(nn.Module):
    """Random Fourier features of places in the image (Tancik 2020)."""

    positional_encoding_gaussian_matrix: Tensor  # (2, C/2)

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, places: Tensor) -> Tensor:
        """(x, y) in [0, 1] (..., 2) -> (..., C)"""
        x, y = (2 * places - 1).split(1, dim=-1)
        of_x, of_y = self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * (x * of_x + y * of_y)  # autocast would halve a matrix product
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Codes of the centres of all cells. -> (1, C, h, w)"""
        like = self.positional_encoding_gaussian_matrix
        rows, columns = (
            (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
            for side in (height, width)
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        return self(torch.stack([x, y], dim=-1)).permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Prompts as the mask decoder reads them.

    Args:
        channels: C of the image embedding.
        mask_channels: of the second of the layers that bring a mask prompt to the grid.
    """

    def __init__(self, channels: int = 256, mask_channels: int = 16):
        super().__init__()
        self.pe_layer = PositionCode(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        few = mask_channels // 4
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, few, 2, stride=2),
            LayerNorm2d(few),
            nn.GELU(),
            nn.Conv2d(few, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def none(self) -> tuple[Tensor, Tensor]:
        """Stand for no prompt at all: no tokens (1, 0, C), the map of no mask (1, C, 1, 1)."""
        dense = self.no_mask_embed.weight[:, :, None, None]
        return dense.new_empty(1, 0, dense.shape[1]), dense

    def forward(
        self,
        size: tuple[int, int],
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Prompts in pixels of an input of this height and width -> (B, T, C), (B or 1, C, h, w)

        `points` (B, N, 2) are (x, y), their `labels` (B, N) 1 in, 0 outside of the object, -1 no
        point. `boxes` (B, 4) are x1, y1, x2, y2. `masks` (B, 1, 4h, 4w) are logits.
        """
        tokens = []
        if points is not None and labels is not None:
            if boxes is None:  # what a box would fill is padded, as in training
                points = torch.cat([points, points.new_zeros(len(points), 1, 2)], dim=1)
                padding = labels.new_full((len(labels), 1), NOT_A_POINT)
                labels = torch.cat([labels, padding], dim=1)
            tokens.append(self._points(size, points, labels))
        if boxes is not None:
            corners = self._code(size, boxes.unflatten(1, (2, 2)))
            tokens.append(corners + torch.cat([self._kind(k) for k in (TOP_LEFT, BOTTOM_RIGHT)]))
        nothing, dense = self.none()
        if masks is not None:
            dense = self.mask_downscaling(masks)
        return torch.cat(tokens, dim=1) if tokens else nothing, dense

    def _code(self, size: tuple[int, int], places: Tensor) -> Tensor:
        """Code of the centres of pixels. (..., 2) -> (..., C)"""
        height, width = size
        return self.pe_layer((places + 0.5) / places.new_tensor([width, height]))

    def _points(self, size: tuple[int, int], points: Tensor, labels: Tensor) -> Tensor:
        """(B, N, 2), (B, N) -> (B, N, C)"""
        labels = labels[..., None]
        code = self._code(size, points).where(labels != NOT_A_POINT, self.not_a_point_embed.weight)
        for kind in (0, 1):
            code = code + self._kind(kind) * (labels == kind)
        return code

    def _kind(self, kind: int) -> Tensor:
        """Embedding of a kind of point. -> (1, C)"""
        return self.point_embeddings[kind].get_parameter("weight")
