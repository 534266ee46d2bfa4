"""Recorded outputs of SAM's programs, and models of ours with the same weights and sizes."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import torch
from recorded import Recorded
from torch import Tensor

from segsweep.data.base import Subject
from segsweep.model.family import BackboneConfig
from segsweep.model.sam import SAM, NormEps
from segsweep.model.sam_names import from_official
from segsweep.model.segmenter import Segmenter
from segsweep.model.whole_sam import WholeSAM

WITHIN: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
PERCENT = re.compile(r">=([\d.]+)% pixels")


class Heads(Recorded):
    """The folder of golden files of heads."""

    def config(self, name: str) -> dict[str, Any]:
        """Dimensions of a file."""
        return self.manifest[name]["config"]

    def check(self, name: str, key: str, actual: Tensor) -> None:
        """Compare with a recorded tensor within the manifest's tolerance."""
        expected, tolerances = self.arrays(name)[key], self.manifest[name]["tolerances"]
        fitting = (t for pattern, t in tolerances.items() if fnmatchcase(key, pattern))
        tolerance: Any = next(fitting, tolerances["default"])
        assert actual.shape == expected.shape, key
        if not isinstance(tolerance, str):
            within = {**WITHIN, **tolerance}
            torch.testing.assert_close(actual, expected, **within, msg=lambda m: f"{key}: {m}")
        elif share := PERCENT.match(tolerance):
            assert 100 * (actual == expected).double().mean() >= float(share[1]), key
        else:
            assert torch.equal(actual.to(expected.dtype), expected), key

    def family(self, **changes: Any) -> SAM:
        """The config that gives a model with the sizes of `sam_tiny`."""
        c = self.config("sam_tiny")
        kwargs = {"img_size": c["img"], "patch_size": c["patch"], "embed_dim": c["dim"]}
        kwargs |= {"depth": c["depth"], "num_heads": c["heads"], "mlp_ratio": c["mlp_ratio"]}
        kwargs |= {"window_size": c["win"], "global_attn_indexes": c["glob"], "use_rel_pos": True}
        sizes = {"decoder_layers": c["ddepth"], "decoder_heads": c["dheads"]}
        sizes |= {"decoder_ffn": c["dmlp"], "quality_hidden": c["iou"], "mask_channels": c["maskc"]}
        backbone = BackboneConfig("VisionTransformerSAM", "sam", {**kwargs, "neck_chans": c["C"]})
        return SAM(name="sam", backbone=backbone, **{**sizes, **changes})

    def whole(self) -> WholeSAM:
        """The whole model with its recorded weights, as segment_anything computes."""
        model = self.family(norm_eps=NormEps["official"]).whole()
        model.load_state_dict(from_official(self.state("sam_tiny")))
        return model.eval()

    def segmenter(self, subject: Subject, **changes: Any) -> Segmenter:
        """The reduced model of a subject with the weights of the whole one, as they are loaded."""
        family = self.family(**changes)
        model = family.build(subject)
        state = family.fitted(family.ours(self.state("sam_tiny")), model)
        entries = model.state_dict()
        model.load_state_dict({n: t for n, t in state.items() if n in entries}, strict=False)
        return model.eval()


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients under our names."""
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
