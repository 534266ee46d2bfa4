"""How a run is optimised: rates against torch's own, steps of several forwards against a loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import lr_scheduler

from segsweep.base.config import Config, Hparams, Schedule, compose, words
from segsweep.base.errors import UserError
from segsweep.peft.delta import trained
from segsweep.run.callbacks import Progress
from segsweep.run.fit import train_loader
from segsweep.run.identity import Run
from segsweep.run.module import (
    Module,
    layer_factors,
    learning_rate_factor,
    parameter_groups,
    step_seed,
)
from segsweep.run.restore import assemble
from segsweep.story import train
from tests.runs import curve

WORDS = [
    "data.train=4", "data.val=2", "data.size=[64,64]", "model.weights=null", "model.queries=8",
    "model.points=16", "model.encoder_layers=1", "model.decoder_layers=1", "peft.rank=2",
    "hparams.batch_size=2", "hparams.micro_batch=1", "hparams.epochs=2", "hparams.lr=1e-2",
    "hparams.optimizer=sgd", "hparams.schedule=linear", "hparams.warmup=2",
    "hparams.warmup_from=0.25", "hparams.clip=0.1", "io.log_every=1", "io.save_every=1",
    "io.progress=false", "trainer.accelerator=cpu",
]  # fmt: skip
STEPS = 4


def factors(steps: int, **fields: Any) -> list[float]:
    hparams = Hparams("x", lr=1.0, **fields)
    return [learning_rate_factor(hparams, step, steps) for step in range(steps)]


def of_torch(steps: int, kind: type[lr_scheduler.LRScheduler], **options: Any) -> list[float]:
    """The factors of a schedule of torch, asked for before each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = kind(optimizer, **options), []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def test_a_linear_schedule_is_that_of_torch_and_ends_at_0() -> None:
    found = factors(30, schedule=Schedule["linear"])
    assert found == pytest.approx(of_torch(30, lr_scheduler.PolynomialLR, total_iters=30, power=1))
    assert found[0] == 1
    assert learning_rate_factor(Hparams("x", lr=1.0, schedule=Schedule["linear"]), 30, 30) == 0


def test_a_warm_up_may_start_anywhere_and_is_over_at_its_last_step() -> None:
    found = factors(600, warmup=500, warmup_from=0.001, schedule=Schedule["constant"])
    options = {"start_factor": 0.001, "total_iters": 499}
    assert found == pytest.approx(of_torch(600, lr_scheduler.LinearLR, **options))
    assert found[250] == pytest.approx(0.001 + 0.999 * 250 / 499)
    assert factors(2, warmup=1, warmup_from=0.5, schedule=Schedule["constant"]) == [0.5, 1]
    assert factors(3, warmup=2, warmup_from=0.0, schedule=Schedule["linear"]) == [0, 1, 1]


