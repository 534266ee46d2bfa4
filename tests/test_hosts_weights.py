"""Files of other programs: a backbone's weights under each naming, in other sizes, or refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from segsweep.base.errors import UserError
from segsweep.model.backbones import layouts as all_layouts
from segsweep.model.backbones.base import Backbone
from segsweep.model.family import BackboneConfig, Repatch
from segsweep.model.pyramid import Pyramid
from segsweep.model.sam_names import to_official
from tests.small_hosts import cubic, example, images, layouts, small_host

State = dict[str, Tensor]
NAMES = Path(__file__).parent / "data" / "golden" / "heads" / "sam_names.json"
BESIDE = {"neck.lateral_convs.0.weight": torch.ones(1), "bbox_head.atss_cls.bias": torch.ones(1)}


def config(layout: str, **changes: Any) -> BackboneConfig:
    small = example(layout)
    return BackboneConfig(small["name"], layout, {**small["kwargs"], **changes})


def read(layout: str, state: State, host: Backbone, repatch: str = "bicubic") -> State:
    options = config(layout)
    options.repatch = Repatch[repatch]
    return options.weights(state, host)


def replaced(state: State, *pairs: tuple[str, str]) -> State:
    """Replace patterns in names."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, new in pairs:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    return renamed


def behind(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


FFN = (r"\.mlp\.fc1\.", ".ffn.layers.0.0."), (r"\.mlp\.fc2\.", ".ffn.layers.1.")
PROJECTION = (r"^patch_embed\.proj\.", "patch_embed.projection.")
MMPRETRAIN = (
    PROJECTION,
    (r"^norm\.", "ln1."),
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.ls1\.gamma$", ".attn.gamma1.weight"),
    (r"\.ls2\.gamma$", ".ffn.gamma2.weight"),
    *FFN,
)
AUTHORS = [(rf"^layers\.{i + 1}\.downsample", f"layers.{i}.downsample") for i in range(3)]


def without_norms(state: State) -> State:
    """A classifier of Swin: one norm of all, and a head."""
    state = {n: t for n, t in state.items() if not re.match(r"norm\d\.", n)}
    return state | {"norm.weight": torch.ones(64), "head.weight": torch.ones(9, 64)}


def in_channels(name: str, weight: Tensor) -> Tensor:
    """A merging of Swin as mmdetection has it, cells of a channel in a row; by channel."""
    if ".downsample." not in name:
        return weight
    cells = weight.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :]
    return cells.transpose(-1, -2).flatten(-2)


def of_mmdetection(state: State) -> State:
    theirs = replaced({n: in_channels(n, t) for n, t in state.items()}, *AUTHORS)
    index = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16)}
    windows = (r"\.attn\.", ".attn.w_msa."), (r"^layers\.", "stages.")
    return replaced(theirs | index, *windows, PROJECTION, *FFN)


def of_transformers(state: State) -> State:
    rows = json.loads(NAMES.read_text())["vit_b"]["rows"]
    theirs = {name: names for name, _, _, names, _ in rows}
    return {other: t for name, t in to_official(behind("backbone.", state)).items()
            for other in theirs[name]}  # fmt: skip


HEADS = {"head.weight": torch.ones(9, 8), "fc_norm.weight": torch.ones(8)}
DECODER = {"mask_decoder.iou_token.weight": torch.ones(1, 8)}
SYSTEMS = {
    "vit official": lambda s: (
        replaced(s, ("reg_token", "register_tokens")) | {"mask_token": torch.ones(1, 8)}
    ),
    "vit timm": lambda s: s | HEADS,
    "vit MMPretrain": lambda s: (
        behind("backbone.", replaced(s, *MMPRETRAIN))
        | {"backbone.mask_token": torch.ones(1, 8), "head.layers.head.bias": torch.ones(9)}
    ),
    "vit ours": lambda s: behind("backbone.", s) | BESIDE,
    "sam segment_anything": lambda s: to_official(behind("backbone.", s)) | DECODER,
    "sam transformers": lambda s: of_transformers(s) | DECODER,
    "sam timm": lambda s: s,
    "sam fork": lambda s: replaced(s, PROJECTION, (r"\.mlp\.fc(\d)", r".mlp.lin\1")),
    "sam MMPretrain": lambda s: behind(
        "backbone.", replaced(s, (r"^neck\.", "channel_reduction."), *MMPRETRAIN)
    ),
    "sam ours": lambda s: behind("backbone.", s) | BESIDE,
    "swin authors": lambda s: (
        replaced(without_norms(s), *AUTHORS) | {"layers.0.blocks.1.attn_mask": torch.ones(1)}
    ),
    "swin timm": without_norms,
    "swin detectron2": lambda s: behind("backbone.bottom_up.", replaced(s, *AUTHORS)),
    "swin mmdetection": lambda s: behind("backbone.", of_mmdetection(s)) | BESIDE,
    "swin MMPretrain": lambda s: behind(
        "backbone.", {n: t for n, t in of_mmdetection(s).items() if not re.match("norm[012]", n)}
    ),
    "swin ours": lambda s: behind("backbone.", s) | BESIDE,
}
CLASSIFIERS = ("swin authors", "swin timm", "swin MMPretrain")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_naming_is_read(system: str) -> None:
    layout = system.partition(" ")[0]
    host = small_host(layout)
    own = {name: tensor.clone() for name, tensor in host.state_dict().items()}
    theirs = SYSTEMS[system](own)
    found = read(layout, theirs, host)
    if system in CLASSIFIERS:
        own = {n: t for n, t in own.items() if not re.match(r"norm\d\.", n)}
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


