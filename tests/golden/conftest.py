"""Outputs of the original programs, and models of ours with the same weights.

Every dimension is read from the files, so any set of the same form can be put in their place.
"""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import torch
from omegaconf import OmegaConf
from recorded import FOLDER, HEAD, ROOT, Recorded
from torch import Tensor

from segsweep.model.family import MAPS
from segsweep.model.maskdino import BoxInit, MaskDINO


class Golden(Recorded):
    """The folder of golden files of Mask DINO."""

    @property
    def config(self) -> dict[str, Any]:
        """Dimensions of the tiny model."""
        return self.manifest["config"]

    def info(self, name: str) -> dict[str, Any]:
        """What the manifest says of a file."""
        return next(f for f in self.manifest["files"] if f["file"] == f"{name}.npz")

    def features(self) -> list[Tensor]:
        """Maps of the backbone, as the head tests feed them."""
        return [self.arrays("model")[f"in/{name}"] for name in MAPS]

    def family(self, state: dict[str, Tensor], **changes: Any) -> MaskDINO:
        """The config that gives a model with the shapes of a state dict."""
        encoder = HEAD + "pixel_decoder.transformer.encoder.layers."
        decoder = HEAD + "predictor.decoder.layers."
        hidden = len(state[HEAD + "pixel_decoder.adapter_1.norm.weight"])
        dims = {
            "hidden": hidden,
            "mask_dim": len(state[HEAD + "pixel_decoder.mask_features.bias"]),
            "queries": self.config["queries"],
            "encoder_layers": _count(state, encoder),
            "encoder_heads": self.config["heads"],
            "encoder_ffn": len(state[encoder + "0.linear1.bias"]),
            "decoder_layers": _count(state, decoder),
            "decoder_heads": self.config["heads"],
            "decoder_ffn": len(state[decoder + "0.linear1.bias"]),
            "dn_number": self.config["dn_num"],
            "points": self.config["points"],
            "topk": self.config["topk"],
        }
        return MaskDINO(**{**dims, **changes})

    def head(self, name: str = "model", box_init: str = "mask2box", **changes: Any) -> Any:
        """The head with the weights of a file, in evaluation mode."""
        state = self.state(name)
        family = self.family(state, box_init=BoxInit[box_init], **changes)
        classes = len(state[HEAD + "predictor.class_embed.bias"])
        head = family.head(self.config["channels"], classes)
        head.load_state_dict(
            {k.removeprefix(HEAD): v for k, v in state.items() if k.startswith(HEAD)}
        )
        return head.eval()

    def check(self, actual: Tensor, expected: Tensor, kind: str = "default") -> None:
        """Compare within the manifest's tolerance, named by the beginning of its name."""
        tolerances = self.manifest["tolerances"]
        tolerance = next(v for k, v in tolerances.items() if k.startswith(kind))
        torch.testing.assert_close(actual, expected, **tolerance)


def _count(state: dict[str, Tensor], prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max(int(m[1]) for m in map(pattern.match, state) if m)


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden files of Mask DINO; without them the test is skipped."""
    return Golden(FOLDER / "maskdino")


@pytest.fixture
def features(golden: Golden) -> list[Tensor]:
    """Maps of the backbone at strides 4, 8, 16, 32."""
    return golden.features()


@pytest.fixture(scope="session")
def family() -> Any:
    """The config of a word of conf/model."""

    def load(word: str) -> MaskDINO:
        chosen: Any = OmegaConf.load(ROOT / "conf" / "model" / f"{word}.yaml")
        del chosen["_target_"]
        merged = OmegaConf.merge(OmegaConf.structured(MaskDINO), chosen)
        return cast(MaskDINO, OmegaConf.to_object(merged))

    return load
