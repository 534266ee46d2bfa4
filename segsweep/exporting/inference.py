"""A model as a program: pixels in, the raw outputs of its head out; and how two compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.data.base import DataSet
from segsweep.data.geometry import DIVISOR, evaluation_geometry

if TYPE_CHECKING:
    from segsweep.model.segmenter import Segmenter

Program = Callable[[Tensor], dict[str, Tensor]]
NOISE_SEED = 0


class Inference(nn.Module):
    """The forward pass of evaluation, from pixels on.

    Args:
        model: in evaluation mode.
        data: its mean and deviation of pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter, data: DataSet) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.sem_seg_head
        self.register_buffer("mean", torch.tensor(data.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(data.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """RGB pixels 0..255 (B, 3, H, W), H and W multiples of 32 -> what `Head.tensors` names"""
        return self.head.tensors(self.head(self.backbone((images - self.mean) / self.std)))


def frame(data: DataSet) -> tuple[int, int]:
    """Return height and width that hold every image of evaluation, in multiples of 32."""
    height, width = (
        -(-side // DIVISOR) * DIVISOR for side in data.transform.value.frame(data.size)
    )
    return height, width


def examples(data: DataSet, count: int) -> tuple[Tensor, str]:
    """Return pixels as `Inference` takes them, and what they are. -> (count, 3, H, W) in 0..255

    They are the first validation images, resized as for evaluation and padded with the mean, or
    noise where the data are not here.
    """
    from segsweep.data.transforms import sample

    pixels = torch.tensor(data.mean).view(3, 1, 1).repeat(count, 1, *frame(data))
    try:
        records = data.records("val")[:count]
        for image, record in zip(pixels, records, strict=False):
            bare = replace(record, annotations=[], labels=None)  # the set's own stays whole
            seen = sample(data.image(record), bare, evaluation_geometry(data, record)).image
            image[:, : seen.shape[1], : seen.shape[2]] = seen
        return pixels[: len(records)], f"{len(records)} validation images"
    except UserError:
        generator = torch.Generator().manual_seed(NOISE_SEED)
        return 255 * torch.rand(pixels.shape, generator=generator), f"{count} images of noise"


@torch.no_grad()
def outputs(program: Program, images: Tensor, batch: int = 1) -> dict[str, Tensor]:
    """Run a program on images, so many at a time. (B, 3, H, W) -> outputs of all, by name"""
    batches = [program(chunk) for chunk in images.split(batch)]
    return {name: torch.cat([outputs[name] for outputs in batches]) for name in batches[0]}


def differences(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, float]:
    """Return the largest absolute difference of each output; infinite where one is no number."""
    gaps = {name: (a[name] - b[name]).abs().max() for name in b}
    return {name: float(gap.nan_to_num(nan=torch.inf)) for name, gap in gaps.items()}


def in_words(gaps: dict[str, float]) -> str:
    """Say differences in words."""
    return ", ".join(f"{name} {gap:.1e}" for name, gap in gaps.items())
