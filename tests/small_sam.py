"""A SAM of two blocks for 32 x 32 pixels, of one foreground or of four classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segsweep.data.base import Subject
from segsweep.model.family import BackboneConfig
from segsweep.model.sam import SAM
from segsweep.model.segmenter import Segmenter

ONE = Subject(("polyp",), "semantic")
FOUR = Subject(("a", "b", "c", "d"), "semantic")  # and the background


def family(**changes: Any) -> SAM:
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2}
    sizes |= {"num_heads": 2, "window_size": 3, "global_attn_indexes": [1], "use_rel_pos": True}
    sizes |= {"neck_chans": 16, **changes.pop("kwargs", {})}
    backbone = BackboneConfig("VisionTransformerSAM", "sam", sizes)
    small: dict[str, Any] = {"decoder_heads": 2, "decoder_ffn": 16, "quality_hidden": 8}
    small |= {"name": "sam", "mask_channels": 4, "points": 16}
    return SAM(backbone=backbone, **(small | changes))


def built(subject: Subject, file: str | None, **changes: Any) -> tuple[SAM, Segmenter, Any]:
    chosen = family(weights=file, **changes)
    torch.manual_seed(0)
    model = chosen.build(subject)
    report = chosen.load(model, list(subject.texts), seed=1)
    return chosen, model.eval(), report


def outputs(model: Segmenter) -> Tensor:
    with torch.no_grad():
        images = torch.linspace(-2, 2, 3 * 32 * 32).view(1, 3, 32, 32)
        return torch.cat([t.flatten() for t in model(images) if t is not None])
