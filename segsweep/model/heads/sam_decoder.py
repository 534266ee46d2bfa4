"""SAM's mask decoder: a few tokens and the image look at each other, each mask token is a mask.

Kirillov 2023 (arXiv:2304.02643), `mask_decoder.py` and `transformer.py` of segment_anything; the
reduced form and its class head are those of Conv-LoRA (Zhong 2024, arXiv:2401.17868). Module names
are the official ones. Letters: B images, M mask tokens, T tokens in all, N cells, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.model.layers.attention import MLP
from segsweep.model.layers.norm2d import LayerNorm2d

QUALITIES = 4  # of the head that rates masks, as many as SAM has mask tokens


class NarrowAttention(nn.Module):
    """Multi-head attention with a projection of its own for each input, `inner` channels wide."""

    def __init__(self, channels: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries (B, Q, C), keys and values (B, N, C) -> (B, Q, C)"""
        projected = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)"""
        return self.lin2(self.lin1(x).relu())


class TwoWayLayer(nn.Module):
    """Tokens see each other, then the image, then the image sees them; every norm comes last.

    The first layer's self-attention stands alone, without position code and without residual.
    """

    def __init__(self, channels: int, heads: int, hidden: int, eps: float, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = NarrowAttention(channels, heads, channels)
        self.norm1 = nn.LayerNorm(channels, eps)
        self.cross_attn_token_to_image = NarrowAttention(channels, heads, channels // 2)
        self.norm2 = nn.LayerNorm(channels, eps)
        self.mlp = FeedForward(channels, hidden)
        self.norm3 = nn.LayerNorm(channels, eps)
        self.norm4 = nn.LayerNorm(channels, eps)
        self.cross_attn_image_to_token = NarrowAttention(channels, heads, channels // 2)

    def forward(
        self, x: Tensor, image: Tensor, code: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, C) and image (B, N, C) with their codes -> the same two"""
        x = self.self_attn(x, x, x) if self.first else x + self.self_attn(x + code, x + code, x)
        x = self.norm1(x)
        x = self.norm2(x + self.cross_attn_token_to_image(x + code, image + places, image))
        x = self.norm3(x + self.mlp(x))
        image = image + self.cross_attn_image_to_token(image + places, x + code, x)
        return x, self.norm4(image)


class TwoWayTransformer(nn.Module):
    """Layers in both directions, and a last look of the tokens at the image."""

    def __init__(self, channels: int, heads: int, hidden: int, layers: int, eps: float):
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayLayer(channels, heads, hidden, eps, first=i == 0) for i in range(layers)
        )
        self.final_attn_token_to_image = NarrowAttention(channels, heads, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, C), their own codes at once; image (B, N, C), its codes (1, N, C)"""
        x = tokens
        for layer in self.layers:
            x, image = layer(x, image, tokens, places)
        read = self.final_attn_token_to_image(x + tokens, image + places, image)
        return self.norm_final_attn(x + read), image


class Decoded(NamedTuple):
    """What the decoder makes of an image embedding (B, C, h, w) and prompts."""

    masks: Tensor  # (B, M, 4h, 4w) logits
    tokens: Tensor  # (B, 1 + M, C), that of the quality first


class MaskDecoder(nn.Module):
    """The mask decoder, whole or reduced.

    The whole one has four mask tokens and a hyper-network for each. The reduced one (`shared`) has
    `tokens` of them and one hyper-network that they share. With more than one of `classes` each
    mask token is told a class, the last logit says "no object".

    Args:
        channels: C of the image embedding.
        layers, heads, hidden: of the transformer; `hidden` of its feed-forwards.
        quality_hidden: of the head that rates masks.
        eps: of the norms in the layers: 1e-5 in segment_anything, 1e-6 in transformers.
    """

    def __init__(
        self,
        channels: int = 256,
        layers: int = 2,
        heads: int = 8,
        hidden: int = 2048,
        quality_hidden: int = 256,
        eps: float = 1e-5,
        tokens: int = QUALITIES,
        shared: bool = False,
        classes: int = 1,
    ):
        super().__init__()
        self.transformer = TwoWayTransformer(channels, heads, hidden, layers, eps)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(tokens, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(channels, channels, channels // 8, depth=3) for _ in range(1 if shared else tokens)
        )
        self.iou_prediction_head = MLP(channels, quality_hidden, QUALITIES, depth=3)
        if classes > 1:
            self.output_classifier_mlps = nn.Linear(channels, classes + 1)

    def forward(self, embedding: Tensor, places: Tensor, prompts: Tensor, dense: Tensor) -> Decoded:
        """Decode every image with its prompts.

        Embedding (B, C, h, w), codes of its cells (1, C, h, w), prompt tokens (B or 1, T, C), map
        of the mask prompt (B or 1, C, h or 1, w or 1).
        """
        batch, grid = len(embedding), embedding.shape[2:]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([x.expand(batch, -1, -1) for x in (own[None], prompts)], dim=1)
        image = (embedding + dense).flatten(2).transpose(1, 2)
        x, image = self.transformer(tokens, image, places.flatten(2).transpose(1, 2))
        x = x[:, : len(own)]
        fine = self.output_upscaling(image.transpose(1, 2).unflatten(2, grid))
        return Decoded(torch.einsum("bmc,bchw->bmhw", self._kernels(x[:, 1:]), fine), x)

    def quality(self, decoded: Decoded) -> Tensor:
        """Predict the IoU of the masks. -> (B, 4)"""
        return self.iou_prediction_head(decoded.tokens[:, 0])

    def classify(self, decoded: Decoded) -> Tensor:
        """Class logits of the masks, "no object" last. -> (B, M, K + 1)"""
        return self.output_classifier_mlps(decoded.tokens[:, 1:])

    def _kernels(self, x: Tensor) -> Tensor:
        """Mask tokens -> what the fine map is multiplied with. (B, M, C) -> (B, M, C/8)"""
        networks = self.output_hypernetworks_mlps
        if len(networks) == 1:
            return networks[0](x)
        pairs = zip(networks, x.unbind(1), strict=True)
        return torch.stack([network(token) for network, token in pairs], dim=1)
