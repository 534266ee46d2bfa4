"""Swin transformers that agree with those of detectron2-style detectors in padding and norms."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import names
from segsweep.model.backbones.base import State, Step
from segsweep.model.backbones.host import Forward, Grid, Host, as_map, halved
from segsweep.model.backbones.swin_names import from_others
from segsweep.model.backbones.timm import create
from segsweep.model.layers.block import WindowBlock, joined, windows

BLOCKS = True
OUTPUT_NORMS = True
SIGN = r"(layers|stages)\.0\.blocks\.0\..*relative_position_bias_table$"
SMALL = {
    "name": "swin_tiny_patch4_window7_224",
    "kwargs": {"img_size": 16, "embed_dim": 8, "depths": [2] * 4, "num_heads": [1, 1, 2, 2]}
    | {"window_size": 4},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> SwinFeatures:
    """Build timm's model of a name, or with all sizes in kwargs; raises as `timm.create`."""
    sizes = {"strict_img_size": False, "always_partition": True, "drop_path_rate": drop_path}
    swin = create(name, pretrained, **{**sizes, **kwargs})
    if not isinstance(swin, SwinTransformer):
        raise UserError(
            f"model.backbone.name={name} is no Swin transformer, as model.backbone.layout=swin "
            "wants; choose for example swin_tiny_patch4_window7_224, or SwinTransformer with all "
            "sizes in model.backbone.kwargs"
        )
    return SwinFeatures(swin)


def weights(state: State, backbone: SwinFeatures, repatch: str = "") -> State:
    """Find the weights in a file of the authors, timm, detectron2 or mmdetection.

    Norms of the outputs are a detector's; a classifier has one of the last map, which is left.
    Raises UserError for other models.
    """
    found = from_others(names.alone(state))
    norms = {f"norm{i}.weight" for i in range(len(backbone.channels))}
    if not norms <= found.keys():
        found = {n: t for n, t in found.items() if n.replace("bias", "weight") not in norms}
    return names.taken(found, backbone, state)


class SwinFeatures(Host):
    """A timm Swin transformer with a norm for every output, as in detectron2-style detectors.

    Beside the entries of any host, a state holds the last tokens of each stage but the last one,
    `stage0` and so on. Prompts go through a merging of patches as four copies of themselves (Jia
    et al. 2022, VPT).
    """

    def __init__(self, swin: SwinTransformer):
        super().__init__(swin.patch_embed, swin.num_features)
        self.channels = [int(info["num_chs"]) for info in swin.feature_info]
        self.strides = [int(info["reduction"]) for info in swin.feature_info]
        self.layers = nn.ModuleList(swin.layers)
        for stage in self.layers:
            blocks = stage.get_submodule("blocks").children()
            stage.add_module("blocks", nn.ModuleList(SwinBlock(block) for block in blocks))
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def trunk(self) -> list[Step]:
        """Return a step per block, and one per merging of patches."""
        steps, index = [], count()
        for i, stage in enumerate(self.layers):
            if i:
                merging = stage.get_submodule("downsample")
                steps.append(Step((merging,), partial(self._merge, merging, i)))
            for block in stage.get_submodule("blocks").children():
                run = partial(self.pass_block, block, next(index), stage=i)
                steps.append(Step((block,), run))
        return steps

    def _merge(self, merging: nn.Module, stage: int, state: State) -> State:
        tokens, x = self.tokens(state, stage=stage - 1), state["x"]
        prompts, cells = x[:, : tokens.prefix], x[:, tokens.prefix :].unflatten(1, tokens.grid)
        prompts = merging.get_submodule("reduction")(
            merging.get_submodule("norm")(prompts.repeat(1, 1, 4))
        )
        merged = joined(prompts, merging(cells).flatten(1, 2))
        return Forward({**state, "x": merged, f"stage{stage - 1}": x}, tokens.computed)

    def tail(self) -> tuple[nn.Module, ...]:
        """Return the output norms."""
        return tuple(self.get_submodule(f"norm{i}") for i in range(len(self.channels)))

    def read(self, x: Tensor, state: State) -> list[Tensor]:
        """(B, P + H W, C) of each stage -> maps (B, C_i, H_i, W_i)"""
        stages = [state[f"stage{i}"] for i in range(len(self.channels) - 1)]
        return [
            as_map(norm(y), halved(state["embedded"], i))
            for i, (norm, y) in enumerate(zip(self.tail(), [*stages, x], strict=True))
        ]


class SwinBlock(WindowBlock):
    """A block with a relative position bias, and a mask where shifted windows have two sides.

    Maps are padded to whole windows before the shift; timm shifts first and pads then, which mixes
    other cells at the border.
    """

    def __init__(self, block: nn.Module):
        sizes: Any = block
        super().__init__(block, sizes.window_size, sizes.shift_size)

    def bias(self, q: Tensor, grid: Grid, whole: Grid) -> Tensor:
        """Bias by relative position, -100 across the border. -> (B' or 1, heads, H W, H W)"""
        index = self.attn.relative_position_index
        bias = self.attn.relative_position_bias_table[index].permute(2, 0, 1)[None]
        if not any(self.shift):
            return bias
        bias = bias + self._mask(whole, q).unsqueeze(1)
        return bias.repeat(len(q) // len(bias), 1, 1, 1)

    def _mask(self, whole: Grid, like: Tensor) -> Tensor:
        """0 between cells that were neighbours before the shift, else -100. -> (nW, N, N)"""
        rows, columns = map(_strips, whole, self.window, self.shift)
        cells = (3 * rows[:, None] + columns).to(like.device)
        regions = windows(cells[None, ..., None], self.window)
        return (regions != regions.transpose(1, 2)).to(like.dtype) * -100

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Queries, keys, values (B', heads, N, C / heads) -> mixed values; step by step, as timm"""
        logits = (q * self.attn.scale) @ k.transpose(-2, -1)
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        return self.attn.attn_drop(weights) @ v


def _strips(size: int, window: int, shift: int) -> Tensor:
    """Number the strips of an axis that a shift leaves beside each other: 0, 1 or 2 per cell."""
    cells = torch.arange(size)
    return (cells >= size - window).long() + (cells >= size - shift)
