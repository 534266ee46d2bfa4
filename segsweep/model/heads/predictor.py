"""The predictor: choose queries among the tokens, decode them, read off classes, boxes, masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.loss.boxes import invsig, xyxy_to_cxcywh
from segsweep.loss.denoising import denoising_queries
from segsweep.loss.outputs import DenoisingQueries, Labelled, Output, PredictionSets
from segsweep.model.heads.transformer_decoder import Decoder, DecoderLayer
from segsweep.model.layers.attention import MLP
from segsweep.model.layers.position import proposals
from segsweep.model.necks.pixel_decoder import PixelFeatures

MaskBoxes = Callable[[Tensor], Tensor]  # masks (..., H, W) bool -> boxes (..., 4) xyxy in pixels


class Predictor(nn.Module):
    """Two-stage decoder of Mask DINO (Li 2023, section 3); module names are the official ones.

    `mask_boxes` turns masks of the chosen tokens into first anchors (mask-enhanced anchors); None
    keeps the boxes that the tokens predict.
    """

    def __init__(
        self,
        classes: int,
        layers: Sequence[DecoderLayer],
        hidden: int = 256,
        mask_dim: int = 256,
        queries: int = 300,
        mask_boxes: MaskBoxes | None = None,
        dn_number: int = 100,
        dn_noise: float = 0.4,
    ):
        super().__init__()
        self.queries, self.mask_boxes = queries, mask_boxes
        self.dn_number, self.dn_noise = dn_number, dn_noise
        self.enc_output = nn.Linear(hidden, hidden)
        self.enc_output_norm = nn.LayerNorm(hidden)
        self.class_embed = nn.Linear(hidden, classes)
        self.label_enc = nn.Embedding(classes, hidden)
        self.mask_embed = MLP(hidden, hidden, mask_dim, depth=3)
        self.decoder_norm = nn.LayerNorm(hidden)
        self._bbox_embed = MLP(hidden, hidden, 4, depth=3)
        for parameter in self._bbox_embed.layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.decoder = Decoder(layers, hidden, self.decoder_norm, self._bbox_embed)
        self.bbox_embed = self.decoder.bbox_embed

    def reset_classes(self, generator: torch.Generator) -> None:
        """Draw the weights that belong to single classes, as torch draws them at construction."""
        bound = self.class_embed.in_features**-0.5
        with torch.no_grad():
            self.class_embed.weight.uniform_(-bound, bound, generator=generator)
            self.class_embed.bias.uniform_(-bound, bound, generator=generator)
            self.label_enc.weight.normal_(generator=generator)

    def forward(self, features: PixelFeatures, targets: Sequence[Labelled] | None = None) -> Output:
        """Features, and targets for denoising queries in training -> Output"""
        levels = features.levels[::-1]
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        memory = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        content, anchors = self._select(memory, shapes)
        interm = self._heads(content[None], anchors.sigmoid()[None])
        content, anchors = content.detach(), anchors.detach()
        if self.mask_boxes is not None:
            anchors = mask_anchors(interm.embeddings[0], features.mask_features, self.mask_boxes)
        queries = self._denoising(targets)
        if queries is not None:
            content = torch.cat((queries.content, content), dim=1)
            anchors = torch.cat((queries.anchors, anchors), dim=1)
        sets = self._decode(content, anchors, memory, shapes, queries)
        denoising, matching = sets.split(queries.pad) if queries is not None else (None, sets)
        return Output(matching, interm, denoising, queries, features.mask_features)

    def _select(self, memory: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Take the tokens of highest class score. (B, N, C) -> (B, Q, C), (B, Q, 4) unsigmoided

        The choice itself has no gradient, so only the chosen tokens are computed with one.
        """
        if memory.shape[1] < self.queries:
            raise UserError(
                f"model.queries={self.queries}: these images have {memory.shape[1]} tokens, fewer "
                "than queries; choose fewer queries or a larger data.size"
            )
        boxes, usable = proposals(shapes, memory.device)
        memory = memory.masked_fill(~usable[:, None], 0)
        chosen = self.scores(memory).topk(self.queries, dim=1).indices
        tokens = memory.take_along_dim(chosen[..., None], dim=1)
        content = self._encode(tokens)
        return content, self._bbox_embed(content) + boxes[chosen]

    @torch.no_grad()
    def scores(self, memory: Tensor) -> Tensor:
        """Highest class logit of each token. (B, N, C) -> (B, N)"""
        return self.class_embed(self._encode(memory)).amax(-1)

    def _encode(self, tokens: Tensor) -> Tensor:
        return self.enc_output_norm(self.enc_output(tokens))

    def _denoising(self, targets: Sequence[Labelled] | None) -> DenoisingQueries | None:
        if targets is None:
            return None
        return denoising_queries(
            targets,
            self.label_enc,
            self.queries,
            self.class_embed.out_features,
            self.dn_number,
            self.dn_noise,
        )

    def _decode(
        self,
        content: Tensor,
        anchors: Tensor,
        memory: Tensor,
        shapes: Sequence[tuple[int, int]],
        queries: DenoisingQueries | None,
    ) -> PredictionSets:
        """Predict from the queries themselves and from each layer's output: S = layers + 1."""
        blocked = None if queries is None else queries.attention_mask
        outputs, starts = self.decoder(content, anchors, memory, shapes, blocked)
        moved = (self._bbox_embed(outputs) + invsig(starts)).sigmoid()
        boxes = torch.cat((anchors.sigmoid()[None], moved))
        return self._heads(torch.cat((content[None], outputs)), boxes)

    def _heads(self, x: Tensor, boxes: Tensor) -> PredictionSets:
        """(S, B, Q, C) -> PredictionSets; layer outputs are normed already (twice, as official)"""
        x = self.decoder_norm(x)
        return PredictionSets(self.class_embed(x), boxes, self.mask_embed(x))


@torch.no_grad()
def mask_anchors(embeddings: Tensor, mask_features: Tensor, mask_boxes: MaskBoxes) -> Tensor:
    """Unsigmoided tight boxes of the masks. (B, Q, C), (B, C, H, W) -> (B, Q, 4)

    Masks of one image at a time are dense, as bits.
    """
    height, width = mask_features.shape[-2:]
    size = mask_features.new_tensor((width, height, width, height)).float()
    boxes = []
    for embedding, feature in zip(embeddings, mask_features, strict=True):
        masks = torch.einsum("qc,chw->qhw", embedding, feature) > 0
        boxes.append(mask_boxes(masks))
    return invsig(xyxy_to_cxcywh(torch.stack(boxes)) / size)
