"""SAM without prompts agrees with the published code of Conv-LoRA: outputs, losses, label maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recorded import FOLDER, Recorded
from sam_models import Heads, gradients
from torch import Tensor

from segsweep.data.base import BACKGROUND, IGNORE, DataSet, Record, Resample, Subject
from segsweep.data.geometry import evaluation_geometry
from segsweep.data.loader import Target, collate
from segsweep.data.transforms import regions, sample, tight_boxes
from segsweep.loss.foreground import (
    BalancedBCE,
    ForegroundCriterion,
    StructureLoss,
    labels_of,
)
from segsweep.loss.outputs import Masks
from segsweep.loss.regions import RegionCriterion
from segsweep.model.sam import TOKENS, Form, Loss
from segsweep.model.sam_names import ours, segment_anything

pytestmark = pytest.mark.golden
BINARY, SEVERAL = "sam_ag_binary", "sam_ag_multiclass"
FOREGROUND = {
    "structure_as_released": {},
    "structure_fixed": {"form": Form["as_published"]},
    "balanced_bce": {"loss": Loss["balanced_bce"]},
}


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(FOLDER / "heads")


def targets(maps: Tensor) -> list[Target]:
    """Targets of label maps (B, H, W), as a loader makes them."""
    made = []
    for label_map in maps.to(torch.uint8):
        labels, masks = regions(label_map)
        made.append(Target(labels, tight_boxes(masks), masks, label_map=label_map))
    return made


def binary(heads: Heads, name: str = "structure_as_released") -> Any:
    return heads.segmenter(Subject(("one",), "semantic"), **FOREGROUND[name])


def foreground(truth: Tensor) -> list[Target]:
    """Targets where the foreground is 1. (B, 1, H, W)"""
    return targets(torch.where(truth[:, 0] == 1, 0, BACKGROUND))


def check_gradients(heads: Heads, name: str, prefix: str, model: Any, norms: dict) -> None:
    """Compare gradients and their norms; biases of keys have none but rounding."""
    found = gradients(model)
    for key in (key for key in heads.arrays(name) if key.startswith(prefix)):
        heads.check(name, key, found[ours(segment_anything(key.removeprefix(prefix)))])
    assert norms
    for weight, norm in norms.items():
        if weight.startswith("shared_image_embedding"):
            continue  # a parameter there, by mistake; a constant in SAM
        gradient = found[ours(segment_anything(weight))]
        assert float(gradient.norm()) == pytest.approx(norm, rel=2e-3, abs=1e-5), weight


@pytest.mark.parametrize(("name", "scale"), [(BINARY, 255), (SEVERAL, 1)])
def test_pixels_and_masks(heads, name, scale):
    """Pictures become squares, bicubic; Pillow rounds between both directions."""
    arrays = heads.arrays(name)
    height, width = arrays["pre/pixel_values"].shape[2:]
    data, samples = DataSet(size=[height, width], resample=Resample["bicubic"]), []
    for i in (0, 1):
        pixels = arrays[f"in/image{i}_uint8_hwc"].numpy()
        mask = arrays[f"in/gt{i}_uint8_hw"].numpy()
        record = Record(i, "", pixels.shape[0], pixels.shape[1], [], labels="mask")
        samples.append(sample(pixels, record, evaluation_geometry(data, record), mask))
    batch = collate(samples, data)
    off = (batch.images - arrays["pre/pixel_values"]).abs() * torch.tensor(data.std).view(3, 1, 1)
    assert off.max() < 2.01
    assert (off > 0.01).double().mean() < 0.05
    masks = torch.stack([labels_of(target) for target in batch.targets])
    assert torch.equal(masks.float() / scale, arrays["pre/gt"][:, 0].float())


@torch.no_grad()
def test_binary_outputs(heads):
    model, arrays = binary(heads), heads.arrays(BINARY)
    images = arrays["pre/pixel_values"]
    output = model(images)
    assert output.classes is None
    heads.check(BINARY, "out/low_res", output.logits)
    full = torch.nn.functional.interpolate(output.logits, images.shape[2:], mode="bilinear")
    heads.check(BINARY, "out/logits", full)
    head = model.sem_seg_head
    embedding = model.features(images)[0]
    places = head.prompt_encoder.pe_layer.grid(*embedding.shape[2:])
    decoded = head.mask_decoder(embedding, places, *head.prompt_encoder.none())
    quality = head.mask_decoder.quality(decoded)[:, None, :1]
    heads.check(BINARY, "out/iou", quality)
    size = (images.shape[2], images.shape[3])
    originals = [tuple(arrays[f"in/image{i}_uint8_hwc"].shape[:2]) for i in (0, 1)]
    views: Any = [(size, size, original) for original in originals]
    for i, found in enumerate(model.predict(output, views)):
        heads.check(BINARY, f"post/prob{i}", found.scores)
        heads.check(BINARY, f"post/mask{i}", found.label_map(background=True) == 0)


@pytest.mark.parametrize("name", FOREGROUND)
def test_binary_losses(heads, name):
    model, arrays = binary(heads, name), heads.arrays(BINARY)
    images, truth = arrays["pre/pixel_values"], arrays["pre/gt"]
    output = model(images)
    loss = model.loss(output, foreground(truth))["loss"]
    heads.check(BINARY, f"loss/{name}", loss)
    for ending, value in (("empty_gt", 0.0), ("full_gt", 1.0)):
        key = f"loss/{name}_{ending}"
        if key in arrays:
            other = model.loss(output, foreground(torch.full_like(truth, value)))["loss"]
            torch.testing.assert_close(other, arrays[key], atol=1e-6, rtol=1e-4)
    loss.backward()
    norms = heads.manifest[BINARY]["grad_norms"]
    if name in norms:
        check_gradients(heads, BINARY, f"grad/{name}/", model, norms[name])


def test_foreground_losses_alone():
    """And what is unknown changes neither value nor gradient; all known is the published loss."""
    recorded = Recorded.__new__(Recorded)
    recorded.folder = FOLDER / "peft"
    arrays = recorded.arrays("seg_losses_003")
    truth = arrays["in/target"]
    criteria: dict[str, ForegroundCriterion] = {
        "structure_released": StructureLoss(),
        "structure_fixed": StructureLoss(as_published=True),
        "balanced_bce": BalancedBCE(),
    }
    for name, criterion in criteria.items():
        logits = arrays["in/logits"].clone().requires_grad_()
        loss = criterion.total(criterion(Masks(logits, None), foreground(truth)))
        loss.backward()
        for key, value in (("out", loss), ("grad", logits.grad)):
            expected = arrays[f"{key}/{name}"]
            atol = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(value, expected, rtol=0, atol=atol)
        partly = torch.where(truth[:, 0] == 1, 0, BACKGROUND)
        partly[:, :9] = IGNORE
        values, grads = [], []
        for junk in (0.0, 7.0):
            changed = arrays["in/logits"].clone()
            changed[:, :, :9] += junk
            changed.requires_grad_()
            value = criterion.total(criterion(Masks(changed, None), targets(partly)))
            value.backward()
            values.append(value.detach())
            grads.append(changed.grad)
        torch.testing.assert_close(values[0], values[1])
        assert not grads[0][:, :, :9].any()
        assert grads[0][:, :, 9:].any()


def several(heads: Heads) -> Any:
    """The model of several classes as it starts, each token being the first one of the base."""
    config = heads.config(SEVERAL)
    subject = Subject(tuple("abcdefgh"[: config["num_classes"]]), "semantic", background=False)
    changes = {"mask_tokens": config["num_mask_tokens"], "points": config["train_num_points"]}
    model = heads.segmenter(subject, **changes, no_object=config["no_object_weight"])
    extra = heads.state(SEVERAL, "sd_extra/")
    tokens = model.state_dict()[TOKENS].clone()
    model.load_state_dict({ours(name): value for name, value in extra.items()}, strict=False)
    model.get_parameter(TOKENS).data.copy_(tokens)
    return model


@torch.no_grad()
def perturbed(heads: Heads) -> Any:
    model = several(heads)
    tokens = heads.arrays(SEVERAL)["sd_extra/mask_decoder.mask_tokens.weight"]
    model.get_parameter(TOKENS).copy_(tokens)
    return model


@torch.no_grad()
def test_outputs_of_several_classes(heads):
    arrays = heads.arrays(SEVERAL)
    images = arrays["pre/pixel_values"]
    size = (images.shape[2], images.shape[3])

    def at_input(output: Masks) -> Tensor:
        return torch.nn.functional.interpolate(output.logits, size, mode="bilinear")

    first = several(heads)(images)
    heads.check(SEVERAL, "init/class_logits", first.classes)
    heads.check(SEVERAL, "init/logits_query0", at_input(first)[:, 0])
    torch.testing.assert_close(first.logits[:, :1].expand_as(first.logits), first.logits)
    model = perturbed(heads)
    output = model(images)
    heads.check(SEVERAL, "out/class_logits", output.classes)
    heads.check(SEVERAL, "out/logits_f16", at_input(output))
    assert {n: len(t) for n, t in model.sem_seg_head.tensors(output).items()} == {
        "masks": len(images),
        "classes": len(images),
    }
    assert model.sem_seg_head.meanings.keys() == model.sem_seg_head.tensors(output).keys()
    originals = [tuple(arrays[f"in/image{i}_uint8_hwc"].shape[:2]) for i in (0, 1)]
    views: Any = [(size, size, original) for original in originals]
    for i, found in enumerate(model.predict(output, views)):
        heads.check(SEVERAL, f"post/argmax{i}", found.classes)
    probabilities = output.classes[0].softmax(-1)[:, :-1]
    scores = torch.einsum("qk,qhw->khw", probabilities, at_input(output)[0].sigmoid())
    heads.check(SEVERAL, "post/semantic0_stride4", scores[:, ::4, ::4])
    (same,) = model.predict(Masks(output.logits[:1], output.classes[:1]), [(size, size, size)])
    torch.testing.assert_close(same.scores, scores.max(0).values.clamp(max=1))
    assert torch.equal(same.classes.long(), scores.argmax(0))


def test_loss_of_several_classes(heads, monkeypatch):
    model, arrays = perturbed(heads), heads.arrays(SEVERAL)
    maps = arrays["pre/gt"][:, 0]
    output = model(arrays["pre/pixel_values"])
    matched = []
    assign = "segsweep.loss.matcher.assign"
    from segsweep.loss import matcher

    real = matcher.assign

    def remembered(costs: Any) -> Any:
        pairs = real(costs)
        matched.append(pairs)
        return pairs

    monkeypatch.setattr(assign, remembered)
    torch.manual_seed(111)
    terms = model.criterion(output, targets(maps))
    for name, term in terms.items():
        heads.check(SEVERAL, f"loss/{name}", term)
    total = model.criterion.total(terms)
    heads.check(SEVERAL, "loss/total_as_released_unweighted", total)
    weighted = 10 * terms["loss_cross_entropy"] + 5 * (terms["loss_mask"] + terms["loss_dice"])
    heads.check(SEVERAL, "loss/total_with_configured_weights", weighted)
    (pairs,) = matched
    offset = 0
    for i, query in enumerate(pairs.query[0].split(pairs.counts)):
        seen = maps[i].unique()
        assert torch.equal(seen.long(), arrays[f"tgt/classes{i}"])
        target = pairs.target[0][pairs.image == i] - offset
        heads.check(SEVERAL, f"match/{i}_query", query)
        heads.check(SEVERAL, f"match/{i}_target", target)
        offset += len(seen)
    total.backward()
    norms = heads.manifest[SEVERAL]["grad_norms"]
    check_gradients(heads, SEVERAL, "grad/", model, norms)


def test_draws_are_those_of_the_program(heads):
    arrays = heads.arrays(SEVERAL)
    recorded = [arrays[key] for key in sorted(arrays) if key.startswith("draw/")]
    criterion = RegionCriterion(2, False, recorded[0].shape[1])
    torch.manual_seed(111)
    points = criterion.matcher_points(2, torch.device("cpu"))
    drawn = criterion.candidates(len(recorded[2]), torch.device("cpu"))
    for actual, expected in zip((points[:1], points[1:], *drawn), recorded, strict=True):
        assert torch.equal(actual, expected)


def test_background_is_a_class_beside_several():
    criterion = RegionCriterion(3, background=True, points=16)
    maps = torch.full((1, 8, 8), BACKGROUND)
    maps[:, :4], maps[:, 7] = 1, IGNORE
    logits = torch.full((1, 2, 8, 8), -9.0)
    logits[0, 0, :4], logits[0, 1, 4:7] = 9.0, 9.0
    classes = torch.tensor([[[0.0, 9, 0, 0], [0, 0, 9, 0]]])
    good = criterion.total(criterion(Masks(logits, classes), targets(maps)))
    bad = criterion.total(criterion(Masks(logits, classes.flip(1)), targets(maps)))
    assert 2 * good < bad
