"""SAM's weight files: three systems of names, merged files, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.model.sam import CLASSIFIER, HEAD, SAM, TOKENS
from segsweep.model.sam_names import segment_anything
from tests.small_sam import FOUR, ONE, built, family, outputs

NAMES = Path(__file__).parent / "data" / "golden" / "heads" / "sam_names.json"


def random(model: torch.nn.Module, seed: int) -> None:
    """No two weights alike, none of them 0."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)


@pytest.fixture(scope="module")
def whole():
    model = family().whole()
    random(model, 3)
    return model


def file_of(folder: Path, state: dict[str, Tensor], name: str = "base.pth") -> str:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file({n: t.detach().clone().contiguous() for n, t in state.items()}, path)
    else:
        torch.save({n: t.detach() for n, t in state.items()}, path)
    return str(path)


def in_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same file as `SamModel` of transformers names it, alias and all."""
    table = json.loads(NAMES.read_text())["vit_b"]["rows"]
    theirs = {name: names for name, _, _, names, _ in table}
    return {other: tensor for name, tensor in state.items() for other in theirs[name]}


def test_files_of_three_systems_are_told_apart(whole, tmp_path):
    state = whole.official()
    other = in_transformers(state)
    assert len(other) == len(state) + 1
    assert not {*other} <= {*state}
    files = [file_of(tmp_path, state), file_of(tmp_path, other, "model.safetensors")]
    _, first, report = built(ONE, files[0])
    reduced = {name for name in first.state_dict() if "criterion" not in name}
    assert report.loaded == len(reduced)
    assert len(report.left) == 3 * 6  # networks of the other mask tokens
    assert "not needed are 18" in str(report)
    assert report.facts()["left"] == report.left
    files.append(file_of(tmp_path, first.state_dict(), "ours.safetensors"))
    expected = outputs(first)
    for file in files:
        _, model, _ = built(ONE, file)
        assert torch.equal(outputs(model), expected)
    assert torch.equal(first.state_dict()[TOKENS], whole.state_dict()[TOKENS][:1])


def test_every_token_is_the_first_of_a_whole_model(whole, tmp_path):
    file = file_of(tmp_path, whole.official())
    _, model, report = built(FOUR, file, mask_tokens=3)
    first = whole.state_dict()[TOKENS][:1]
    assert torch.equal(model.state_dict()[TOKENS], first.repeat(3, 1))
    assert report.drawn == [f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"]
    assert "class layers start at random, as the file has none" in str(report)
    assert model.state_dict()[f"{CLASSIFIER}.bias"].shape == (6,)  # background, no object
    _, again, _ = built(FOUR, file, mask_tokens=3)
    assert torch.equal(outputs(again), outputs(model))  # drawn with the seed


@pytest.mark.parametrize(("subject", "tokens"), [(ONE, 1), (FOUR, 3)])
@pytest.mark.parametrize("based", [True, False])
def test_merged_files_give_the_outputs_of_the_run(whole, tmp_path, subject, tokens, based):
    """Tokens that training has told apart stay apart, the other tokens of the base stay whole."""
    base = file_of(tmp_path, whole.official()) if based else None
    chosen, model, _ = built(subject, base, mask_tokens=tokens)
    random(model, 5)
    state = chosen.official(model)
    merged = file_of(tmp_path, state, "merged.pth")
    _, again, _ = built(subject, merged, mask_tokens=tokens)
    assert torch.equal(outputs(again), outputs(model))
    is_whole = based and subject is ONE
    assert ({*state} == {*whole.official()}) == is_whole
    if is_whole:
        assert {n: t.shape for n, t in state.items()} == {
            n: t.shape for n, t in whole.official().items()
        }
        others = state["mask_decoder.mask_tokens.weight"][1:]
        assert torch.equal(others, whole.state_dict()[TOKENS][1:])
    (said,) = chosen.caveats(state)
    told = "told classes" if tokens > 1 else "of the base" if is_whole else "has one mask token"
    assert told in said


def test_a_model_of_classes_can_start_one_of_a_foreground(tmp_path):
    chosen, model, _ = built(FOUR, None)
    random(model, 5)
    file = file_of(tmp_path, chosen.official(model))
    _, one, report = built(ONE, file)
    assert report.left == [f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias"]
    assert torch.equal(one.state_dict()[TOKENS], model.state_dict()[TOKENS])


def refusal(file: str, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        built(ONE, file, **changes)
    assert file in str(error.value)
    return str(error.value)


def test_files_that_are_none(whole, tmp_path):
    state = whole.official()
    alone = {n: t for n, t in state.items() if n.startswith("image_encoder.")}
    decoder = {n: t for n, t in state.items() if n.startswith("mask_decoder.")}
    bare = {n.removeprefix("image_encoder."): t for n, t in alone.items()}
    for encoder in (alone, bare):
        said = refusal(file_of(tmp_path, encoder))
        assert "holds the image encoder of a SAM alone" in said
        assert "model=sam needs a whole one" in said
    assert "holds the mask decoder of a SAM alone" in refusal(file_of(tmp_path, decoder))
    dino = {"cls_token": torch.zeros(1, 1, 8), "blocks.0.ls1.gamma": torch.zeros(8)}
    assert "holds no SAM (cls_token, blocks.0.ls1.gamma" in refusal(file_of(tmp_path, dino))
    assert "1 missing (backbone.blocks.0.norm1.weight)" in refusal(
        file_of(tmp_path, {n: t for n, t in state.items() if "blocks.0.norm1.weight" not in n})
    )


@pytest.mark.parametrize(
    ("kwargs", "size"),
    [({"depth": 3}, "3 blocks of 16"), ({"embed_dim": 32}, "2 blocks of 32 channels"),
     ({"img_size": 64}, "on 8 x 8 cells")],
)  # fmt: skip
def test_files_of_other_sizes(whole, tmp_path, kwargs, size):
    said = refusal(file_of(tmp_path, whole.official()), kwargs=kwargs)
    assert "is a SAM of 2 blocks of 16 channels on 4 x 4 cells" in said
    assert size in said


def test_files_of_other_families(whole, tmp_path):
    mask_dino = compose(["model.weights=null"]).model
    with torch.device("meta"):
        names = mask_dino.build(replace(ONE, task="instances")).state_dict()
    other = {name: torch.zeros(1) for name in names}
    assert "seems to belong to MaskDINO" in refusal(file_of(tmp_path, other))
    file = file_of(tmp_path, whole.official())
    with pytest.raises(UserError, match=r"seems to belong to SAM .*mask_decoder\.iou_token"):
        replace(mask_dino, weights=file).refuse_other_family(whole.official())


def test_names_of_transformers_are_never_those_of_segment_anything(whole):
    """But where both systems agree, so that a file is known by one weight."""
    theirs = in_transformers(whole.official())
    assert {segment_anything(name) for name in theirs} == {*whole.official()}
    assert f"{HEAD}mask_decoder.iou_token.weight".endswith(SAM.sign)
    assert any(name.endswith(SAM.sign) for name in theirs)