@torch.no_grad()
def test_a_swin_of_mmdetection_merges_as_unfold_does() -> None:
    """Cells of a channel stand beside each other there: `nn.Unfold`, a norm, a linear layer."""
    host = small_host("swin")
    theirs = of_mmdetection(host.state_dict())
    stage = "stages.0.downsample"
    for name, tensor in theirs.items():
        if ".downsample." in name:
            tensor.normal_(generator=torch.Generator().manual_seed(len(name)))
    found = read("swin", theirs, host)
    host.load_state_dict(found)
    x = images(6, 8)[:, :1].repeat(1, 8, 1, 1).cumsum(1)  # (B, C, H, W)
    cells = F.unfold(x, 2, stride=2).transpose(1, 2)
    normed = F.layer_norm(
        cells, (32,), theirs[f"{stage}.norm.weight"], theirs[f"{stage}.norm.bias"]
    )
    expected = normed @ theirs[f"{stage}.reduction.weight"].T
    merging = host.get_submodule("layers.1.downsample")
    actual = merging(x.permute(0, 2, 3, 1)).flatten(1, 2)
    torch.testing.assert_close(actual, expected)
    wrong = {n: t for n, t in theirs.items() if stage in n}
    assert all(found[replaced({n: t}, ("stages.0", "layers.1")).popitem()[0]].ne(t).any()
               for n, t in wrong.items())  # fmt: skip


def coarse(**changes: Any) -> State:
    """A ViT with patches of 14 on a grid of 3 x 3."""
    return small_host("vit", patch_size=14, img_size=42, **changes).state_dict()


