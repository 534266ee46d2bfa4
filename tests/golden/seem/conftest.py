"""Outputs of the released SEEM, and heads of ours with the same weights.

Every dimension is read from the files, so any set of the same form can be put in their place.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded import FOLDER, HEAD, Recorded
from torch import Tensor

from segsweep.model.family import MAPS
from segsweep.model.heads.language import LanguageEncoder
from segsweep.model.heads.query import QueryHead
from segsweep.model.seem import SEEM, Text


class Golden(Recorded):
    """The folder of golden files of SEEM."""

    @property
    def config(self) -> dict[str, Any]:
        """Dimensions of the tiny model."""
        return self.json("tiny_config")

    def features(self, name: str = "pixel_decoder") -> list[Tensor]:
        """Maps of the backbone that a file holds."""
        return [self.arrays(name)[level] for level in MAPS]

    def family(self, **changes: Any) -> SEEM:
        """The config of the tiny model behind its backbone."""
        pixel, predictor, text = (
            self.config[part] for part in ("pixel_decoder", "predictor", "text")
        )
        assert pixel["mask_dim"] == predictor["mask_dim"]
        dims = {
            "hidden": predictor["hidden_dim"],
            "conv_dim": pixel["conv_dim"],
            "mask_dim": predictor["mask_dim"],
            "proj": predictor["dim_proj"],
            "queries": predictor["num_queries"],
            "encoder_layers": pixel["enc_layers"],
            "encoder_heads": pixel["heads"],
            "encoder_ffn": pixel["dim_feedforward"],
            "decoder_layers": predictor["decoder_layers"],
            "decoder_heads": predictor["heads"],
            "decoder_ffn": predictor["dim_feedforward"],
            "points": self.config["loss"]["num_points"],
            "no_object": self.config["loss"]["eos_coef"],
            "topk": self.config["topk_per_image"],
            "text": Text(
                *(text[key] for key in ("vocab", "context_length", "width", "heads", "layers"))
            ),
        }
        return SEEM(**{**dims, **changes})

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Token ids of the classes for training, one text each, and for evaluation."""
        recorded = self.arrays("text_encoder")
        return recorded["input_ids"].long()[:, None], recorded["eval_template_input_ids"].long()

    def head(self, text: Tensor | None = None) -> QueryHead:
        """The head with the recorded weights, in evaluation mode.

        It compares with the recorded embeddings `text` (K+1, P), or with those of its own prompts.
        """
        head = self._head()
        head.load_state_dict(self.state("tiny_state_dict", "sd/" + HEAD))
        if text is not None:
            head.predictor.lang_encoder.register_forward_hook(lambda *call: text)
        return head.eval()

    def language(self) -> LanguageEncoder:
        """The text encoder without weights."""
        return self._head().predictor.lang_encoder

    def _head(self) -> QueryHead:
        channels = [level.shape[1] for level in self.features()]
        return self.family().head(channels, *self.prompts())

    def check(self, actual: Tensor, expected: Tensor) -> None:
        """Compare within the tolerance of float32 results."""
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)

    def check_gradient(self, actual: Tensor, expected: Tensor) -> None:
        """Compare within the tolerance of gradients, relative to the largest."""
        atol = 2e-4 * (1 + expected.abs().max().item())
        torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden files of SEEM; without them the test is skipped."""
    return Golden(FOLDER / "seem")
