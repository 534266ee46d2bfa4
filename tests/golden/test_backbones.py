"""timm backbones with mapped weights give detectron2's features, and every name maps both ways."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from segsweep.data.base import Subject
from segsweep.model.family import MAPS, BackboneConfig
from segsweep.model.maskdino import from_official, to_official
from segsweep.model.weights import tensors

pytestmark = pytest.mark.golden
STEM = 64  # channels of timm's plain stem, which cannot be chosen


def own(golden, file: str, layout: str) -> dict[str, Tensor]:
    mapped = from_official(golden.state(file), layout)
    return {name.removeprefix("backbone."): tensor for name, tensor in mapped.items()}


def widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add stem channels that stay 0 and are read with weight 0."""

    def pad(tensor: Tensor, axis: int) -> Tensor:
        shape = list(tensor.shape)
        shape[axis] = STEM - shape[axis]
        return torch.cat([tensor, tensor.new_zeros(shape)], dim=axis)

    readers = ("layer1.0.conv1.weight", "layer1.0.downsample.0.weight")
    state |= {name: pad(state[name], 1) for name in readers}
    return state | {n: pad(t, 0) for n, t in state.items() if n.startswith(("conv1.", "bn1."))}


def check(golden, file: str, backbone: torch.nn.Module) -> None:
    arrays = golden.arrays(file)
    with torch.no_grad():
        maps = backbone.eval()(arrays["in/image"])
    for name, feature in zip(MAPS, maps, strict=True):
        golden.check(feature, arrays[f"out/{name}"])


def test_resnet(golden):
    state = widened(own(golden, "backbone_resnet50", "resnet"))
    blocks = {name.split(".conv1")[0] for name in state if ".conv1." in name}
    depths = [sum(block.startswith(f"layer{i}.") for block in blocks) for i in (1, 2, 3, 4)]
    outputs = [len(state[f"layer{i}.0.conv3.weight"]) for i in (1, 2, 3, 4)]
    narrowing = outputs[0] / len(state["layer1.0.conv1.weight"])  # 4 at full size
    kwargs = {
        "layers": depths,
        "channels": [n // 4 for n in outputs],
        "base_width": 256 / narrowing,
    }
    backbone = BackboneConfig("resnet50", "resnet", kwargs).build()
    assert backbone.channels == outputs
    backbone.load_state_dict(state)
    check(golden, "backbone_resnet50", backbone)


def test_swin(golden):
    swin = golden.config["swin"]
    kwargs = {
        "img_size": 4 * swin["window"],
        "embed_dim": swin["embed"],
        "depths": swin["depths"],
        "num_heads": swin["heads"],
        "window_size": swin["window"],
    }
    backbone = BackboneConfig("swin_tiny_patch4_window7_224", "swin", kwargs).build()
    assert backbone.channels == [swin["embed"] * 2**i for i in range(4)]
    backbone.load_state_dict(own(golden, "backbone_swin", "swin"))
    check(golden, "backbone_swin", backbone)


def test_swin_position_index(golden):
    """The index that timm keeps to itself is written again as in the official file."""
    state = golden.state("backbone_swin")
    back = to_official(from_official(state, "swin"), "swin")
    assert back.keys() == state.keys()
    assert all(back[name].equal(tensor) for name, tensor in state.items())
    assert all(back[name].dtype == tensor.dtype for name, tensor in state.items())


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("maskdino_r50", "maskdino_r50_coco_instance"),
        ("maskdino_r50_hid1024", "maskdino_r50_hid1024_coco_instance"),
        ("maskdino_swinl", "maskdino_swinl_coco_instance"),
    ],
)
def test_names_shapes_and_counts(golden, family, word, file):
    keys = json.loads((golden.folder / f"{file}.keys.json").read_text())
    config = family(word)
    (number,) = keys["keys"]["sem_seg_head.predictor.class_embed.bias"]
    with torch.device("meta"):
        model = config.build(Subject(["one"] * number))
    layout, state = config.backbone.layout, model.state_dict()
    official = to_official(state, layout)
    assert {name: list(tensor.shape) for name, tensor in official.items()} == keys["keys"]
    assert from_official(official, layout).keys() == tensors(model).keys()
    counts = keys["param_counts"]
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_modules()}
    assert count[""] == counts["total"]
    assert count["backbone"] == counts["backbone"]
    assert len(list(model.parameters())) == keys["n_unique_parameters"]
    for name in ("pixel_decoder", "pixel_decoder.transformer", "pixel_decoder.layer_1"):
        assert count[f"sem_seg_head.{name}"] == counts[f"sem_seg_head.{name}"]