@pytest.mark.parametrize("size", [(32, 32), (48, 80)])
@torch.no_grad()
def test_patches_and_codes_are_resampled_by_plain_cubic_convolution(size: tuple[int, int]) -> None:
    """Neither antialias nor another sum; the code of prefix tokens stays."""
    state, host = coarse(), small_host("vit", img_size=size)
    found = read("vit", state, host)
    kernel, finer = state["patch_embed.proj.weight"], cubic(14, 16)
    expected = torch.einsum("yh,xw,cdhw->cdyx", finer, finer, kernel)
    torch.testing.assert_close(
        found["patch_embed.proj.weight"].double(), expected, rtol=0, atol=1e-5
    )
    code = state["pos_embed"]
    rows, columns = (cubic(3, side // 16) for side in size)
    expected = torch.einsum("yh,xw,hwc->yxc", rows, columns, code[0, 2:].unflatten(0, (3, 3)))
    assert torch.equal(found["pos_embed"][:, :2], code[:, :2])
    torch.testing.assert_close(found["pos_embed"][0, 2:], expected.flatten(0, 1))
    host.load_state_dict(found)


@torch.no_grad()
def test_pi_gives_what_resized_patches_answer_as_before() -> None:
    """FlexiViT: <B x, w'> = <x, w> for every patch x that is made larger by B."""
    state, host = coarse(), small_host("vit")
    kernel = read("vit", state, host, "pi")["patch_embed.proj.weight"]
    patches = images(14, 14)
    larger = F.interpolate(patches, (16, 16), mode="bicubic", antialias=True)
    before = F.conv2d(patches, state["patch_embed.proj.weight"])
    torch.testing.assert_close(F.conv2d(larger, kernel), before, rtol=0, atol=1e-4)
    plain = read("vit", state, host)["patch_embed.proj.weight"]
    assert (F.conv2d(larger, plain) - before).abs().max() > 1


@torch.no_grad()
def test_registers_without_a_code_take_the_official_files_code_into_the_class_token() -> None:
    state, host = coarse(reg_tokens=0), small_host("vit", no_embed_class=True)
    registers = {"register_tokens": host.state_dict()["reg_token"]}
    found = read("vit", state | registers, host)
    first = state["cls_token"] + state["pos_embed"][:, :1]
    torch.testing.assert_close(found["cls_token"], first)
    assert found["pos_embed"].shape == (1, 4, 8)


@torch.no_grad()
def test_codes_and_tables_of_sam_are_resampled_for_the_model() -> None:
    """Global blocks have tables as long as the grid is; those of windows stay."""
    state, host = small_host("sam").state_dict(), small_host("sam", img_size=96)
    found = read("sam", state, host)
    rows = cubic(4, 6)
    expected = torch.einsum("yh,xw,bhwc->byxc", rows, rows, state["pos_embed"])
    torch.testing.assert_close(found["pos_embed"], expected)
    table, longer = state["blocks.1.attn.rel_pos_h"], found["blocks.1.attn.rel_pos_h"]
    at = ((torch.arange(11).double() + 0.5) * 7 / 11 - 0.5).clamp(0, 6)
    low = at.long().clamp(max=5)
    expected = torch.lerp(table[low], table[low + 1], (at - low)[:, None])
    torch.testing.assert_close(longer, expected)
    assert torch.equal(found["blocks.0.attn.rel_pos_w"], state["blocks.0.attn.rel_pos_w"])
    host.load_state_dict(found)


@pytest.mark.parametrize(
    ("layout", "changes", "repatch", "said"),
    [
        ("vit", {"patch_size": 14}, "none", "repatch=none: .* 14 x 14, .* 16 x 16; .*bicubic|pi"),
        ("sam", {"patch_size": 14}, "bicubic", "patches of 14 x 14, .* patches of 16 x 16"),
        ("vit", {"depth": 3}, "bicubic", "the file has 3 blocks of 8 .* the model 2 blocks of 8"),
        ("vit", {"embed_dim": 16}, "bicubic", "blocks of 16 channels.* blocks of 8 channels"),
        ("vit", {"reg_tokens": 4}, "bicubic", "4 registers, .* 1 registers"),
        ("swin", {"embed_dim": 16}, "bicubic", "blocks of 16 channels.* blocks of 8 channels"),
    ],
)
def test_another_size_is_refused_with_both(
    layout: str, changes: dict[str, Any], repatch: str, said: str
) -> None:
    state, host = small_host(layout, **changes).state_dict(), small_host(layout)
    with pytest.raises(UserError, match=said):
        read(layout, state, host, repatch)


@layouts
@pytest.mark.parametrize("other", ["vit", "sam", "swin", "resnet", "focal"])
def test_a_file_of_another_kind_is_named(layout: str, other: str) -> None:
    if other == layout:
        pytest.skip("its own kind")
    state = config(other).build().state_dict()
    with pytest.raises(UserError, match=f"model.backbone.layout={other}"):
        read(layout, state, small_host(layout))


@layouts
def test_a_file_without_a_backbone_is_refused(layout: str) -> None:
    with pytest.raises(UserError, match=r"no backbone .*names are mask_decoder\.iou_token"):
        read(layout, DECODER, small_host(layout))


def test_a_neck_in_a_file_of_a_backbone_is_its_own() -> None:
    """SAM's has the name of that of whole models of mmdetection."""
    host, family = small_host("sam"), Pyramid("p", backbone=config("sam"))
    state = host.state_dict()
    assert family.named(state, host).keys() == behind("backbone.", state).keys()
    whole = family.named(behind("backbone.", state) | BESIDE, host)
    assert "sem_seg_head.neck.lateral_convs.0.weight" in whole


@pytest.mark.parametrize(
    ("layout", "name"),
    [("resnet", "resnet10t"), ("timm", "test_convnext"), ("timm", "test_efficientnet"),
     ("timm", "cspnext_tiny"), ("focal", "focalnet_tiny_srf")],
)  # fmt: skip
def test_files_of_timm_are_read_whole(layout: str, name: str) -> None:
    """But for classifiers; norms that a focal network gets for its outputs are new."""
    with torch.device("meta"):
        theirs, options = timm.create_model(name).state_dict(), BackboneConfig(name, layout)
        backbone = options.build()
        found = options.weights(theirs, backbone)
    new = {n for n in backbone.state_dict() if layout == "focal" and re.match(r"norm\d", n)}
    assert found.keys() == backbone.state_dict().keys() - new


@pytest.mark.parametrize("layout", all_layouts())
def test_files_of_ours_are_read_under_every_layout(layout: str) -> None:
    backbone = config(layout).build()
    state = backbone.state_dict()
    found = read(layout, behind("backbone.", state) | BESIDE, backbone)
    assert found.keys() == state.keys()
