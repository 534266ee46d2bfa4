"""Pretrain the tiny SAM by prompts on the source domain of the embedded digits (`make base`).

As SAM is trained (Kirillov 2023, appendix A), in small: an object of a scene is asked for by a
point on it or by a loose box, half of the time once more, with the mask found so far and a point
where it is wrong. The loss is that of the first mask and of the best of the other three, beside the
square error of their rated quality; cross entropy stands in for focal loss, which is slow to find
thin strokes. The file is a whole SAM under segment_anything's names: prompts and all mask tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pretrain_tiny import arguments, pretrain, recolour, words, write
from torch import Tensor

from segsweep.base.config import compose
from segsweep.data.base import DataSet
from segsweep.data.loader import Batch, EvalLoader, Target
from segsweep.model.whole_sam import WholeSAM

RECIPES = {
    "sam_tiny": {
        "steps": 2500, "batch": 8, "scenes": 8000, "lr": 1e-3, "warmup": 100, "clip": 1.0,
    },
}  # fmt: skip
OVERRIDES = (
    "model.weights=null data=digits_semantic hparams.schedule=cosine hparams.weight_decay=0.01 "
    "hparams.backbone_lr=1.0"
)
OBJECTS = 4  # of a scene that are asked for in a step
BOX, AGAIN = 0.3, 0.5  # how often a box asks, how often there is a second time
LOOSE = 2.0  # pixels, standard deviation of the sides of a box
ENTROPY = 5.0  # weight of the cross entropy beside dice


def prompted_loss(model: WholeSAM, images: Tensor, targets: Sequence[Target]) -> Tensor:
    """Ask for objects of each image once or twice, and compare what is found with them."""
    (embedding,) = model.backbone(images)
    chosen = [torch.randint(len(t.masks), (OBJECTS,)) for t in targets]
    truth = torch.cat([t.masks[k] for t, k in zip(targets, chosen, strict=True)])
    embedding = embedding.repeat_interleave(OBJECTS, dim=0)
    prompts = {"boxes": boxes_of(truth)} if torch.rand(()) < BOX else points_on(truth, truth)
    size = (images.shape[2], images.shape[3])
    masks, quality = model.decode(embedding, size, **prompts)
    loss, best = compared(masks, quality, truth)
    if torch.rand(()) < AGAIN:
        seen = F.interpolate(best, size, mode="bilinear")[:, 0] > 0
        wrong = seen ^ truth
        more = points_on(torch.where(wrong.any((1, 2), keepdim=True), wrong, truth), truth)
        more = {k: torch.cat([prompts.get(k, v[:, :0]), v], dim=1) for k, v in more.items()}
        masks, quality = model.decode(embedding, size, **{**prompts, **more}, masks=best)
        loss = loss + compared(masks, quality, truth)[0]
    return loss


def points_on(where: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Draw a point of each region (P, H, W) bool, its label says whether the object is there."""
    place = torch.multinomial(where.flatten(1).float().cpu(), 1).to(where.device)  # (P, 1)
    labels = truth.flatten(1).gather(1, place).float()
    width = where.shape[2]
    return {"points": torch.stack([place % width, place // width], dim=2).float(), "labels": labels}


def boxes_of(masks: Tensor) -> Tensor:
    """Draw loose boxes around objects. (P, H, W) bool -> (P, 4) x1, y1, x2, y2"""
    corners = []
    for axis in (1, 2):  # columns, rows
        there = masks.any(axis)
        place = torch.arange(there.shape[1], device=masks.device)
        corners.append((torch.where(there, place, 10**6).amin(1), (there * place).amax(1)))
    (x1, x2), (y1, y2) = corners
    boxes = torch.stack([x1, y1, x2, y2], dim=1).float()
    return boxes + LOOSE * torch.randn(boxes.shape).to(boxes.device)


def compared(masks: Tensor, quality: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of masks (P, 4, h, w), and the best of the last three (P, 1, h, w).

    `quality` (P, 4) is what the IoU of each mask is said to be, `truth` (P, H, W) the objects.
    """
    truth = F.interpolate(truth[:, None].float(), masks.shape[2:], mode="area").expand_as(masks)
    entropy = F.binary_cross_entropy_with_logits(masks, truth, reduction="none").mean((2, 3))
    p = masks.sigmoid()
    dice = 1 - (2 * (p * truth).sum((2, 3)) + 1) / ((p + truth).sum((2, 3)) + 1)
    loss = ENTROPY * entropy + dice
    best = loss[:, 1:].argmin(1, keepdim=True) + 1
    rated = (quality - iou(masks.detach(), truth)).square().mean()
    kept = masks.detach().gather(1, best[..., None, None].expand(-1, 1, *masks.shape[2:]))
    return loss[:, 0].mean() + loss.gather(1, best).mean() + rated, kept


def iou(masks: Tensor, truth: Tensor) -> Tensor:
    """IoU of masks by their logits with objects. 2 x (P, M, h, w) -> (P, M)"""
    found, there = masks > 0, truth >= 0.5
    both, either = ((found & there).sum((2, 3)), (found | there).sum((2, 3)))
    return both / either.clamp(min=1)


@torch.no_grad()
def score(data: DataSet, model: WholeSAM, device: str) -> float:
    """Return the mean IoU of the masks rated best, by one point on an object of val, in %."""
    torch.manual_seed(0)
    values = []
    for batch in EvalLoader(data, "val", 1):
        batch = batch.to(device)
        truth = batch.targets[0].masks
        image = batch.images.expand(len(truth), -1, -1, -1)
        masks, quality = model(image, **points_on(truth, truth))
        best = quality[:, 1:].argmax(1, keepdim=True) + 1
        masks = F.interpolate(masks, truth.shape[1:], mode="bilinear")
        values.append(iou(masks, truth[:, None].float()).gather(1, best))
    return 100 * torch.cat(values).mean().item()


def main() -> None:
    """Train, write the weights, print what they reach."""
    a = arguments(RECIPES)
    config = compose([*OVERRIDES.split(), *words(a)])
    config.data = compose(["data=digits", "data.domain=source", f"data.train={a.scenes}"]).data
    torch.manual_seed(config.seed)
    model = config.model.whole()

    def loss_of(batch: Batch) -> Tensor:
        return prompted_loss(model, recolour(batch.images), batch.targets)

    pretrain(model, loss_of, config, a)
    value = score(config.data, model, a.device)
    print(f"IoU by one point on val of the source domain: {value:.2f}")
    write(a, model.official(), {"source_point_IoU": f"{value:.2f}"})


if __name__ == "__main__":
    main()
