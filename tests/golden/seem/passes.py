"""One pass through a head, and everything in it that the released program's recordings hold."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from segsweep.model.necks.pixel_decoder import PixelFeatures

PREDICTOR = r"predictor.transformer_{}_layers.\1"
STREAMS = {  # recorded with the tokens first, and the module that gives them
    r"enc_layer(\d+)": r"pixel_decoder.transformer.encoder.layers.\1",
    r"layer(\d+)/cross_out": PREDICTOR.format("cross_attention"),
    r"layer(\d+)/self_out": PREDICTOR.format("self_attention"),
    r"layer(\d+)/ffn_out": PREDICTOR.format("ffn"),
}
KINDS = [r"(aux\d+/)?pred_(logits|masks)", r"mask_features|multi_scale_\d|pos_res5"]
KINDS += [r"transformer_encoder_features", *STREAMS]
KINDS += [r"layer\d+/cross_(mask|attn_weights)", r"level\d/(memory|pos)"]
RECORDED = f"({'|'.join(KINDS)})"


class Pass:
    """A head's outputs and those of its parts, by their recorded names.

    `features` are the maps of the backbone, or what the pixel decoder makes of them; `targets` say
    that the pass is one of training.
    """

    @torch.no_grad()
    def __init__(self, head: Any, features: list[Tensor] | PixelFeatures, targets: Any = None):
        self.head = head
        self.heard: dict[str, tuple[tuple, Any]] = {}
        hooks = [m.register_forward_hook(self._note(name)) for name, m in head.named_modules()]
        whole = isinstance(features, list)
        self.output = (head if whole else head.predictor)(features, targets)
        self.pixel = self.heard["pixel_decoder"][1] if whole else features
        self.levels = head.predictor.levels(self.pixel)
        for hook in hooks:
            hook.remove()

    def _note(self, name: str) -> Any:
        def note(module: nn.Module, inputs: tuple, output: Any) -> None:
            self.heard[name] = inputs, output

        return note

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        """What is recorded under a name that is one of RECORDED."""
        for pattern, module in STREAMS.items():
            if re.fullmatch(pattern, name):
                return self.heard[re.sub(pattern, module, name)][1].transpose(0, 1)
        place, _, what = name.rpartition("/")
        number = int(re.sub(r"\D", "", place or what) or -1)
        if what == "pred_logits":
            return self.output.matching.logits[number]
        if what == "pred_masks":
            factors = self.output.matching.embeddings[number], self.output.mask_features
            return torch.einsum("bqc,bchw->bqhw", *factors)
        if what.startswith("multi_scale"):
            return self.pixel.levels[number]
        if what == "mask_features":
            return self.pixel.mask_features
        if place.startswith("level"):
            return self._of_level(number, what)
        if place.startswith("layer"):
            return self._of_attention(number, what)
        return self._of_encoder(what)

    def _of_level(self, number: int, what: str) -> Tensor:
        level = self.levels[number]
        tokens = {"memory": level.memory, "pos": level.keys - level.memory}[what]
        return tokens.transpose(0, 1)

    def _of_attention(self, number: int, what: str) -> Tensor:
        """The mask of a cross attention, True where it sees nothing, or its mean weights."""
        name = f"predictor.transformer_cross_attention_layers.{number}.multihead_attn"
        (query, key, value, blocked), attended = self.heard[name]
        if what == "cross_mask":
            return blocked[:, 0]
        ours = self.head.get_submodule(name)
        theirs = nn.MultiheadAttention(query.shape[-1], ours.heads, batch_first=True)
        theirs.load_state_dict(ours.state_dict())
        mask = blocked.expand(-1, ours.heads, -1, -1).flatten(0, 1)
        again, weights = theirs.eval()(query, key, value, attn_mask=mask)
        torch.testing.assert_close(attended, again, atol=1e-5, rtol=1e-5)
        return weights

    def _of_encoder(self, what: str) -> Tensor:
        """The tokens of the coarsest map behind the encoder, or their places, as a map."""
        (_, position), tokens = self.heard["pixel_decoder.transformer.encoder"]
        wanted = {"transformer_encoder_features": tokens, "pos_res5": position.expand_as(tokens)}
        return wanted[what].transpose(1, 2).unflatten(2, self.pixel.levels[0].shape[-2:])
