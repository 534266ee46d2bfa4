"""Names of Swin transformers: those of timm, of the authors and detectron2, and of mmdetection.

Composing a config imports this file, so torch is not imported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from segsweep.model.backbones.names import from_mmpretrain, substituted

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

# parts of the authors' names and of timm's, which merges patches at the start of the next stage
MERGING = [(f"layers.{i}.downsample.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)]
INDEX = "relative_position_index"
COMPUTED = (INDEX, "attn_mask")  # of the sizes of windows and images
MMDETECTION = [(r"^stages\.", "layers."), (r"\.attn\.w_msa\.", ".attn.")]
MMDETECTION_SIGN = "stages.0.blocks.0.attn.w_msa.qkv.weight"


def from_others(state: State) -> State:
    """Give weights of the authors, detectron2, mmdetection or MMPretrain timm's names and order."""
    state = _from_mmdetection(state)
    if any(name.startswith(MERGING[-1][0]) for name in state):
        state = substituted(state, [(f"^{re.escape(theirs)}", ours) for theirs, ours in MERGING])
    return {name: tensor for name, tensor in state.items() if not name.endswith(COMPUTED)}


def _from_mmdetection(state: State) -> State:
    """Give weights of mmdetection or MMPretrain the authors' names and order; others pass."""
    if MMDETECTION_SIGN not in state:
        return state
    renamed = from_mmpretrain(state, MMDETECTION)
    return {n: _in_order(t) if ".downsample." in n else t for n, t in renamed.items()}


def _in_order(weight: Tensor) -> Tensor:
    """Bring the 4 C inputs of a merging of 2 x 2 cells into the authors' order.

    mmdetection has the cells of a channel behind each other, row by row; the authors have the
    channels of a cell behind each other, column by column of cells. (..., 4 C) -> (..., 4 C)
    """
    by_channel = weight.unflatten(-1, (-1, 4))
    return by_channel.transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2)
