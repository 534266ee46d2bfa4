"""Denoising queries: noised ground truth shown to the decoder in training (Li 2022, DN-DETR).

Every group holds each target of its image once. Mask DINO draws positive noise only; there are no
contrastive negatives. The order of random draws follows the original program.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segsweep.loss.boxes import invsig
from segsweep.loss.outputs import DenoisingQueries, Labelled


def denoising_queries(
    targets: Sequence[Labelled],
    label_enc: nn.Embedding,
    num_queries: int,
    num_classes: int,
    number: int = 100,
    noise: float = 0.4,
) -> DenoisingQueries | None:
    """Build about `number` denoising queries per image out of the targets of a batch.

    Labels are replaced with probability `noise / 2`, boxes moved and scaled by up to `noise`.
    None where no image has a target or one has more than `number`.
    """
    counts = [len(target.labels) for target in targets]
    most = max(counts, default=0)
    groups = number // most if most else 0
    if groups == 0:
        return None
    device = targets[0].labels.device
    pad = groups * most
    slots = [_slots(n, most, groups, device) for n in counts]
    labels, boxes = noised(targets, groups, num_classes, noise)
    anchors = invsig(boxes)
    # the list runs group by group and through the images in each group: cut it back to images
    content = label_enc.weight.new_zeros(len(targets), pad, label_enc.embedding_dim)
    placed = anchors.new_zeros(len(targets), pad, 4)
    image = torch.cat([torch.full((n,), b, device=device) for b, n in enumerate(counts)])
    image = image.repeat(groups)
    slot = torch.cat([s.view(groups, -1) for s in slots], dim=1).flatten()
    content = content.index_put((image, slot), label_enc(labels))
    placed[image, slot] = anchors
    mask = attention_mask(pad, most, num_queries, device)
    return DenoisingQueries(content, placed, mask, groups, slots, pad)


def noised(
    targets: Sequence[Labelled], groups: int, num_classes: int, noise: float
) -> tuple[Tensor, Tensor]:
    """Labels (R,) and boxes (R, 4) cxcywh of all targets, repeated and noised; R = groups * sum n.

    Three draws from the generator: replacement of labels, the new labels, the noise of the boxes.
    """
    labels = torch.cat([target.labels for target in targets]).repeat(groups)
    boxes = torch.cat([target.boxes for target in targets]).float().repeat(groups, 1)
    replaced = uniform(labels.shape, labels.device) < noise / 2
    labels = labels.masked_scatter(replaced, random_labels(replaced, num_classes))
    shift = 2 * uniform(boxes.shape, boxes.device) - 1
    size = boxes[:, 2:]
    boxes = boxes + shift * torch.cat([size / 2, size], dim=1) * noise
    return labels, boxes.clamp(0, 1)


def attention_mask(pad: int, most: int, num_queries: int, device: torch.device) -> Tensor:
    """Say who must not see whom. -> (P + Q, P + Q) bool, True = blocked

    Matching queries see no denoising query; a denoising query sees its own group and all
    matching queries.
    """
    group = torch.arange(pad, device=device) // most
    group = torch.cat([group, group.new_full((num_queries,), -1)])
    return (group[:, None] != group) & (group >= 0)


def uniform(shape: Sequence[int], device: torch.device) -> Tensor:
    """Draw uniform numbers in [0, 1)."""
    return torch.rand(tuple(shape), device=device)


def random_labels(replaced: Tensor, num_classes: int) -> Tensor:
    """Draw one class for every true entry, in ascending position. (R,) bool -> (<= R,) int64"""
    return torch.randint(num_classes, (int(replaced.sum()),), device=replaced.device)


def _slots(n: int, most: int, groups: int, device: torch.device) -> Tensor:
    first = most * torch.arange(groups, device=device)
    return (first[:, None] + torch.arange(n, device=device)).flatten()
