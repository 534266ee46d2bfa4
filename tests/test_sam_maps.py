"""SAM finds label maps; what of it trains, and how much that is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND, Subject
from segsweep.loss.outputs import Masks
from segsweep.model.heads import frames
from segsweep.model.sam import ROLES
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply
from segsweep.peft.lora import Fused, LoRA
from segsweep.peft.select import Select
from tests.small_sam import FOUR, ONE, built, outputs


def on_paper(word: str, subject: Subject, **changes: Any) -> Segmenter:
    with torch.device("meta"):
        return replace(compose([f"model={word}", "data=kvasir"]).model, **changes).build(subject)


def test_counts_are_the_published_ones():
    model, joint = on_paper("sam_h", ONE), {"targets": ["attention"], "fused": Fused.joint}
    for count, method in {
        3_505_536: Select(train=["decoder"]),
        3_957_888: Select(train=["embeddings", "biases"]),
        3_997_056: LoRA(rank=3, alpha=32, **joint),
    }.items():
        assert apply(model, method, ROLES).trainable == count
    twelve = Subject(tuple(f"class {i}" for i in range(11)), "semantic")  # with background
    for tokens, count in ((1, 3_508_877), (10, 3_511_181)):
        model = on_paper("sam_b", twelve, mask_tokens=tokens)
        assert apply(model, Select(train=["decoder"]), ROLES).trainable == count


def test_prompts_and_the_rating_of_masks_never_train():
    frozen = re.compile(r"sem_seg_head\.(prompt_encoder|mask_decoder\.iou_prediction_head)\.")
    chosen, model, _ = built(FOUR, None)
    known = {name for name, _ in model.named_parameters()}
    for role in (name for name, patterns in chosen.roles.items() if patterns and name != "seams"):
        apply(model, Select(train=[role]), chosen.roles)
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained
        assert not [name for name in trained if frozen.match(name)]
    apply(model, Select(train=["backbone", "head"]), chosen.roles)
    at_rest = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert at_rest == {name for name in known if frozen.match(name)}
    with pytest.raises(UserError, match=r"encoder\.\*"):
        apply(model, Select(train=["encoder.*"]), chosen.roles)


@pytest.mark.parametrize("method", ["lora", "ia3", "adapter"])
def test_default_targets_exist(method):
    chosen, model, _ = built(ONE, None)
    before = outputs(model)
    peft = compose([f"peft={method}"]).peft
    assert apply(model, peft, chosen.roles).added > 0
    if peft.identity:
        torch.testing.assert_close(outputs(model), before, atol=1e-6, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        UserError, match="model=sam_b serves the task semantic, that of data=coco is instances"
    ):
        compose(["model=sam_b", "data=coco"])
    with pytest.raises(UserError, match=r"model\.backbone\.layout=resnet: model=sam_b reads"):
        compose(["model=sam_b", "data=kvasir", "model.backbone.layout=resnet"])
    with pytest.raises(UserError, match=r"embedding=16 must be .* twice model\.decoder_heads=6"):
        built(ONE, None, decoder_heads=3)
    with pytest.raises(UserError, match="255 classes, but label maps hold 8 bits, of which 254"):
        Subject(tuple(map(str, range(255))), "semantic")


def test_few_masks_for_many_classes_are_told(monkeypatch):
    config = compose(["model=sam_b", "data=trans10k"])
    monkeypatch.setattr(type(config.data), "subject", lambda self: FOUR)
    assert "model.mask_tokens=1: at most so many of the 5 classes" in config.model.advice(
        config.data
    )
    assert not replace(config.model, mask_tokens=5).advice(config.data)
    monkeypatch.setattr(type(config.data), "subject", lambda self: ONE)
    assert not config.model.advice(config.data)


def views(*sizes: Sequence[int]) -> Any:
    return [tuple(tuple(size) for size in sizes)]


def test_padding_is_left_out_and_probabilities_are_resized():
    """A threshold between probabilities lies elsewhere than one between logits."""
    _, model, _ = built(ONE, None)
    logits = torch.full((1, 1, 16, 16), -9.0)
    logits[..., :8] = 1.0
    logits[..., 12:] = 50.0  # padding, columns 24 to 31
    (found,) = model.predict(Masks(logits, None), views((32, 24), (32, 32), (64, 48)))
    full = torch.nn.functional.interpolate(logits, (32, 32), mode="bilinear").sigmoid()[..., :24]
    scores = torch.nn.functional.interpolate(full, (64, 48), mode="bilinear")[0, 0]
    assert torch.equal(found.scores, scores)
    assert torch.equal(found.classes == 0, scores > 0.5)
    assert torch.equal(found.classes == BACKGROUND, scores <= 0.5)
    assert torch.equal(found.label_map(background=True), found.classes)


def test_strips_give_the_same_label_map(monkeypatch):
    """Of several classes, background among them; however sure, a class is one."""
    _, model, _ = built(FOUR, None, mask_tokens=3)
    torch.manual_seed(2)
    output = Masks(torch.randn(1, 3, 16, 16) * 4, torch.eye(6)[None, [0, 2, 4]] * 3)
    view = views((30, 32), (32, 32), (61, 47))
    (found,) = model.predict(output, view)
    monkeypatch.setattr(frames, "CELLS", 2000)
    (strips,) = model.predict(output, view)
    assert torch.equal(strips.classes, found.classes)
    assert output.classes is not None
    masks = torch.nn.functional.interpolate(output.logits, (32, 32), mode="bilinear")
    p = output.classes.softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bkhw", p, masks.sigmoid()[:, :, :30])
    scores = torch.nn.functional.interpolate(scores, (61, 47), mode="bilinear")[0]
    expected = scores.argmax(0)
    assert (expected == 4).any()
    classes = torch.where(expected == 4, BACKGROUND, expected)
    assert (classes == found.classes).float().mean() > 0.999
    assert torch.equal(found.label_map(background=True), found.classes)
    assert (found.scores[found.classes != BACKGROUND] < 0.5).any()


def test_every_size_brings_its_recipe():
    """The published ones theirs, unless another is chosen; the order of words does not matter."""
    for words in (["model=sam_l", "data=kvasir"], ["data=kvasir", "model=sam_l"]):
        assert compose(words).hparams.name == "convlora"
        assert compose([*words, "hparams=default"]).hparams.name == "default"
    assert compose(["model=sam_tiny", "data=kvasir"]).hparams.name == "miniature"
