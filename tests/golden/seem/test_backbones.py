"""timm's FocalNets with SEEM's weights give SEEM's maps, and every name maps both ways."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.model.family import MAPS, BackboneConfig
from segsweep.model.seem import PROMPTS, SEEM, from_official, to_official

pytestmark = pytest.mark.golden


def sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What timm's FocalNet is told, read off the official backbone's weights."""
    layers = [name.split(".") for name in state if name.startswith("layers.")]
    stages = range(1 + max(int(parts[1]) for parts in layers))
    block = [f"layers.{i}.blocks.0." for i in stages]
    levels = [sum(name.startswith(f"{b}modulation.focal_layers.") for name in state) for b in block]
    width = len(state["patch_embed.proj.weight"])
    return {
        "embed_dim": width,
        "depths": [
            1 + max(int(p[3]) for p in layers if p[1:3] == [str(i), "blocks"]) for i in stages
        ],
        "focal_levels": levels,
        "focal_windows": [state[f"{b}modulation.focal_layers.0.0.weight"].shape[-1] for b in block],
        "mlp_ratio": len(state[f"{block[0]}mlp.fc1.weight"]) / width,
        "use_post_norm": True,
        "use_overlap_down": True,
        "layerscale_value": 1e-4,
        "normalize_modulator": True,
    }


def family(golden) -> SEEM:
    """The config of the recorded tiny model with its backbone."""
    backbone = sizes(golden.state("tiny_state_dict", "sd/backbone."))
    chosen = BackboneConfig("FocalNet", "focal", backbone)
    return golden.family(backbone=chosen, own_templates=["{}"])


def own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    mapped = from_official({f"backbone.{name}": tensor for name, tensor in state.items()})
    return {name.removeprefix("backbone."): tensor for name, tensor in mapped.items()}


@torch.no_grad()
@pytest.mark.parametrize(
    ("layout", "file", "weights", "prefix"),
    [
        ("focal", "backbone", "tiny_state_dict", "sd/backbone."),
        ("focal_dw", "backbone_focal_dw", "backbone_focal_dw", "sd/"),
    ],
)
def test_maps(golden, layout, file, weights, prefix):
    state, expected = golden.state(weights, prefix), golden.arrays(file)
    backbone = BackboneConfig("FocalNet", layout, sizes(state)).build()
    assert backbone.channels == [expected[name].shape[1] for name in MAPS]
    backbone.load_state_dict(own(state))
    for name, feature in zip(MAPS, backbone.eval()(expected["input"]), strict=True):
        golden.check(feature, expected[name])


def test_input_is_normalised_and_padded_to_32(golden):
    """The recorded batch, made from its images as ours are; so no other sizes reach a backbone."""
    arrays, config = golden.arrays("backbone"), golden.config
    images = [arrays[name] for name in arrays if re.fullmatch(r"image\d+", name)]
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("pixel_mean", "pixel_std"))
    expected = arrays["input"]
    for image, row in zip(images, expected, strict=True):
        height, width = image.shape[1:]
        golden.check(row[:, :height, :width], (image.float() - mean) / std)
        assert not row[:, height:].any()
        assert not row[:, :, width:].any()
    sides = [max(image.shape[axis] for image in images) for axis in (1, 2)]
    assert list(expected.shape[2:]) == [-(-side // 32) * 32 for side in sides]


def on_meta(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in state.items()}


def test_names_and_shapes_of_timm(golden):
    recorded = golden.json("focalnet_large_timm_map")["map"]
    ours = from_official(on_meta({name: entry["shape"] for name, entry in recorded.items()}))
    named = [entry for entry in recorded.values() if entry["timm"]]
    expected = {f"backbone.{entry['timm']}": entry["timm_shape"] for entry in named}
    expected |= {n: e["shape"] for n, e in recorded.items() if not e["timm"]}  # output norms
    assert shapes(ours) == expected


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("seem_focall", "seem_focall_v1"),
        ("seem_focall", "seem_focall_v1.finetune_1cls"),
        ("seem_focalt", "seem_focalt_v1"),
    ],
)
def test_names_shapes_and_counts(golden, word, file):
    recorded = golden.json(f"{file}.keys")
    keys, counts = recorded["state_dict"], recorded["counts"]
    classes = [f"class {i}" for i in range(keys["criterion.empty_weight"][0] - 1)]
    with torch.device("meta"):
        model = compose([f"model={word}"]).model.build(Subject(classes))
    prompts = {name: shape for name, shape in keys.items() if name in PROMPTS}
    assert shapes(to_official(model)) | prompts == keys
    assert shapes(from_official(on_meta(keys))) == shapes(model.state_dict())

    count = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_modules()}
    head, spatial = "sem_seg_head", sum(math.prod(shape) for shape in prompts.values())
    assert count[""] + spatial == counts["total_parameters"]
    assert count["backbone"] == counts["backbone"]
    assert count[head] + spatial == counts["sem_seg_head (full head)"]
    assert count[f"{head}.pixel_decoder"] == counts["pixel_decoder"]
    for part in ("transformer_self_attention_layers", "mask_embed", "query_feat", "level_embed"):
        assert count[f"{head}.predictor.{part}"] == counts[f"predictor.{part}"]
    text = next(n for key, n in counts.items() if key.startswith("predictor.lang_encoder (incl"))
    assert count[f"{head}.predictor.lang_encoder"] == text


def test_official_names_come_back(golden):
    """Weights -> our names -> official names: every tensor as it was."""
    state = golden.state("tiny_state_dict")
    names = [f"class {i}" for i in range(len(state["criterion.empty_weight"]) - 1)]
    model = family(golden).build(Subject(names))
    model.load_state_dict(from_official(state))
    back = to_official(model)
    assert back.keys() == state.keys()
    assert all(back[name].equal(tensor) for name, tensor in state.items())
