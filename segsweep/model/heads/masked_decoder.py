"""SEEM's predictor: queries look only where their own masks are, and are told apart by texts.

Masked attention is that of Cheng 2022 (Mask2Former); classes are the texts nearest to a query
(Zou 2023, X-Decoder and SEEM). Of SEEM's queries these are the ones for objects; prompts by
clicks, scribbles or words have no part here. Module names follow the official state dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.loss.outputs import Labelled, Output, PredictionSets
from segsweep.model.heads.language import KnownTexts, LanguageEncoder
from segsweep.model.layers.attention import MLP, Attention
from segsweep.model.layers.position import map_position
from segsweep.model.layers.seam import Seam
from segsweep.model.necks.pixel_decoder import PixelFeatures, convolution, xavier_matrices

LEVELS = 3  # strides 32, 16, 8, taken in turns


class CrossAttentionLayer(nn.Module):
    """Queries read the cells of one level, then a norm."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.multihead_attn = Attention(channels, heads)
        self.after_cross_attn = Seam(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(
        self, x: Tensor, position: Tensor, keys: Tensor, memory: Tensor, blocked: Tensor
    ) -> Tensor:
        """(B, Q, C), position (Q, C), keys and memory (B, N, C), blocked as `unseen` gives it"""
        attended = self.multihead_attn(x + position, keys, memory, blocked)
        return self.norm(x + self.after_cross_attn(attended, x))


class SelfAttentionLayer(nn.Module):
    """Queries see each other, then a norm."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.self_attn = Attention(channels, heads)
        self.after_self_attn = Seam(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, Q, C), position (Q, C) -> (B, Q, C)"""
        query = x + position
        return self.norm(x + self.after_self_attn(self.self_attn(query, query, x), x))


class FeedForwardLayer(nn.Module):
    """Two linear layers with ReLU between them, then a norm."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, C)"""
        return self.norm(x + self.linear2(self.linear1(x).relu()))


class Level(NamedTuple):
    """One map as the queries see it."""

    memory: Tensor  # (B, N, C), N = H*W
    keys: Tensor  # (B, N, C), memory with the places of the cells
    mask_features: Tensor  # (B, mask_dim, H, W) float32, without gradient


class MaskedPredictor(nn.Module):
    """Decoder of learned queries; logits compare them with texts, the last of them no object's.

    Args:
        language: gives one embedding per class and one of the background, and compares with them.
        hidden: C, channels of queries and levels.
        heads: of all attentions.
        ffn: channels of the feed-forward layers.
        layers: of the decoder; layer i reads level i modulo 3.
        queries: Q.
        mask_dim: channels of the mask features.
        proj: P, channels of the texts.
        conv_dim: channels of the pixel decoder's levels, projected where they are not C.
    """

    def __init__(
        self,
        language: LanguageEncoder,
        hidden: int = 512,
        heads: int = 8,
        ffn: int = 2048,
        layers: int = 9,
        queries: int = 101,
        mask_dim: int = 512,
        proj: int = 512,
        conv_dim: int = 512,
    ):
        super().__init__()
        count = range(layers)
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden, heads) for _ in count
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden, heads) for _ in count
        )
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(hidden, ffn) for _ in count)
        xavier_matrices(self)
        self.decoder_norm = nn.LayerNorm(hidden)
        self.query_feat = nn.Embedding(queries, hidden)
        self.query_embed = nn.Embedding(queries, hidden)  # the queries' places
        self.level_embed = nn.Embedding(LEVELS, hidden)
        self.class_embed = nn.Parameter(torch.empty(hidden, proj))
        nn.init.trunc_normal_(self.class_embed, std=0.02)
        self.mask_embed = MLP(hidden, hidden, mask_dim, depth=3)
        self.input_proj = nn.ModuleList(
            nn.Sequential() if conv_dim == hidden else convolution(conv_dim, hidden, 1)
            for _ in range(LEVELS)
        )
        self.lang_encoder: LanguageEncoder | KnownTexts = language

    def fix_texts(self) -> None:
        """Leave out the text encoder: the embeddings of the classes are constants from now on."""
        if isinstance(self.lang_encoder, LanguageEncoder):
            self.lang_encoder = KnownTexts(self.lang_encoder)

    def forward(self, features: PixelFeatures, targets: Sequence[Labelled] | None = None) -> Output:
        """Features -> Output of S = layers + 1 sets; targets say that this is training

        In training each class has a text drawn for this pass, else the mean of all its texts.
        """
        text = self.lang_encoder(draw=targets is not None)
        levels = self.levels(features)
        position = self.query_embed.weight
        x = self.query_feat.weight.expand(len(features.mask_features), -1, -1)
        outputs = [x]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for i, (read, mix, transform) in enumerate(layers):
            level = levels[i % len(levels)]
            blocked = self._blocked(x, level.mask_features)
            x = read(x, position, level.keys, level.memory, blocked)
            x = transform(mix(x, position))
            outputs.append(x)
        sets = self.heads(torch.stack(outputs), text)
        return Output(sets, None, None, None, features.mask_features)

    def levels(self, features: PixelFeatures) -> list[Level]:
        """Flatten the maps, add the code of their level, and bring the mask features to them."""
        levels = []
        maps = zip(features.levels, self.input_proj, self.level_embed.weight, strict=True)
        for feature, project, code in maps:
            shape = (feature.shape[2], feature.shape[3])
            memory = project(feature).flatten(2).transpose(1, 2) + code
            keys = memory + map_position(shape, memory.shape[2], memory.device)
            levels.append(Level(memory, keys, resized(features.mask_features, shape)))
        return levels

    @torch.no_grad()
    def _blocked(self, x: Tensor, mask_features: Tensor) -> Tensor:
        """Where the queries' own masks are not, decided in float32: (B, Q, C) -> (B, 1, Q, N)"""
        with torch.autocast(x.device.type, enabled=False):
            return unseen(self.mask_embed(self.decoder_norm(x.float())), mask_features)

    def heads(self, x: Tensor, text: Tensor) -> PredictionSets:
        """Read off classes and masks. (S, B, Q, C), texts (K + 1, P) -> PredictionSets"""
        x = self.decoder_norm(x)
        logits = self.lang_encoder.similarity(x @ self.class_embed, text)
        return PredictionSets(logits, None, self.mask_embed(x))


@torch.no_grad()
def resized(mask_features: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mask features at the size of a level, float32. (B, C, H, W) -> (B, C, h, w)

    Logits are linear in the features, so that this once stands for a resize of every mask.
    """
    return F.interpolate(mask_features.float(), shape, mode="bilinear", align_corners=False)


@torch.no_grad()
def unseen(embeddings: Tensor, mask_features: Tensor) -> Tensor:
    """Cells outside of each query's mask. (B, Q, C), (B, C, H, W) -> (B, 1, Q, H*W) bool

    Outside is where the logit is negative. A query whose mask is empty sees all cells.
    """
    outside = torch.einsum("bqc,bchw->bqhw", embeddings, mask_features).flatten(2) < 0
    return (outside & ~outside.all(-1, keepdim=True))[:, None]