@pytest.mark.parametrize(("entries", "message"), [
    (["hparams.micro_batch=3"], r"micro_batch=3: does not divide the 4 .*choose from 1, 2, 4"),
    (["hparams.micro_batch=8"], r"micro_batch=8: does not divide the 4 .*choose from 1, 2, 4"),
    (["hparams.micro_batch=4", "trainer.devices=2"], r"divide the 2 images .*choose from 1, 2,"),
    (["hparams.micro_batch=2", "trainer.devices=3"], r"batch_size=4: .*take a multiple of 6"),
    (["hparams.micro_batch=0"], "micro_batch=0: must be at least 1"),
    (["hparams.warmup_from=0.1"], r"warmup_from=0.1: there is no warm-up.*hparams.warmup=500"),
    (["hparams.warmup=5", "hparams.warmup_from=1"], "warmup_from=1.0: must be less than 1"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_while_composing(entries: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compose(entries)


def test_the_words_of_a_published_recipe_bring_its_rate() -> None:
    found = {}
    for word in words("hparams"):
        h = compose([f"hparams={word}", "peft=lora", "peft.lr=0.5"]).hparams
        if word.startswith("convlora"):
            fixed = (h.weight_decay, h.batch_size, h.micro_batch, h.clip, h.schedule.name)
            assert fixed == (1e-4, 4, 1, 1.0, "linear"), word
            assert (h.warmup, h.backbone_lr, h.patience, h.optimizer.name) == (0, 1, 10, "adamw")
        if h.lr != 0.5:
            found[word] = (h.lr, h.epochs)
    assert found == {
        "convlora": (1e-4, 30), "convlora_camo": (1e-4, 20), "convlora_leaf": (3e-4, 30),
        "convlora_road": (3e-4, 20), "convlora_sbu": (1e-4, 10), "miniature": (1e-3, 10),
        "vfm": (1e-4, 12), "vfm_full": (2.5e-5, 12), "vfm_sgd": (1e-2, 12),
        "segformer": (6e-5, 127), "probe": (0.1, 90),
    }  # fmt: skip
    assert compose(["hparams=convlora_road", "hparams.lr=1e-3"]).hparams.lr == 1e-3


@pytest.mark.parametrize("word", ["vfm", "vfm_full", "vfm_sgd"])
def test_the_rate_of_detectors_falls_after_epochs_8_and_11(word: str) -> None:
    h = compose([f"hparams={word}"]).hparams
    epoch = 117_266 // 16  # pictures of COCO with objects
    at = {e: [learning_rate_factor(h, e * epoch + d, 12 * epoch) for d in (-1, 0)] for e in (8, 11)}
    assert at[8] == pytest.approx([1, 0.1])
    assert at[11] == pytest.approx([0.1, 0.01])
    warm = [learning_rate_factor(h, t, 12 * epoch) for t in (0, 250, 499, 500)]
    assert warm == pytest.approx([0.001, 0.001 + 0.999 * 250 / 499, 1, 1])


def test_segformer_warms_up_and_falls_to_0_over_its_steps() -> None:
    h = compose(["hparams=segformer"]).hparams
    steps = h.epochs * (20_210 // h.batch_size)
    assert 160_000 <= steps < 161_000
    found = [learning_rate_factor(h, t, steps) for t in (0, 1499, 1500, (steps + 1500) // 2, steps)]
    assert found == pytest.approx([1e-6, 1, 1, 0.5, 0], abs=1e-5)


def grouped(*entries: str) -> dict[str, tuple[float, float]]:
    """Rate and decay of every trained tensor of a small SAM."""
    config = compose(["model=sam_tiny", "data=digits_binary", "model.weights=null", *entries])
    model = assemble(config, config.data.classes(), config.data.subject())[0]
    groups = parameter_groups(model, config.hparams, config.model.roles)
    return {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["names"]}


def test_what_a_method_adds_learns_at_a_tenth_by_the_recipe_of_detectors() -> None:
    found = grouped("hparams=vfm", "peft=lora_plus", "peft.ratio=4")
    for name, (rate, decay) in found.items():
        factor = 0.1 if name.endswith("lora_A") else 0.4 if name.endswith("lora_B") else 1.0
        assert rate == pytest.approx(1e-4 * factor), name
        assert decay == 0.1 or factor == 1, name
    assert len({rate for rate, _ in found.values()}) == 3


def test_the_rate_falls_from_block_to_block() -> None:
    """So it does not for what an option names; biases decay, norms and position codes do not."""
    found = grouped("hparams=vfm_full", "peft=full_ft", "hparams.lr_factors={*.blocks.1.*: 3}")
    powers = {
        "patch_embed.proj.weight": 5, "pos_embed": 5, "blocks.0.attn.qkv.bias": 4,
        "blocks.3.norm2.weight": 1, "blocks.3.attn.proj.weight": 1, "neck.0.weight": 0,
    }  # fmt: skip
    for name, power in powers.items():
        decay = 0.0 if "norm" in name or name == "pos_embed" else 0.1
        assert found[f"backbone.{name}"] == (pytest.approx(2.5e-5 * 0.7**power), decay), name
    assert found["backbone.blocks.1.attn.qkv.weight"] == (pytest.approx(7.5e-5), 0.1)
    assert {rate for name, (rate, _) in found.items() if "backbone." not in name} == {2.5e-5}
    with pytest.raises(UserError, match=r"hparams\.layer_decay=0\.7: is for transformers"):
        layer_factors(nn.ModuleDict({"backbone": nn.Identity()}), 0.7)


def test_recipes_of_one_rate_and_of_ten_for_the_head() -> None:
    assert set(grouped("hparams=vfm_sgd", "peft=full_ft").values()) == {(0.01, 1e-4)}
    found = grouped("hparams=segformer", "peft=full_ft")
    for name, (rate, _) in found.items():
        assert rate == pytest.approx(6e-5 if name.startswith("backbone.") else 6e-4), name
    assert found["backbone.pos_embed"][1] == found["backbone.blocks.0.attn.qkv.bias"][1] == 0.01
    assert found["backbone.blocks.0.norm1.weight"][1] == found["backbone.neck.3.weight"][1] == 0


def settings(folder: Path, *more: str) -> Config:
    return compose([*WORDS, f"io.results={folder / 'results'}", *more])


def one_by_one(config: Config) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Train in plain torch, an image a forward; yield each step's mean loss, and the weights."""
    model = assemble(config, config.data.classes(), config.data.subject())[0].train()
    groups = parameter_groups(model, config.hparams, config.model.roles)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    for step, batch in enumerate(train_loader(config).batches(0, STEPS)):
        losses = []
        for i in range(2):
            torch.manual_seed(step_seed(config.seed, step, i))
            image, targets = batch.images[i : i + 1], [batch.targets[i]]
            losses.append(model.loss(model(image, targets), targets)["loss"] / 2)
        optimizer.zero_grad()
        sum(losses).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 0.1)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (0.25, 1, 1, 0.5)[step]
        optimizer.step()
        weights = {name: p.detach().clone() for name, p in trained(model)}
        yield float(sum(losses).detach()), weights  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    Run(settings(folder)).once(train)
    return folder


def test_a_step_of_several_forwards_learns_from_their_mean(whole: Path) -> None:
    run = Run(settings(whole))
    steps = list(one_by_one(run.config))
    logged = [line for line in curve(whole) if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert [line["loss"] for line in logged] == pytest.approx([x for x, _ in steps], rel=1e-5)
    parts = ("loss_ce", "loss_mask", "loss_dice", "loss_bbox", "loss_giou")
    assert all(f"{part}_interm" in line for part in parts for line in logged)
    best = run.once(train)["best"]["step"]  # it is done: this reads its record
    kept = load_file(run.directory / "delta.safetensors")
    for name, weight in steps[best - 1][1].items():
        torch.testing.assert_close(kept[name], weight, rtol=1e-5, atol=1e-7, msg=name)


def test_it_goes_on_from_whole_steps_to_the_bit(whole: Path, tmp_path: Path, monkeypatch) -> None:
    run, forward, end = Run(settings(tmp_path)), Module.training_step, Progress.on_train_batch_end

    def amid_a_step(module: Module, *hook: Any) -> Any:
        if (module.global_step, module.forward_index) == (2, 1):
            raise InterruptedError
        return forward(module, *hook)

    def behind_a_step(progress: Progress, trainer: Any, *hook: Any) -> None:
        end(progress, trainer, *hook)
        if trainer.global_step == 3:
            raise InterruptedError

    monkeypatch.setattr(Module, "training_step", amid_a_step)
    with pytest.raises(InterruptedError):
        run.once(train)
    monkeypatch.setattr(Module, "training_step", forward)
    monkeypatch.setattr(Progress, "on_train_batch_end", behind_a_step)
    with pytest.raises(InterruptedError):
        run.once(train)
    monkeypatch.undo()
    run.once(train)
    assert curve(tmp_path) == curve(whole)
    kept = [(Run(settings(f)).directory / "delta.safetensors").read_bytes()
            for f in (whole, tmp_path)]  # fmt: skip
    assert kept[0] == kept[1]


def test_a_set_smaller_than_a_batch_gives_whole_forwards() -> None:
    def shape(*words: str) -> tuple[int, list[int]]:
        config = compose(["data.train=5", "data.val=2", *words])
        loader = train_loader(config)
        (batch,) = loader.batches(0, 1)
        parts = batch.parts(config.hparams.images_at_once)
        assert torch.cat([part.images for part in parts]).equal(batch.images)
        assert [i for part in parts for i in part.image_ids] == batch.image_ids
        return len(loader), [len(part.targets) for part in parts]

    eight = "hparams.batch_size=8"
    assert shape(eight) == (1, [5])
    assert shape(eight, "hparams.micro_batch=2") == (1, [2, 2])
    assert shape(eight, "hparams.micro_batch=1", "trainer.devices=2") == (1, [1] * 4)
    assert shape(eight, "hparams.micro_batch=8") == (1, [5])  # no forward would be whole
    assert shape("hparams.batch_size=4", "hparams.micro_batch=4") == (1, [4])
