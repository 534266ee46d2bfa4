"""Recorded tensors of fine-tuning methods, brought into models of ours through `apply`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor, nn

from segsweep.model.family import Roles
from segsweep.peft.apply import apply
from segsweep.peft.delta import delta_state_dict
from segsweep.peft.method import Method

Names = Sequence[tuple[str, str]]  # patterns of official names and what stands for them in ours
ADAPTER_NAMES = [
    (r"(pixel_)?decoder_self_(attn|attention)_adapter", "after_self_attn"),
    (r"decoder_cross_(attn|attention)_adapter", "after_cross_attn"),
    (r"adapters\.(\d+)\.adapter_down\.0", r"filling.\1.down"),
    (r"adapters\.(\d+)\.adapter_up", r"filling.\1.up"),
]
LORA_NAMES = [(r"qv_lora_(.)", r"in_proj_weight.lora_\1"), (r"w_lora_(.)", r"weight.lora_\1")]


def ours(name: str, names: Names) -> str:
    """Our name of an official one."""
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def put(model: nn.Module, tensors: dict[str, Tensor], names: Names, prefix: str = "") -> None:
    """Fill all that a method added with recorded tensors, each exactly once."""
    delta = delta_state_dict(model)
    for name, tensor in tensors.items():
        delta.pop(prefix + ours(name, names)).copy_(tensor)
    assert not delta


def wrapped(attribute: str, module: nn.Module, method: Method, roles: Roles) -> nn.Module:
    """Apply a method to a part that stands in the model under its name."""
    model = nn.Module()
    model.add_module(attribute, module)
    apply(model, method, roles)
    return model.eval()
