"""Weights of backbones in files of others: found by their names, brought to ours, or refused.

A layout whose backbones others call otherwise has a function of its own,

    weights(state, backbone, repatch) -> state

which is given all that a file holds, maybe a neck, heads and a prefix, too, and a backbone that was
built, and returns what is of the backbone under its names, without a prefix. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.model.backbones import layouts

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = dict[str, Tensor]

PATCHES = "patch_embed.proj.weight"
COUNTER = "num_batches_tracked"  # of batch norms, which frozen ones have not
Rules = Sequence[tuple[str, str]]

# patterns of names in MMPretrain and mmdetection, and what timm has in their place
MMPRETRAIN = [
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^ln1\.", "norm."),
    (r"^layers\.(?=\d+\.(ln|attn|ffn))", "blocks."),
    (r"\.ln([12])\.", r".norm\1."),
    (r"\.(attn|ffn)\.gamma([12])\.weight$", r".ls\2.gamma"),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
]
MMPRETRAIN_SIGN = "patch_embed.projection.weight"


def weights(state: State, backbone: nn.Module, repatch: str = "") -> State:
    """Find the weights of a backbone under timm's names, as they are or behind `backbone.`.

    timm calls the modules of a network of features `stages_0` that are `stages.0` in its files.
    """
    own = {_plain(name): name for name in backbone.state_dict()}
    found = {own.get(_plain(name), name): tensor for name, tensor in alone(state).items()}
    return taken(found, backbone, state)


def alone(state: State) -> State:
    """Leave what is of the backbone, by the prefix of whole models, without the prefix."""
    for prefix in ("backbone.bottom_up.", "backbone."):
        if any(name.startswith(prefix) for name in state):
            return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    return state


def substituted(state: State, rules: Rules) -> State:
    """Replace each pattern in all names, from top to bottom."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed


def from_mmpretrain(state: State, rules: Rules = ()) -> State:
    """Give names of MMPretrain, also by further `rules`, those of timm; others pass."""
    return substituted(state, [*rules, *MMPRETRAIN]) if MMPRETRAIN_SIGN in state else state


def taken(found: State, backbone: nn.Module, file: State) -> State:
    """Leave the weights in modules that the backbone has; what a classifier has beside is dropped.

    Args:
        found: weights under our names.
        backbone: whose weights they should be.
        file: what they were found in, by its own names.

    Raises:
        UserError: they are of a backbone of another kind or size.
    """
    own = backbone.state_dict()
    theirs, ours = layout_of(file), layout_of(own)
    if (own and not own.keys() & found.keys()) or (theirs and ours and theirs != ours):
        known, first = f"those of model.backbone.layout={theirs}", ", ".join(list(file)[:3])
        raise UserError(
            "model.weights: the file holds no backbone such as the model has (its names are "
            f"{known if theirs else f'{first}, ...'}); choose weights of such a one, or another "
            "model.backbone"
        )
    transformer = all(any(n.endswith(PATCHES) for n in names) for names in (own, found))
    if transformer and sizes(found) != sizes(own):
        raise UserError(
            f"model.weights: the file has {sizes(found)}, the backbone of the model {sizes(own)}; "
            "choose weights of this size, or model.backbone.name and kwargs of that one"
        )
    modules = {_module(name) for name in own}
    counted = any(name.endswith(COUNTER) for name in own)
    return {
        name: tensor
        for name, tensor in found.items()
        if _module(name) in modules and (counted or not name.endswith(COUNTER))
    }


def sizes(state: State) -> str:
    """Say the sizes of a transformer under our names in words."""
    blocks = sum(name.endswith(".norm1.weight") for name in state)
    shape = next(tensor.shape for name, tensor in state.items() if name.endswith(PATCHES))
    tokens = [tensor.shape[1] for name, tensor in state.items() if name.endswith("reg_token")]
    patch, registers = " x ".join(map(str, shape[2:])), tokens[0] if tokens else 0
    return f"{blocks} blocks of {shape[0]} channels, patches of {patch}, {registers} registers"


def layout_of(names: Iterable[str]) -> str:
    """Return the layout whose `SIGN`, a pattern of names, such names have; "" if none is known."""
    held = list(names)
    for layout in layouts():
        sign = getattr(import_module(f"segsweep.model.backbones.{layout}"), "SIGN", None)
        if sign and any(re.search(sign, name) for name in held):
            return layout
    return ""


def _module(name: str) -> str:
    first = name.removeprefix("model.").partition(".")[0]
    return re.sub(r"_\d+$", "", first)


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace("_", ".")
