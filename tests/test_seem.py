"""The SEEM family: what its words train, which files it loads, and which it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.data.loader import Target
from segsweep.model import weights
from segsweep.model.family import BackboneConfig, Family
from segsweep.model.maskdino import MaskDINO
from segsweep.model.seem import PROMPTS, SEEM, Text, TextEncoder, to_official
from segsweep.model.segmenter import Segmenter
from segsweep.peft.places import Places
from segsweep.peft.sites import match

NAMES = ["crate", "bottle", "bag"]
SIZES = {"embed_dim": 8, "depths": [1, 1, 2, 1], "layerscale_value": 1.0}
SIZES |= {"use_post_norm": True, "use_overlap_down": True, "normalize_modulator": True}
TRAINED, FROZEN = TextEncoder["trained"], TextEncoder["frozen"]
LANGUAGE = "sem_seg_head.predictor.lang_encoder."


def family(layout: str = "focal", **changes) -> SEEM:
    dims = {"hidden": 32, "mask_dim": 16, "proj": 24, "queries": 7, "points": 32, "topk": 10}
    dims |= {f"{part}_heads": 2 for part in ("encoder", "decoder")}
    dims |= {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    dims |= {f"{part}_ffn": 32 for part in ("encoder", "decoder")}
    dims |= {"text": Text(width=16, heads=2, layers=1), "own_templates": ["{}.", "a photo of {}."]}
    dims |= {"backbone": BackboneConfig("FocalNet", layout, SIZES)}
    return SEEM(name="seem_small", **{**dims, **changes})


def other_family(**changes) -> MaskDINO:
    backbone = BackboneConfig("resnet10t", "timm", {"stem_width": 8, "channels": [8, 8, 8, 8]})
    dims = {"hidden": 32, "mask_dim": 32, "queries": 5, "encoder_layers": 1, "decoder_layers": 1}
    return MaskDINO(name="maskdino_small", backbone=backbone, **dims, **changes)


def build(chosen: Family | None = None, seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return (chosen or family()).build(Subject(NAMES))


def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def targets() -> list[Target]:
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 8:24, 10:40], masks[1, 30:60, 20:90] = True, True
    boxes = torch.tensor([[25, 16, 30, 16], [55, 45, 70, 30]]) / torch.tensor([96, 64, 96, 64])
    return [
        Target(torch.tensor([0, 2]), boxes, masks),
        Target(torch.tensor([1]), boxes[1:], masks[1:]),
    ]


def same(a: Segmenter, b: Segmenter) -> bool:
    other = weights.tensors(b)
    return all(tensor.equal(other[name]) for name, tensor in weights.tensors(a).items())


@pytest.mark.parametrize("layout", ["focal", "focal_dw"])
def test_every_parameter_learns(layout):
    model = build(family(layout)).train()
    model.loss(model(images(), targets()), targets())["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_tiny_model_is_small_and_finds_instances():
    model = compose(["model=seem_tiny"]).model.build(Subject(NAMES)).eval()
    assert sum(p.numel() for p in model.parameters()) <= 3_100_000
    with torch.no_grad():
        output = model(images())
    views = [((64, 96), (64, 96), (33, 50)), ((50, 80), (64, 96), (100, 160))]
    for instances, view in zip(model.predict(output, views), views, strict=True):
        assert instances.masks.shape == (100, *view[2])
        assert ((instances.labels >= 0) & (instances.labels < len(NAMES))).all()
        assert (instances.scores.diff() <= 0).all()


def test_levels_of_another_width_are_projected_and_train_with_the_decoder():
    chosen = family(conv_dim=64)
    model = build(chosen)
    names = {name for name, _ in model.named_parameters() if ".input_proj." in name}
    projections = {n for n in names if ".predictor." in n}
    assert {n.rpartition("input_proj.")[2] for n in projections} == {
        f"{level}.{part}" for level in range(3) for part in ("weight", "bias")
    }
    assert model.sem_seg_head.pixel_decoder.mask_features.in_channels == 64
    trained = {site.name for site in match(model, chosen.roles["decoder"])}
    assert projections < trained
    output = model.eval()(torch.rand(1, 3, 64, 64))
    assert output.matching.logits.isfinite().all()


def test_head_and_decoder_hold_the_text_encoder_only_where_it_is_trained():
    model, head = build(), "sem_seg_head."
    names = {name for name, _ in model.named_parameters()}
    language = {name for name in names if name.startswith(LANGUAGE)}
    for chosen, left_out in ((TRAINED, set()), (FROZEN, language)):
        roles = family(text_encoder=chosen).roles
        for role, place in (("head", head), ("decoder", f"{head}predictor.")):
            expected = {name for name in names if name.startswith(place)} - left_out
            assert {site.name for site in match(model, roles[role])} == expected
    assert {site.name for site in match(model, family().roles["text"])} == language


def test_edits_and_seams_belong_to_the_attention_layers_outside_the_text_encoder():
    model, roles = build(family(encoder_layers=3)), family().roles
    sites = [site.name for site in match(model, roles["attention"])]
    seams = list(Places(model, roles).seams(["seams"]))
    for places in (sites, seams):
        assert len(places) == 3 + 2 + 2
        assert not [name for name in places if name.startswith(LANGUAGE)]


@pytest.fixture
def released(tmp_path) -> Path:
    """A checkpoint as it was released: official names, prompts of clicks and all."""
    state = to_official(build()) | {name: torch.randn(2, 32) for name in PROMPTS}
    state["criterion.empty_weight"] = torch.ones(134)
    torch.save(state, tmp_path / "released.pt")
    return tmp_path / "released.pt"


def test_a_released_checkpoint_is_loaded_whole_whatever_the_classes(released):
    model = family().build(Subject(["other", "classes"]))
    report = family(weights=str(released)).load(model, ["other", "classes"], 0)
    assert report.loaded == len(weights.tensors(model))
    assert not report.drawn
    assert same(model, build())


def test_our_own_file_is_loaded(tmp_path):
    from safetensors.torch import save_file

    state = {n: t.detach().clone() for n, t in weights.tensors(build()).items()}
    save_file(state, tmp_path / "own.safetensors", metadata={"classes": '["of", "others"]'})
    model = build(seed=1)
    assert not same(model, build())
    family(weights=str(tmp_path / "own.safetensors")).load(model, NAMES, 0)
    assert same(model, build())


def test_only_the_known_prompt_weights_are_left_out(released, tmp_path):
    state = torch.load(released)
    state["sem_seg_head.predictor.mask_sptial_embed.3"] = torch.zeros(1)
    del state["backbone.layers.0.blocks.0.gamma_1"]
    torch.save(state, tmp_path / "changed.pt")
    with pytest.raises(UserError) as error:
        family(weights=str(tmp_path / "changed.pt")).load(build(), NAMES, 0)
    assert "1 missing (backbone.layers.0.blocks.0.ls1.gamma)" in str(error.value)
    assert "1 unexpected (sem_seg_head.predictor.mask_sptial_embed.3)" in str(error.value)


def test_a_checkpoint_of_another_family_is_called_by_its_name(released, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"model": build(other_family()).state_dict()}, other)
    said = r"{} seems to belong to {} .* but model={} is {};.* such as {}"
    with pytest.raises(
        UserError, match=said.format(other, "MaskDINO", "seem_small", "SEEM", "maskdino_r50")
    ):
        family(weights=str(other)).load(build(), NAMES, 0)
    chosen = other_family(weights=str(released))
    with pytest.raises(
        UserError, match=said.format(released, "SEEM", "maskdino_small", "MaskDINO", "seem_focall")
    ):
        chosen.load(build(chosen), NAMES, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.hidden=80"], "model.hidden=80 must be a multiple of the groups of GroupNorm=32"),
        (["model.decoder_heads=5"], "model.hidden=64 must be a multiple of model.decoder_heads=5"),
        (["model.encoder_heads=0"], "must be a multiple of model.encoder_heads=0"),
        (["model.text.heads=3"], "model.text.width=32 must be a multiple of model.text.heads=3"),
    ],
)
def test_dimensions_that_do_not_fit(words, said):
    with pytest.raises(UserError, match=re.escape(said)):
        compose(["model=seem_tiny", *words])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "resnet10t", "kwargs": {}}, "resnet10t is no FocalNet, as layout=focal wants"),
        ({"name": "focalnet_large"}, "timm has no such model; near: focalnet_"),
        ({"kwargs": {"width": 3}}, "timm's FocalNet cannot be built so .*width"),
        ({"pretrained": True}, "timm's FocalNet cannot be built so .*pretrained"),
    ],
)
def test_backbones_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        build(family(backbone=replace(family().backbone, **changes)))


def test_the_gradient_norm_follows_the_family_unless_given():
    for word, clip in (("maskdino_tiny", 0.01), ("seem_tiny", 5.0)):
        assert compose([f"model={word}"]).hparams.clip == clip
    assert compose(["model=seem_tiny", "hparams.clip=0.1"]).hparams.clip == 0.1


def test_the_text_encoder_names_a_run_and_the_source_of_the_clip_does_not():
    base = compose(["model=seem_tiny"])
    trained = compose(["model=seem_tiny", "model.text_encoder=trained"])
    assert fingerprint(trained) != fingerprint(base)
    given = compose(["model=seem_tiny", "model.clip=1.0", "hparams.clip=5.0"])
    assert fingerprint(given) == fingerprint(base)
