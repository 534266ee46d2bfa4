"""SegFormer: what it learns of background and unknown pixels, and its running statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND, IGNORE, Subject
from segsweep.data.loader import Target
from segsweep.exporting import checkpoint
from segsweep.loss.outputs import PixelLogits
from segsweep.model.family import BackboneConfig
from segsweep.model.heads import frames
from segsweep.model.pyramid import NeckConfig
from segsweep.model.segformer import Average, HeadForm, SegFormer
from segsweep.peft.apply import apply
from segsweep.run.callbacks import Checkpoint
from segsweep.run.evaluate import judged
from segsweep.run.identity import Run
from segsweep.run.restore import restore
from segsweep.story import train

THREE = Subject(("a", "b", "c"), "semantic")  # and the background
NO_BACKGROUND = Subject(("a", "b", "c"), "semantic", background=False)
SIZES: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 8, "depth": 1}
SIZES |= {"num_heads": 2}
WORDS = [
    "model=vit_tiny_segformer", "data=digits_semantic", "data.size=[64,64]", "data.train=4",
    "data.val=2", "model.backbone.kwargs.depth=1", "model.neck.kwargs.out=8", "model.channels=8",
    "model.weights=null", "hparams.batch_size=2", "hparams.epochs=2", "hparams.lr=1e-3",
    "hparams.ema=0.5", "peft=fix", "io.save_every=1", "io.progress=false",
    "trainer.accelerator=cpu",
]  # fmt: skip


def family(**changes: Any) -> SegFormer:
    sizes = {**SIZES, **changes.pop("kwargs", {})}
    backbone = BackboneConfig("VisionTransformer", "vit", sizes)
    neck = NeckConfig(kwargs={"scales": [2, 1, 0.5], "out": 8, **changes.pop("neck", {})})
    return SegFormer(name="x", backbone=backbone, neck=neck, **{"channels": 8, **changes})


def targets_of(maps: Tensor) -> list[Target]:
    nothing = torch.zeros(0)
    return [Target(nothing, nothing, nothing, label_map=m) for m in maps]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in model.named_buffers() if "running_" in name}


@pytest.mark.parametrize("subject", [THREE, NO_BACKGROUND])
@pytest.mark.parametrize("average", Average)
def test_the_loss_is_of_all_classes_and_of_the_background_where_it_is_one(subject, average):
    maps = torch.tensor([0, 1, 2, BACKGROUND, IGNORE], dtype=torch.uint8).repeat(2, 6, 2)
    classes = 3 + subject.background
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 3, 5, generator=draws)
    model = family(average=average).build(subject)
    assert model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, classes, 8, 8)
    (loss,) = model.criterion(PixelLogits(logits), targets_of(maps)).values()
    chances = F.interpolate(logits, (6, 10), mode="bilinear").softmax(1)
    right = [  # what a plain sum over pixels says
        -chances[i, 3 if value == BACKGROUND else value, y, x].log()
        for i, y, x in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist()
        if (value := int(maps[i, y, x])) < 3 + BACKGROUND * subject.background and value != IGNORE
    ]
    pixels = len(right) if average is Average["known"] else maps.numel()
    torch.testing.assert_close(loss, sum(right, torch.zeros(())) / pixels)


def test_nothing_known_is_nothing_to_learn():
    maps = torch.full((1, 4, 4), IGNORE, dtype=torch.uint8)
    for average in Average:
        criterion = family(average=average).build(NO_BACKGROUND).criterion
        (loss,) = criterion(PixelLogits(torch.randn(1, 3, 2, 2)), targets_of(maps)).values()
        assert loss == 0


def test_the_best_class_is_found_strip_by_strip(monkeypatch):
    """As the whole map has it, resized to the padded size, cut, and resized to the original."""
    logits = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    view = ((25, 32), (32, 32), (47, 61))
    whole = F.interpolate(logits, (32, 32), mode="bilinear")[..., :25, :]
    chances = F.interpolate(whole, (47, 61), mode="bilinear")[0].softmax(0)
    monkeypatch.setattr(frames, "CELLS", 1500)
    for subject, none in ((THREE, BACKGROUND), (Subject(tuple("abcd"), background=False), 3)):
        (found,) = family().build(subject).predict(PixelLogits(logits), [view])
        scores, classes = chances.max(0)
        torch.testing.assert_close(found.scores, scores)
        classes[classes == 3] = none
        assert torch.equal(found.label_map(background=True).long(), classes)
        assert {0, 1, 2, none} == set(classes.unique().tolist())


@pytest.mark.parametrize("form", HeadForm)
def test_one_image_of_one_cell_can_be_learnt_from(form):
    model = family(form=form, kwargs={"patch_size": 32}, neck={"scales": [1]}).build(THREE)
    before = statistics(model)
    maps = torch.zeros(1, 32, 32, dtype=torch.uint8)
    model.train().loss(model(torch.randn(1, 3, 32, 32)), targets_of(maps))["loss"].backward()
    assert all(p.grad is not None for p in model.sem_seg_head.parameters())
    assert all(torch.equal(b, before[name]) for name, b in statistics(model).items())


@pytest.mark.parametrize(("peft", "moves"), [("frozen", False), ("fix", True), ("bitfit", True)])
def test_only_a_head_that_trains_moves_its_statistics(peft, moves):
    config, chosen = compose([f"peft={peft}", *WORDS[:2]]), family()
    model = chosen.build(THREE)
    apply(model, config.peft, chosen.roles)
    before = statistics(model)
    assert before
    model.train()(torch.randn(2, 3, 32, 32))
    model.eval()(torch.randn(2, 3, 32, 32))
    stayed = [torch.equal(b, before[name]) for name, b in statistics(model).items()]
    assert not any(stayed) if moves else all(stayed)


class Halted(Exception):
    """Stands for whatever ends a process between two steps."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("whole"))


