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
from segsweep.run.module import Module, learning_rate_factor, parameter_groups, step_seed
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
            found[word] = (h.lr, h.epochs)
        elif word != "miniature":  # which has a rate of its own, too
            assert h.lr == 0.5, word
    assert found == {
        "convlora": (1e-4, 30), "convlora_camo": (1e-4, 20), "convlora_leaf": (3e-4, 30),
        "convlora_road": (3e-4, 20), "convlora_sbu": (1e-4, 10),
    }  # fmt: skip
    assert compose(["hparams=convlora_road", "hparams.lr=1e-3"]).hparams.lr == 1e-3


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
