from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.data.loader import Target
from segsweep.model.backbones.timm import drop_paths
from segsweep.model.family import BackboneConfig
from segsweep.model.heads import frames
from segsweep.model.maskdino import MaskDINO
from segsweep.model.necks import pixel_decoder
from segsweep.model.segmenter import Segmenter

NAMES = ["crate", "bottle", "bag"]
CLASSES = len(NAMES)
PLAIN = BackboneConfig("resnet10t", "timm", {"stem_width": 8, "channels": [8, 16, 16, 32]})
SWIN = BackboneConfig(
    "swin_tiny_patch4_window7_224",
    "swin",
    {"img_size": 16, "embed_dim": 8, "depths": [2, 2, 2, 2], "num_heads": [1, 1, 2, 2]}
    | {"window_size": 4},
)


def family(backbone: BackboneConfig = PLAIN, **changes) -> MaskDINO:
    dims = {"hidden": 32, "mask_dim": 32, "queries": 7, "dn_number": 6, "points": 32, "topk": 10}
    dims |= {f"{part}_heads": 2 for part in ("encoder", "decoder")}
    dims |= {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    dims |= {f"{part}_ffn": 32 for part in ("encoder", "decoder")}
    return MaskDINO(backbone=backbone, **{**dims, **changes})


def build(backbone: BackboneConfig = PLAIN, **changes) -> Segmenter:
    torch.manual_seed(0)
    return family(backbone, **changes).build(Subject(NAMES))


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def target(*labels: int) -> Target:
    n = len(labels)
    masks = torch.zeros(n, 64, 96, dtype=torch.bool)
    for i in range(n):
        masks[i, 8 * i : 8 * i + 16, 10:40] = True
    boxes = torch.tensor([[25 / 96, (8 * i + 8) / 64, 30 / 96, 16 / 64] for i in range(n)])
    return Target(torch.tensor(labels), boxes.view(-1, 4), masks)


TARGETS = [target(0, 2), target(1)]


def frozen_but(model: Segmenter, *parts: str) -> Segmenter:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    return model.train()


def test_every_parameter_learns():
    model = build().train()
    model.loss(model(images(), TARGETS), TARGETS)["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_denoising_belongs_to_training():
    model = build().train()
    assert model(images(), TARGETS).denoising is not None
    assert model(images()).denoising is None
    assert model.eval()(images(), TARGETS).denoising is None


def test_denoising_queries_do_not_change_the_others():
    model = build().train()
    with torch.no_grad():
        alone, beside = model(images()).matching, model(images(), TARGETS).matching
    torch.testing.assert_close(alone.logits, beside.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.boxes, beside.boxes, rtol=1e-4, atol=1e-5)


def test_images_of_a_batch_do_not_mix():
    model = build().eval()
    with torch.no_grad():
        both, one = model(images()), model(images()[1:])
    torch.testing.assert_close(both.matching.boxes[:, 1:], one.matching.boxes)


@torch.no_grad()
def test_padding_is_as_if_it_were_cut_off(monkeypatch):
    """All but for the position code, which counts padded cells (as in the released program)."""

    def nowhere(shape, channels, device):
        return torch.zeros(shape[0] * shape[1], channels)

    monkeypatch.setattr(pixel_decoder, "map_position", nowhere)
    encoder = build(levels=["res4", "res5"]).sem_seg_head.pixel_decoder.transformer
    maps = [torch.randn(2, 32, 8 // 2**i, 12 // 2**i) for i in range(3)]
    padding = [torch.ones(2, *level.shape[-2:], dtype=torch.bool) for level in maps]
    parts = [(0, 8, 12), (1, 5, 7)]
    for image, h, w in parts:
        for i, mask in enumerate(padding):
            mask[image, : h >> i, : w >> i] = False
    padded = encoder(maps, padding)
    for image, h, w in parts:
        cut = [m[image : image + 1, :, : h >> i, : w >> i] for i, m in enumerate(maps)]
        for alone, level in zip(encoder(cut), padded, strict=True):
            seen = level[image : image + 1, :, : alone.shape[2], : alone.shape[3]]
            torch.testing.assert_close(seen, alone)


def test_frozen_backbone_costs_no_graph():
    model = frozen_but(build(), "predictor")
    assert not any(feature.requires_grad for feature in model.features(images()))
    output = model(images(), TARGETS)
    assert not output.mask_features.requires_grad
    assert output.matching.logits.requires_grad
    model = frozen_but(build(), "backbone.layer4")
    assert [f.requires_grad for f in model.features(images())] == [False, False, False, True]


def test_what_is_frozen_stays_in_evaluation_mode():
    model = frozen_but(build(), "layer4", "mask_embed")
    before = {n: b.clone() for n, b in model.named_buffers() if "running" in n}
    model(images(), TARGETS)
    changed = {n for n, b in model.named_buffers() if "running" in n and not b.equal(before[n])}
    assert changed
    assert all("layer4" in name for name in changed)
    assert model.training
    assert not model.sem_seg_head.pixel_decoder.training
    assert not model.eval().training


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_drop_path_of_a_frozen_backbone_is_a_choice(rate):
    chosen = BackboneConfig(SWIN.name, SWIN.layout, SWIN.kwargs, drop_path=rate)
    model = frozen_but(build(chosen), "predictor")
    dropping = [m.training for m in drop_paths(model)]
    assert all(dropping)
    assert bool(dropping) == (rate > 0)
    once, again = model.features(images())[3], model.features(images())[3]
    assert once.equal(again) == (rate == 0)
    model.eval()
    assert model.features(images())[3].equal(model.features(images())[3])


@pytest.mark.parametrize("part", ["norm1.", "attn.qkv."])
def test_a_block_of_which_a_part_trains_drops_nothing(part):
    kwargs = {**SWIN.kwargs, "attn_drop_rate": 0.5, "proj_drop_rate": 0.5}
    model = build(BackboneConfig(SWIN.name, SWIN.layout, kwargs, drop_path=0.5))
    model.drop_path = False  # as for a backbone at rest
    frozen_but(model, f"backbone.layers.3.blocks.1.{part}")
    once, again = model.features(images())[3], model.features(images())[3]
    assert once.requires_grad
    assert once.equal(again)
    frozen_but(model, "backbone")  # what trains as a whole drops as it was told to
    assert not model.features(images())[3].equal(model.features(images())[3])


def test_an_image_of_fewer_tokens_than_queries_is_refused_by_its_key():
    model = build(queries=90, extra_levels=0).eval()
    with pytest.raises(UserError, match=r"model\.queries=90: these images have 84 tokens"):
        model(torch.rand(1, 3, 64, 64))


def test_layers_run_in_float32_under_autocast():
    model = build().eval()
    seen = {}

    def note(name: str):
        return lambda module, inputs, output: seen.update({name: output.dtype})

    head = model.sem_seg_head
    head.pixel_decoder.mask_features.register_forward_hook(note("pixel decoder"))
    head.predictor.decoder.layers[0].linear1.register_forward_hook(note("decoder layer"))
    head.predictor.mask_embed.layers[0].register_forward_hook(note("mask embed"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(images())
    assert seen["pixel decoder"] == seen["decoder layer"] == torch.float32
    assert seen["mask embed"] == torch.bfloat16
    found = model.predict(output, [((64, 96),) * 3] * 2)
    assert found[0].scores.dtype == torch.float32


@pytest.mark.parametrize("box_init", ["mask2box", "bitmask", "no"])
def test_levels_orders_and_anchors(box_init):
    from segsweep.model.maskdino import BoxInit, FeatureOrder

    for order in FeatureOrder:
        model = build(feature_order=order, box_init=BoxInit[box_init], extra_levels=2)
        with torch.no_grad():
            pixel = model.sem_seg_head.pixel_decoder(model.features(images()))
        sizes = [tuple(level.shape[-2:]) for level in pixel.levels]
        expected = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
        assert sizes == (expected if order is FeatureOrder["low2high"] else expected[::-1])
        assert model.sem_seg_head.predictor(pixel).matching.boxes.isfinite().all()


def test_instances_are_sorted_and_of_original_size(monkeypatch):
    model = build().eval()
    with torch.no_grad():
        output = model(images())
    views = [((64, 96), (64, 96), (33, 50)), ((50, 80), (64, 96), (100, 160))]
    found = model.predict(output, views)
    for instances, view in zip(found, views, strict=True):
        assert instances.masks.shape == (10, *view[2])
        assert instances.masks.dtype == torch.bool
        assert (instances.scores.diff() <= 0).all()
        assert ((instances.labels >= 0) & (instances.labels < CLASSES)).all()
    monkeypatch.setattr(frames, "CELLS", 1)  # one mask at a time
    for whole, chunked in zip(found, model.predict(output, views), strict=True):
        torch.testing.assert_close(chunked.scores, whole.scores)
        torch.testing.assert_close(chunked.boxes, whole.boxes)
        assert (chunked.masks == whole.masks).float().mean() > 0.9995


def test_boxes_are_scaled_from_the_padded_frame():
    model = build(focus_on_box=True).eval()  # so that masks do not change the order
    with torch.no_grad():
        output = model(images(1))
    (found,) = model.predict(output, [((32, 48), (64, 96), (64, 96))])
    (plain,) = model.predict(output, [((64, 96),) * 3])
    torch.testing.assert_close(found.boxes, 2 * plain.boxes)


def test_more_queries_than_pairs_are_no_error():
    model = build(topk=1000).eval()
    with torch.no_grad():
        (found,) = model.predict(model(images(1)), [((64, 96),) * 3])
    assert len(found.scores) == 7 * CLASSES


def test_tiny_model_is_small():
    from omegaconf import OmegaConf

    from segsweep.base.words import conf_dir

    chosen = OmegaConf.load(f"{conf_dir()}/model/maskdino_tiny.yaml")
    del chosen["_target_"]
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(MaskDINO), chosen))
    model = config.build(Subject([str(digit) for digit in range(10)]))
    assert sum(p.numel() for p in model.parameters()) <= 2_800_000
    assert sum(p.numel() for p in model.backbone.parameters()) <= 1_600_000


@pytest.mark.parametrize(
    ("name", "layout", "kwargs", "message"),
    [
        ("resnet51", "timm", {}, "no such model; near: resnet"),
        ("vit_tiny_patch16_224", "timm", {}, "none at [4, 8, 32]"),
        ("swin_tiny_patch4_window7_224", "timm", {}, "model.backbone.layout=swin"),
        ("resnet18", "swin", {}, "model.backbone.layout=timm"),
        ("resnet18", "resnet", {"widths": 3}, "widths"),
    ],
)
def test_backbones_that_cannot_be(name, layout, kwargs, message):
    with pytest.raises(UserError) as error:
        BackboneConfig(name, layout, kwargs).build()
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"hidden": 48}, {"decoder_heads": 5}, {"levels": ["res3", "res6"]}]
)
def test_dimensions_that_do_not_fit(changes):
    with pytest.raises(UserError, match=f"model.{next(iter(changes)).split('_')[0]}"):
        family(**changes)


def test_seams_see_the_stream_without_position():
    """Each seam gets the attention's output and the plain stream, before they are added."""
    model = build().eval()
    layer = model.sem_seg_head.predictor.decoder.layers[0]
    seen: list[tuple[Tensor, ...]] = []
    layer.after_self_attn.register_forward_hook(lambda m, inputs, out: seen.append(inputs))
    layer.norm2.register_forward_hook(lambda m, inputs, out: seen.append(inputs))
    with torch.no_grad():
        model(images())
    (attended, stream), (total,) = seen
    torch.testing.assert_close(attended + stream, total)
