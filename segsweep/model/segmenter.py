"""The segmenter: backbone -> pixel decoder -> predictor -> loss, or instances or label maps.

Letters of all shapes: B images, Q queries, N tokens, C channels, L levels, K classes, P points,
S prediction sets, M masks. Boxes are (cx, cy, w, h) in [0, 1] unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.data.base import BACKGROUND
from segsweep.loss.boxes import bitmask, cxcywh_to_xyxy
from segsweep.loss.criterion import Criterion
from segsweep.model.backbone import DropPath
from segsweep.model.feature_cache import FeatureCache, maps_of, together
from segsweep.model.predictor import Output

if TYPE_CHECKING:
    from segsweep.data.loader import Target
    from segsweep.model.fpn_decoder import FPNDecoder
    from segsweep.model.masked_decoder import MaskedPredictor
    from segsweep.model.pixel_decoder import PixelDecoder
    from segsweep.model.predictor import Predictor

Size = tuple[int, int]  # (height, width)
View = tuple[Size, Size, Size]  # an image as the network saw it, with padding, at original size
Resize = Literal["bilinear", "bicubic"]
CELLS = 2**24  # mask cells that are resized at once


@dataclass
class Instances:
    """Objects found in one image, best first, at the image's original size."""

    scores: Tensor  # (M,)
    labels: Tensor  # (M,) int64
    boxes: Tensor  # (M, 4) x1 y1 x2 y2 in pixels, far side past the last one, not clipped
    masks: Tensor  # (M, H, W) bool

    @cached_property
    def coco(self) -> list[dict[str, Any]]:
        """The same in the COCO form, which the metric and the file of predictions share."""
        from segsweep.metrics.coco import predictions

        return predictions(self)


@dataclass
class Semantic:
    """The best class of every pixel of one image, at the image's original size."""

    classes: Tensor  # (H, W) uint8
    scores: Tensor  # (H, W) of these classes, at most 1

    def label_map(self, background: bool) -> Tensor:
        """Classes, where a set has `background` that where no class reaches 0.5. -> (H, W) uint8"""
        if not background:
            return self.classes
        return self.classes.masked_fill(self.scores < 0.5, BACKGROUND)


class Head(nn.Module):
    """Everything behind the backbone."""

    def __init__(
        self, pixel_decoder: PixelDecoder | FPNDecoder, predictor: Predictor | MaskedPredictor
    ):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor

    def forward(self, features: list[Tensor], targets: Sequence[Target] | None = None) -> Output:
        """Maps (B, C_i, H_i, W_i) at strides 4 to 32 -> Output"""
        return self.predictor(self.pixel_decoder(features), targets)


