"""What words of a model family name: all layers of a kind, found by their classes instead."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.model.layers.attention import Attention
from segsweep.peft.sites import match

PARTS = {
    "maskdino_tiny": ("digits", "sem_seg_head."),
    "seem_tiny": ("digits", "sem_seg_head."),
    "sam_tiny": ("digits_semantic", "backbone."),
}
ROLES = ("linears", "norms", "ffn")


@pytest.mark.parametrize("word", PARTS)
def test_linear_layers_and_norms_are_those_of_all_layers(word: str) -> None:
    """A layer is one of many with a norm; the text encoder has such, too, but is none of them."""
    data, part = PARTS[word]
    family = compose([f"model={word}", f"data={data}"]).model
    with torch.device("meta"):
        model = family.build(Subject(("crate", "bottle"), family.tasks[0]))
    linears, norms = set(), set()
    for name, layer in model.named_modules():
        numbered = name.startswith(part) and re.search(r"\.\d+$", name)
        if not numbered or not any(type(child) is nn.LayerNorm for child in layer.children()):
            continue
        for inner, module in layer.named_modules(prefix=name):
            if isinstance(module, nn.Linear | Attention):
                weight = "weight" if isinstance(module, nn.Linear) else "in_proj_weight"
                linears.add(f"{inner}.{weight}")
            if isinstance(module, nn.LayerNorm):
                norms |= {f"{inner}.weight", f"{inner}.bias"}
    named = {role: {site.name for site in match(model, family.roles[role])} for role in ROLES}
    assert named["linears"] == {name for name in linears if "lang_encoder" not in name}
    assert named["norms"] >= {name for name in norms if "lang_encoder" not in name}
    assert all(re.search(r"_norm\.\w+$", name) for name in named["norms"] - norms)
    assert named["ffn"] == {name for name in named["linears"] if re.search(r"(linear|fc)\d", name)}
