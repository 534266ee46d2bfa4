"""SAM without prompts as a segmenter of label maps: one foreground, or several classes.

The reduced form of Conv-LoRA (Zhong 2024, arXiv:2401.17868) and its inference. Letters beside those
of sam_decoder.py: K classes, where there are several the background is one of them, the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.data.base import BACKGROUND
from segsweep.loss.outputs import Masks
from segsweep.model.found import SemanticMap
from segsweep.model.heads.base import Head
from segsweep.model.heads.query_semantic import best_classes

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.data.loader import Target
    from segsweep.model.heads.sam_decoder import MaskDecoder
    from segsweep.model.heads.sam_prompts import PromptEncoder


class SAMHead(Head):
    """Prompt encoder and mask decoder; nothing is prompted.

    `background` says whether the last of several classes is the background.
    """

    def __init__(
        self, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder, background: bool = False
    ) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = prompt_encoder, mask_decoder
        self.background = background

    @property
    def several(self) -> bool:
        """Whether there is more than one class."""
        return hasattr(self.mask_decoder, "output_classifier_mlps")

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        last = "the background, and last no object" if self.background else "last no object"
        return {
            "masks": "logits of each mask, bilinear to the input's size",
            "classes": f"logits of each mask's class by softmax, at the end {last}",
        }

    def forward(self, features: list[Tensor], targets: Sequence[Target] | None = None) -> Masks:
        """The one map of the backbone (B, C, h, w) -> raw outputs; targets make no difference"""
        (embedding,) = features
        places = self.prompt_encoder.pe_layer.grid(*embedding.shape[2:])
        decoded = self.mask_decoder(embedding, places, *self.prompt_encoder.none())
        classes = self.mask_decoder.classify(decoded) if self.several else None
        return Masks(decoded.masks, classes)

    def predict(
        self, output: Masks, views: Sequence[View], least: float = 0.0
    ) -> list[SemanticMap]:
        """Return the label map of each image."""
        return [self._read(output, b, view) for b, view in enumerate(views)]

    def tensors(self, output: Masks) -> dict[str, Tensor]:
        """Return `masks` (B, M, 4h, 4w) logits and, of several classes, `classes` (B, M, K + 1)."""
        named = {"masks": output.logits}
        return named if output.classes is None else named | {"classes": output.classes}

    def _read(self, output: Masks, b: int, view: View) -> SemanticMap:
        """Probabilities at the input's size, without padding, are resized; then a class is taken.

        The score of a class is the sum over the masks of p(class) times the mask's probability.
        """
        size, padded, original = view
        logits = F.interpolate(output.logits[b : b + 1].float(), padded, mode="bilinear")
        certain = logits.sigmoid_()[..., : size[0], : size[1]]
        if output.classes is None:
            scores = F.interpolate(certain[:, :1], original, mode="bilinear")[0, 0]
            classes = torch.zeros_like(scores, dtype=torch.uint8)
            return SemanticMap(classes.masked_fill_(scores <= 0.5, BACKGROUND), scores, final=True)
        probabilities = output.classes[b].float().softmax(-1)[:, :-1]
        unpadded: View = (size, size, original)
        found = best_classes(probabilities, certain[0], unpadded, "bilinear", torch.positive)
        if self.background:
            found.classes[found.classes == probabilities.shape[1] - 1] = BACKGROUND
        return replace(found, final=True)
