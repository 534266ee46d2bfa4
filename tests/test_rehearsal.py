"""What does not fit a model is refused on the meta device, before weights are drawn or copied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segsweep.base.config import compose, words
from segsweep.base.errors import UserError
from segsweep.base.words import files
from segsweep.peft.apply import apply
from segsweep.peft.lora import LoRA
from segsweep.run.identity import Run
from segsweep.run.restore import rehearse
from segsweep.story import train
from tests.small_sam import FOUR, ONE, built, family
from tests.words import need_package_of

UNSEEDED = 987654
WORDS = [
    "model=sam_tiny", "data=digits_binary", "data.train=2", "data.val=1", "io.progress=false",
    "trainer.accelerator=cpu",
]  # fmt: skip
REFUSED = {
    "backbone.blokcs.*.attn.qkv.weight' matches none": [
        "peft=lora", "peft.targets=['backbone.blokcs.*.attn.qkv.weight']"],
    "'deformable' is nothing in this model; it has head, ": [
        "peft=lora", "peft.targets=[deformable]"],
    "hparams.lr_factors: 'backbone.blocks.9.*' matches none": [
        "hparams.lr_factors={backbone.blocks.9.*: 0.5}"],
    "is a SAM of 2 blocks of 16 channels on 4 x 4 cells, model=sam_tiny one of 4": [
        "model.weights=FILE"],
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(family().whole().official(), path)
    return str(path)


@pytest.mark.parametrize("message", REFUSED)
def test_refused_before_anything_is_drawn(message: str, file: str, tmp_path: Path) -> None:
    """To assemble a model begins with its seed."""
    words = [word.replace("FILE", file) for word in REFUSED[message]]
    run = Run(compose([*WORDS, *words, f"io.results={tmp_path}"]))
    torch.manual_seed(UNSEEDED)
    with pytest.raises(UserError) as error:
        train(run)
    assert message in str(error.value)
    assert torch.initial_seed() == UNSEEDED


@pytest.mark.parametrize("word", files("model"))
def test_every_model_takes_the_recipe_that_it_brings(word: str) -> None:
    need_package_of(word)
    of_task = {"instances": "digits", "semantic": "digits_binary", "label": "digits_label"}
    data = of_task[words("model")[word].tasks[0]]
    config = compose([f"model={word}", f"data={data}", "model.weights=null"])
    rehearse(config, config.data.classes(), config.data.subject())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_on_paper_is_judged_as_in_earnest(tmp_path: Path, zipped: bool) -> None:
    """What it is about: names, shapes, and what would be drawn anew."""
    file = tmp_path / "base.pth"
    state = family().whole().official()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    _, _, wanted = built(FOUR, str(file))
    chosen = family(weights=str(file))
    with torch.device("meta"):
        model = chosen.build(FOUR)
    assert wanted.drawn
    assert chosen.load(model, list(FOUR.texts), seed=1).facts() == wanted.facts()
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_a_role_without_weights_may_stand_beside_others() -> None:
    chosen, model, _ = built(ONE, None)
    assert apply(model, LoRA(targets=["deformable", "attention"]), chosen.roles).added > 0
    with pytest.raises(UserError, match="'deformable' is nothing in this model"):
        apply(model, replace(LoRA(), targets=["deformable"]), chosen.roles)