class Segmenter(nn.Module):
    """A model of instances, or of classes if `semantic`; `requires_grad` freezes parts of it.

    `topk` (query, class) pairs are kept per image; `focus_on_box` leaves the quality of the mask
    out of the score; `resize` is how mask logits reach the original size, bicubic with antialias.
    `drop_path` keeps a frozen backbone's drop path active in training, as in the programs that the
    published numbers come from.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: Head,
        criterion: Criterion,
        topk: int = 100,
        focus_on_box: bool = False,
        drop_path: bool = False,
        resize: Resize = "bilinear",
    ):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = head
        self.criterion = criterion
        self.topk, self.focus_on_box, self.drop_path = topk, focus_on_box, drop_path
        self.resize: Resize = resize
        self.semantic = False
        self.least = 0.0  # score below which instances need not be found, but for the best
        self.feature_cache: FeatureCache | None = None

    def train(self, mode: bool = True) -> Segmenter:
        """Set the mode of what trains; whatever is wholly frozen stays in evaluation mode."""
        super().train(mode)
        if mode:
            for child in self.children():
                _rest(child)
        if self.drop_path:
            for module in self.backbone.modules():
                if isinstance(module, DropPath):
                    module.train(mode)
        return self

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Output:
        """(B, 3, H, W), H and W multiples of 32 -> Output; targets add denoising in training"""
        return self.sem_seg_head(self.features(images), targets if self.training else None)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of the backbone, (B, 3, H, W) -> (B, C_i, H_i, W_i); without graph where frozen

        A CPU computes those of a backbone at rest image by image: to the last bit, they then are
        a function of the image, may be kept, and large ones stay in the processor's caches.
        """
        trains = any(parameter.requires_grad for parameter in self.backbone.parameters())
        at_rest = not trains and not (self.training and self.drop_path)
        with torch.set_grad_enabled(trains and torch.is_grad_enabled()):
            if at_rest and self.feature_cache is not None:
                return self.feature_cache(self.backbone, images)
            if at_rest and images.device.type == "cpu":
                return together([maps_of(self.backbone, image) for image in images])
            return self.backbone(images)

    def loss(self, output: Output, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Weighted total as `loss`, and its raw terms under their official names."""
        terms = self.criterion(output, targets)
        return {"loss": self.criterion.total(terms), **{k: v.detach() for k, v in terms.items()}}

    @torch.no_grad()
    def predict(
        self,
        output: Output,
        sizes: Sequence[Size],
        padded_size: Size,
        original_sizes: Sequence[Size],
    ) -> list[Any]:
        """`Instances` of each image, or `Semantic`, at its original size.

        `sizes` are the images as the network saw them, without the padding to `padded_size`.
        """
        find = self._classes if self.semantic else self._instances
        frames = zip(sizes, original_sizes, strict=True)
        with torch.autocast(output.mask_features.device.type, enabled=False):
            return [
                find(output, b, (size, padded_size, original))
                for b, (size, original) in enumerate(frames)
            ]

    def _instances(self, output: Output, b: int, view: View) -> Instances:
        """Best instances of image b.

        Where no boxes are predicted, they are those of the masks; zeros for a mask without pixels.
        """
        result = output.matching
        scores, queries, labels = self._best(result.logits[-1, b].float())
        # a query may stand for several classes, its mask is made once
        once, which = queries.unique(return_inverse=True)
        factors = result.embeddings[-1, b, once].float(), output.mask_features[b].float()
        masks, certainty = _masks(*factors, view, self.resize)
        if not self.focus_on_box:
            scores = scores * certainty[which]
        if result.boxes is None:
            boxes = bitmask(masks)[which]
        else:
            boxes = _boxes(result.boxes[-1, b, queries], *view)
        scores, order = scores.sort(descending=True, stable=True)
        return Instances(scores, labels[order], boxes[order], masks[which[order]])

    def _classes(self, output: Output, b: int, view: View) -> Semantic:
        """Best classes of the pixels of image b."""
        result, features = output.matching, output.mask_features[b].float()
        logits = torch.einsum("qc,chw->qhw", result.embeddings[-1, b].float(), features)
        each = self.criterion.classify.scores(result.logits[-1, b].float())
        return _semantic(each, logits, view, self.resize)

    def _best(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, queries and classes of the best pairs of both. (Q, C) -> 3 x (topk or less,)"""
        each = self.criterion.classify.scores(logits)
        scores, index = each.flatten().topk(min(self.topk, each.numel()))
        if self.least:  # the quality of a mask can only make a score smaller
            wanted = max(1, int((scores >= self.least).sum()))
            scores, index = scores[:wanted], index[:wanted]
        return scores, index // each.shape[1], index % each.shape[1]


def _rest(module: nn.Module) -> None:
    """Put modules whose parameters are all frozen into evaluation mode."""
    trains = [parameter.requires_grad for parameter in module.parameters()]
    if trains and not any(trains):
        module.eval()
    else:
        for child in module.children():
            _rest(child)


def _boxes(boxes: Tensor, size: Size, padded_size: Size, original: Size) -> Tensor:
    """(M, 4) of the padded frame -> (M, 4) x1 y1 x2 y2 in pixels of the original image"""
    height, width = (p / s * o for p, s, o in zip(padded_size, size, original, strict=True))
    return cxcywh_to_xyxy(boxes.float()) * boxes.new_tensor([width, height] * 2).float()


def _masks(
    embeddings: Tensor, features: Tensor, view: View, resize: Resize
) -> tuple[Tensor, Tensor]:
    """(M, C), (C, h, w) -> masks (M, H, W) bool at the original size, their mean certainty (M,)"""
    _, padded_size, original = view
    chunk = max(1, CELLS // max(padded_size[0] * padded_size[1], original[0] * original[1]))
    masks, quality = [], []
    for part in embeddings.split(chunk):
        logits = torch.einsum("mc,chw->mhw", part, features).float()[None]
        logits = to_original(logits, *view, resize)[0]
        mask = logits > 0
        inside = mask.float()  # sums of floats are much faster than those of booleans
        certain = logits.sigmoid_().mul_(inside).sum((1, 2))
        masks.append(mask)
        quality.append(certain / (inside.sum((1, 2)) + 1e-6))
    return torch.cat(masks), torch.cat(quality)


def _semantic(each: Tensor, logits: Tensor, view: View, resize: Resize) -> Semantic:
    """Semantic inference of MaskFormer (Cheng 2021, 3.4). p(class) (Q, K), masks (Q, h, w)

    The score of a class is the sum over the queries of p(class) times the mask's probability.
    Neither Q masks nor K scores of a whole image are there at once: resizing is linear, so strips
    of rows are made by a matrix, then their columns as ever.
    """
    (size, padded_size, original), height = view, logits.shape[1]
    unit = torch.eye(height, device=logits.device)[None, None]
    heights = (size[0], height), (padded_size[0], height), (original[0], height)
    rows = to_original(unit, *heights, resize)[0, 0]  # (H, h)
    found = []
    for strip in rows.split(max(1, CELLS // (sum(each.shape) * original[1]))):
        used, n = strip.any(0), len(strip)
        masks = torch.einsum("rh,qhw->qrw", strip[:, used], logits[:, used])[None]
        widths = (n, size[1]), (n, padded_size[1]), (n, original[1])
        masks = to_original(masks, *widths, resize)[0].sigmoid_()
        found.append(torch.einsum("qk,qrw->krw", each, masks).max(0))
    scores, classes = (torch.cat(part) for part in zip(*found, strict=True))
    return Semantic(classes.to(torch.uint8), scores.clamp_(max=1))


def to_original(
    logits: Tensor, size: Size, padded_size: Size, original: Size, resize: Resize
) -> Tensor:
    """Resize to the padded input, crop to the image, resize to the original.

    (B, M, h, w) -> (B, M, *original)
    """
    logits = F.interpolate(logits, padded_size, mode="bilinear", align_corners=False)
    logits, smooth = logits[..., : size[0], : size[1]], resize == "bicubic"
    return F.interpolate(logits, original, mode=resize, align_corners=False, antialias=smooth)