def trained(folder: Path) -> Run:
    one = Run(compose([*WORDS, f"io.results={folder}"]))
    one.once(train)
    return one


def test_running_statistics_are_kept_and_restored(run: Run) -> None:
    delta = load_file(run.directory / "delta.safetensors")
    restored = restore(run.directory)
    kept = statistics(restored.model)
    assert kept
    assert all(torch.equal(delta[name], buffer) for name, buffer in kept.items())
    new = statistics(run.config.model.build(run.config.data.subject()))
    assert not any(torch.equal(new[name], buffer) for name, buffer in kept.items())
    again = judged(run.config, restored.model, "val").compute()
    then = restored.record["metrics"]
    assert again
    assert {name: then[name]["value"] for name in again} == again


def test_a_resumed_run_is_the_same_to_the_bit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoint.save

    def halting(self: Checkpoint, trainer: Any) -> None:
        save(self, trainer)
        raise Halted

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", halting)
        with pytest.raises(Halted):
            trained(tmp_path)
    deltas = [(one.directory / "delta.safetensors") for one in (run, trained(tmp_path))]
    assert deltas[0].read_bytes() == deltas[1].read_bytes()


def test_a_head_of_the_other_form_is_refused() -> None:
    """Its layers are others, not only their names."""
    for form in HeadForm:
        chosen = family(form=form, weights="a.pth")
        state = chosen.build(THREE).state_dict()
        assert chosen.fitting(state) is state
        (other,) = set(HeadForm) - {form}
        with pytest.raises(UserError, match=rf"a.pth.* model.form={form.name} "):
            family(form=form, weights="a.pth").fitting(family(form=other).build(THREE).state_dict())


def test_a_merged_file_holds_them(run: Run, tmp_path: Path) -> None:
    """It is written only if a new model that loads it gives the outputs of the run."""
    delta, file = load_file(run.directory / "delta.safetensors"), tmp_path / "merged.safetensors"
    checkpoint.write(restore(run.directory), file)
    merged = load_file(file)
    for name in statistics(restore(run.directory).model):
        assert torch.equal(merged[name.replace("sem_seg_head.", "decode_head.")], delta[name])
