"""Experts of Conv-LoRA: what the gate decides, and what the verb `experts` tells of it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segsweep.analysis.experts import (
    Routing,
    Routings,
    Sampled,
    cells_of,
    gated,
    listening,
    routings,
)
from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.model.layers.seam import Tokens, auxiliary_losses
from segsweep.pages.experts import image_map
from segsweep.peft.apply import apply
from segsweep.peft.conv_lora import ConvLoRA
from segsweep.peft.layers_conv_lora import LowRankExperts
from segsweep.run.identity import Run
from segsweep.run.restore import Restored
from segsweep.story import train
from segsweep.verbs import experts
from tests.small_hosts import blocks, images, layouts, small_host

GRID, PREFIX = (4, 5), 2
WORDS = ["model=sam_tiny", "peft=conv_lora", "data=digits_binary", "data.domain=source"]
TINY = ["data.train=2", "data.val=3", "hparams.epochs=1", "hparams.batch_size=2", "seed=1"]


def filling(switch: bool = False, experts: int = 4) -> LowRankExperts:
    """One whose parts are all drawn, so that samples go to several experts."""
    torch.manual_seed(0)
    module = LowRankExperts(24, 2, 1.0, experts, switch)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.eval()


def samples(count: int = 12) -> tuple[torch.Tensor, torch.Tensor, Tokens]:
    """What passes, the stream, and where its tokens are."""
    generator = torch.Generator().manual_seed(1)
    n = PREFIX + GRID[0] * GRID[1]
    u = torch.randn(count, n, 8, generator=generator)
    u = u + torch.randn(count, 1, 8, generator=generator)  # else all means are alike
    return torch.zeros(count, n, 24), u, Tokens(GRID, PREFIX, images=count)


def chosen(module: LowRankExperts, u: torch.Tensor) -> torch.Tensor:
    """The experts of samples, by the definition: those of the highest logits of the mean."""
    e = u[:, PREFIX:] @ module.lora_A.T
    return (e.mean(1) @ module.gate.weight).argmax(1)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*", "ignore::torch.jit.TracerWarning")
def test_a_traced_program_decides_as_the_module_does() -> None:
    module, (y, u, tokens) = filling(), samples()

    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, y: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return self.module(y, u, tokens)

    exported = torch.export.export(Traced(), (y, u.flip(0)), strict=False).module()
    traced: Any = torch.jit.trace(Traced(), (y, u.flip(0)))
    assert chosen(module, u).unique().numel() > 2
    for program in (exported, traced):
        torch.testing.assert_close(program(y, u), module(y, u, tokens))


@torch.no_grad()
def test_samples_do_not_depend_on_each_other() -> None:
    module, (y, u, tokens) = filling(), samples()
    alone = [module(y[i : i + 1], u[i : i + 1], tokens) for i in range(len(u))]
    torch.testing.assert_close(torch.cat(alone), module(y, u, tokens))


@torch.no_grad()
def test_prefix_tokens_get_the_low_rank_part_alone() -> None:
    module, (y, u, tokens) = filling(), samples()
    given, plain = module(y, u, tokens), u @ module.lora_A.T @ module.lora_B.T
    torch.testing.assert_close(given[:, :PREFIX], plain[:, :PREFIX])
    assert not given[:, PREFIX:].allclose(plain[:, PREFIX:], atol=1e-2)


@torch.no_grad()
def test_large_values_stay_finite() -> None:
    """The published program mixes experts by logarithms, which overflow from 88 on."""
    module, (y, u, tokens) = filling(), samples()
    assert module(y, 1e4 * u, tokens).isfinite().all()


@pytest.mark.parametrize("switch", [False, True])
def test_what_the_task_and_the_balance_train(switch: bool) -> None:
    module, (y, u, tokens) = filling(switch), samples(3)
    module(y, u, tokens).square().sum().backward()
    used = {f"experts.{i}.{part}" for i in chosen(module, u) for part in ("weight", "bias")}
    trained = {name for name, p in module.named_parameters() if p.grad is not None}
    assert trained == {"lora_A", "lora_B", *used} | ({"gate.weight"} if switch else set())
    assert len(used) < 2 * 4
    assert not auxiliary_losses(module)
    module.train()(y, u, tokens)
    (loss,) = auxiliary_losses(module).values()
    gradients = torch.autograd.grad(loss, [*module.gate.parameters()])
    assert all(gradient.any() for gradient in gradients)


@torch.no_grad()
def test_a_switch_multiplies_by_the_softmax() -> None:
    module, (y, u, tokens) = filling(switch=True), samples()
    _, gate = module.gate(u[:, PREFIX:].mean(1) @ module.lora_A.T)
    logits = (u[:, PREFIX:].mean(1) @ module.lora_A.T) @ module.gate.weight
    torch.testing.assert_close(gate, logits.softmax(1).amax(1))
    plain, whole = (u @ module.lora_A.T @ module.lora_B.T)[:, PREFIX:], filling()
    added = module(y, u, tokens)[:, PREFIX:] - plain
    released = whole(y, u, tokens)[:, PREFIX:] - plain
    torch.testing.assert_close(added, gate[:, None, None] * released)


@pytest.mark.parametrize("key", ["rank", "experts", "alpha"])
def test_sizes_below_one_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=rf"peft.{key}=0.*: must be (at least 1|more than 0)"):
        compose([*WORDS, f"peft.{key}=0"])


def adapted(layout: str) -> Any:
    """A small host with experts whose gates are drawn."""
    host = small_host(layout)
    apply(host, ConvLoRA(name="conv_lora", train=[], experts=3), {})
    for module in host.modules():
        if isinstance(module, LowRankExperts):
            nn.init.normal_(module.gate.weight)
    return host


@layouts
@torch.no_grad()
def test_cells_are_those_that_a_window_is_cut_from(layout: str) -> None:
    """Windows of the normed stream hold its cells, and zeros in their padding."""
    host, seen = adapted(layout), []
    for block in blocks(host):
        block.after_norm1.register_forward_hook(lambda m, x, u: seen.append((u, x[2])))
        block.beside_qkv.register_forward_hook(lambda m, x, y: seen.append((x[1], x[2])))
    host(images())
    for block, (whole, tokens), (cut, window) in zip(
        blocks(host), seen[::2], seen[1::2], strict=True
    ):
        cells = cells_of(block, tokens.grid)
        stream = nn.functional.pad(whole[:, tokens.prefix :], (0, 0, 0, 1))
        assert torch.equal(stream[:, cells].flatten(0, 1), cut[:, window.prefix :])


@torch.no_grad()
def test_windows_of_padding_alone_are_left_out_and_the_others_know_what_they_hold() -> None:
    """6 x 4 cells of 16 pixels in windows of 3 x 3 cells: 2 x 2 of them, the lower ones padded."""
    host, image = adapted("sam"), images()  # 64 x 96 pixels
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, :8, :60], masks[1, 40:64, 40:50] = True, True  # 480 and 240 pixels
    sizes, originals = [(64, 40), (30, 96)], [(640, 400), (30, 96)]
    targets = [SimpleNamespace(masks=masks), SimpleNamespace(masks=masks[:0])]
    batch: Any = SimpleNamespace(
        images=image, image_ids=[7, 8], targets=targets, sizes=sizes, original_sizes=originals
    )
    with listening(gated(host), host) as logs:
        host(image)
        for log in logs:
            log.take(batch, {7})
    windowed, whole = (log.routing() for log in logs)
    assert (windowed.windowed, whole.windowed) == (True, False)
    # of the first image the left two windows, of the second the upper two
    assert windowed.held.tolist() == [480, 240, 0, 0]
    assert whole.held.tolist() == [480, 0]
    chosen = logs[0].last["expert"].view(2, 4)
    assert windowed.expert.tolist() == [*chosen[0, [0, 2]].tolist(), *chosen[1, :2].tolist()]
    assert windowed.images.keys() == {7}
    sampled = windowed.images[7]
    assert sampled.window.tolist() == [[0, 0, 0, 1, 1, 1]] * 3 + [[2, 2, 2, 3, 3, 3]]
    assert (sampled.height, sampled.width) == (160, 160)


def test_sizes_are_thirds_of_all_masks() -> None:
    held = np.array([0, 1, 10, 11, 20, 21, 99])
    block = Routing("b", True, 2, np.array([1, 1, 1, 2, 2, 2, 2]), held, 0, {})
    found = Routings("val", 1, [block], np.array([1, 10, 11, 20, 21, 99]))
    assert found.sizes(block).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert block.counts(found.sizes(block) == 2).tolist() == [0, 2]
    alike = Routing("b", True, 2, held[:2] + 1, np.array([0, 5]), 0, {})
    assert Routings("val", 1, [alike], np.array([5, 5, 5])).sizes(alike).tolist() == [0, 1]
    assert Routings("val", 1, [alike], held[:0]).cuts == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Run(compose([*WORDS, *TINY, f"io.results={tmp_path_factory.mktemp('results')}"]))
    made.once(train)
    return made.directory


def test_the_verb_counts_and_draws(run: Path, tmp_path: Path, capsys) -> None:
    words = [f"run={run}", "image=val/1", "blocks=0,3", f"out={tmp_path / 'out'}"]
    assert experts.main(words) == 0
    lists = {path.stem: list(csv.DictReader(path.open())) for path in tmp_path.glob("out/*.csv")}
    assert lists.keys() == {"shares", "sizes", "windows"}
    shares = [
        [float(v) for k, v in row.items() if k.startswith("scale")] for row in lists["shares"]
    ]
    assert [row["samples"] for row in lists["shares"]] == ["12", "3", "12", "3"]
    assert [round(sum(row)) for row in shares] == [100] * 4
    by_size = [int(row["samples"]) for row in lists["sizes"]]
    assert [sum(by_size[i : i + 4]) for i in range(0, 16, 4)] == [12, 3, 12, 3]
    assert {row["image"] for row in lists["windows"]} == {"val/1"}
    assert len(lists["windows"]) == 4 + 1 + 4 + 1
    for name in ("shares", "image-2"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert "Of equal logits the lowest scale is chosen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("image=val/17", r"image=val/17: no file or id of the 3 of val; did you mean 'val/1'"),
        ("split=all", r"split=all: data=digits_binary has train, val"),
        ("blocks=1,4", r"blocks=4: the run has experts in 4, 0 to 3"),
    ],
)
def test_what_cannot_be_drawn_is_said(run: Path, tmp_path: Path, word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        experts.main([f"run={run}", f"out={tmp_path / 'out'}", word])
    assert not (tmp_path / "out").exists()


def test_a_run_without_experts_is_refused(tmp_path: Path) -> None:
    config = compose(["model=sam_tiny", "peft=lora", "data=digits_binary", "model.weights=null"])
    model = config.model.build(Subject(["loop"], "semantic"))
    with pytest.raises(UserError, match="peft=lora has no experts to choose from; name a run of"):
        routings(Restored(tmp_path, config, {}, model), "val")


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_titles_of_an_image_map_are_whole(tmp_path: Path, count: int) -> None:
    """No ink touches the border of the picture, however many panels share it."""
    sampled = Sampled(np.zeros((4, 4), int), np.ones(1, int), 8.0, 8.0)
    expert, held = np.ones(1, int), np.zeros(1)
    found = [Routing(f"blocks.{i}", False, 2, expert, held, 0, {1: sampled}) for i in range(count)]
    record: Any = SimpleNamespace(image_id=1, file="1.png")
    pixels = np.full((32, 32, 3), 128, np.uint8)
    file, *_ = image_map(record, pixels, found).save(tmp_path / "map")
    ink = (np.asarray(Image.open(file).convert("L")) < 200).any(1).nonzero()[0]
    assert ink[0] >= 5
