"""Detectors with masks of the package transformers: RF-DETR-Seg, lent whole as `model/hf.py` does.

They tell boxes beside masks, classes one by one, and train groups of queries of which the first
one answers (Chen 2023, arXiv:2207.13085).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from segsweep.model.hf import HF, NETWORK

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from segsweep.data.base import Subject
    from segsweep.model.heads.hf import HFHead
    from segsweep.model.heads.query import Reader
    from segsweep.model.segmenter import Segmenter

GROUPS = 13  # of queries, in every published model; `options.group_detr` may be fewer
PRIOR = -math.log(99)  # a class is there with p = 0.01 before anything is learnt (Lin 2017)
CLASSIFIERS = (
    f"{NETWORK}model.class_embed",
    *(f"{NETWORK}model.model.enc_out_class_embed.{group}" for group in range(GROUPS)),
)


@dataclass
class HFDetr(HF):
    """An RF-DETR-Seg of transformers under our interface.

    Its sides are those of its backbone's configuration: squares, as windows of attention are cut.
    """

    sign: ClassVar[str] = "query_features_proj.weight"
    tasks: ClassVar[tuple[str, ...]] = ("instances",)
    class_tensors: ClassVar[tuple[str, ...]] = tuple(
        f"{layer}.{name}" for layer in CLASSIFIERS for name in ("weight", "bias")
    )

    @property
    def side(self) -> int | None:
        """The side of images that the model takes."""
        return self.configuration.get("backbone_config", {}).get("image_size")

    @property
    def head(self) -> type[HFHead]:
        """The head of boxes and masks."""
        from segsweep.model.heads.hf_detr import HFDetrHead

        return HFDetrHead

    def reader(self, subject: Subject) -> Reader:
        """Return what reads the queries: scores are those of the classes alone, as published."""
        from segsweep.loss.classes import Focal
        from segsweep.model.heads import query

        return query.reader(subject, Focal(), self.topk, focus_on_box=True)

    def side_of(self, config: PreTrainedConfig) -> int:
        """Return the side of images that the backbone is for."""
        return config.backbone_config.image_size

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        """Draw the classes of all groups anew, each rare before anything is learnt."""
        import torch

        draws, parameters = torch.Generator().manual_seed(seed), dict(model.named_parameters())
        with torch.no_grad():
            for name in self.class_tensors:
                if (parameter := parameters.get(name)) is None or parameter.is_meta:
                    continue
                if parameter.dim() == 1:
                    parameter.fill_(PRIOR)
                else:
                    bound = parameter.shape[1] ** -0.5
                    parameter.uniform_(-bound, bound, generator=draws)
