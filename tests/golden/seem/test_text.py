"""Texts of classes: tokenizer, text encoder and embeddings give the released numbers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from recorded import HEAD
from torch import Tensor

from segsweep.model.heads.language import LanguageEncoder, unit
from segsweep.model.heads.prompts import PAPER, encode

pytestmark = pytest.mark.golden
WEIGHTS = "sd/" + HEAD + "predictor.lang_encoder."


@pytest.fixture
def texts(golden) -> dict[str, Tensor]:
    """The recorded texts, states and embeddings."""
    return golden.arrays("text_encoder")


@pytest.fixture
def language(golden) -> LanguageEncoder:
    """The text encoder with the recorded weights, frozen."""
    language = golden.language()
    language.load_state_dict(golden.state("tiny_state_dict", WEIGHTS))
    return language.requires_grad_(False).eval()


def prompted(like: LanguageEncoder, golden: Any, train_ids: Tensor) -> LanguageEncoder:
    """The same encoder with other texts for training."""
    text = {key: golden.config["text"][key] for key in ("vocab", "width", "heads", "layers")}
    text["context"] = golden.config["text"]["context_length"]
    made = LanguageEncoder(train_ids, like.eval_ids, **text, proj=like.lang_proj.shape[1])
    made.load_state_dict(like.state_dict())
    return made.requires_grad_(False)


def runs_of(language: LanguageEncoder) -> list[int]:
    """Collect the number of texts of every pass through the transformer from now on."""
    passes: list[int] = []
    language.lang_encoder.register_forward_hook(lambda _, args, out: passes.append(len(args[0])))
    return passes


def test_every_text_has_the_ids_of_clips_tokenizer(golden):
    recorded = golden.json("clip_tokenizer")
    longest = recorded["context_length"]
    assert recorded["cases"]
    for case in recorded["cases"]:
        ids = list(encode(case["text"]))
        if len(ids) > longest:  # a model is never told so much; CLIP's own program cuts it
            ids = [*ids[: longest - 1], ids[-1]]
        assert ids == case["input_ids_unpadded"], case["text"]
    assert encode("")[0] == recorded["bos"]
    assert encode("")[-1] == recorded["eos"] == recorded["vocab_size"] - 1


def test_the_papers_templates_are_the_recorded_ones(golden):
    recipe = golden.json("paper_recipe")["text_prompts"]
    assert list(PAPER) == recipe["templates_paper_repository"]


def test_states_of_all_tokens(golden, language, texts):
    ids = texts["input_ids"].long()
    states = language.lang_encoder(ids)
    golden.check(states, texts["last_hidden_state"])
    golden.check(unit(states @ language.lang_proj), texts["token_emb_norm"])
    end = texts["attention_mask"].sum(1) - 1
    assert torch.equal(end.long(), ids.argmax(1))
    at_end = states[torch.arange(len(ids)), end.long()]
    golden.check(at_end @ language.lang_proj, texts["class_emb_unnorm"])


def test_embeddings_whatever_stands_behind_the_end(golden, language, texts):
    whole, zeros = (
        language.encode(texts[key].long()) for key in ("input_ids", "input_ids_zero_padded")
    )
    golden.check(whole, texts["class_emb_norm"])
    golden.check(zeros, texts["class_emb_norm_zero_padded"])
    assert torch.equal(whole, zeros)


def test_the_cut_to_the_longest_text_changes_nothing(language, texts):
    ids = texts["input_ids"].long()
    alone = torch.cat([language.encode(row[None]) for row in ids])
    padded = torch.nn.functional.pad(ids, (0, 3))  # more than the context has positions for
    torch.testing.assert_close(language.encode(padded), alone)
    seen = []
    language.lang_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    language.encode(ids)
    assert seen == [int(texts["attention_mask"].sum(1).max())]


def test_evaluation_averages_all_templates(golden, language, texts):
    golden.check(language(draw=False), texts["eval_text_embeddings"])


def test_training_takes_one_template_per_class_by_the_seed(golden, language, texts):
    ids = texts["eval_template_input_ids"].long()
    language = prompted(language, golden, ids)
    every = language.encode(ids.flatten(0, 1)).unflatten(0, ids.shape[:2])
    torch.manual_seed(7)
    first, second = language(draw=True), language(draw=True)
    torch.manual_seed(7)
    assert torch.equal(first, language(draw=True))
    assert not torch.equal(first, second)
    for k, embedding in enumerate(first):
        assert (every[k] - embedding).abs().amax(1).min() < 1e-6
    torch.manual_seed(7)
    state = torch.get_rng_state()
    torch.randint(ids.shape[1], (len(ids),))
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    language(draw=True)
    assert torch.equal(after, torch.get_rng_state())


def test_the_same_template_is_drawn_whether_it_trains_or_not(golden, language, texts):
    language = prompted(language, golden, texts["eval_template_input_ids"].long())
    torch.manual_seed(3)
    frozen = language(draw=True)
    torch.manual_seed(3)
    torch.testing.assert_close(frozen, language.requires_grad_(True)(draw=True).detach())


@pytest.mark.parametrize("other", [False, True])
def test_a_frozen_encoder_reads_every_text_once(golden, language, texts, other):
    ids = texts["eval_template_input_ids"].long()
    language = prompted(language, golden, ids.flip(0) if other else ids)
    passes = runs_of(language)
    for draw in (True, False, True):
        language.train(draw)
        assert not language(draw).requires_grad
    assert sum(passes) == ids.shape[0] * ids.shape[1] * (2 if other else 1)
    assert max(passes) <= 256


def test_an_encoder_that_trains_reads_what_is_drawn_and_learns(language, texts):
    language.requires_grad_(True).train()
    passes = runs_of(language)
    embeddings = language(draw=True)
    assert passes == [len(texts["input_ids"])]
    embeddings.square().sum(0)[0].backward()
    silent = [name for name, p in language.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == ["logit_scale"]


def test_evaluation_follows_the_weights_while_they_train(language):
    before = language.requires_grad_(True).eval()(draw=False)
    assert not before.requires_grad
    passes = runs_of(language)
    assert language(draw=False) is before
    assert passes == []
    for fused in (False, True):
        language.train()
        optimizer = torch.optim.AdamW(language.parameters(), lr=1e-2, fused=fused)
        language(draw=True)[0, 0].backward()
        optimizer.step()
        after = language.eval()(draw=False)
        assert (after - before).abs().max() > 1e-4
        before = after


def test_weights_that_are_loaded_later_are_read_anew(golden, language, texts):
    late = golden.language().requires_grad_(False)
    late(draw=False)
    with torch.no_grad():
        for name, tensor in language.state_dict().items():
            late.state_dict()[name].copy_(tensor)
    golden.check(late(draw=False), texts["eval_text_embeddings"])


def test_a_scale_that_trains_alone_leaves_the_texts_encoded(language):
    language.logit_scale.requires_grad_(True)
    text = language(draw=True)
    assert not text.requires_grad
    passes = runs_of(language)
    language.similarity(text, language(draw=True)).sum().backward()
    assert passes == []
    assert language.logit_scale.grad is not None


def test_texts_that_inference_encoded_serve_training(language, texts):
    with torch.inference_mode():
        language(draw=False)
    query = torch.randn(2, 3, language.lang_proj.shape[1], requires_grad=True)
    language.similarity(query, language(draw=True)).sum().backward()
    assert query.grad is not None


def test_texts_are_encoded_in_single_precision_under_autocast(language):
    before = copy.deepcopy(language)(draw=False)
    with torch.autocast("cpu", torch.bfloat16):
        text = language(draw=False)
        assert torch.equal(text, before)
        logits = language.similarity(text, text)
    assert torch.equal(logits, language.similarity(text, text))


def test_similarity_is_the_scaled_cosine(golden, language):
    recorded = golden.arrays("similarity")
    cases = [key for key in recorded if key.startswith("logits_scale_")]
    assert cases
    for key in cases:
        language.logit_scale.fill_(float(key.removeprefix("logits_scale_")))
        logits = language.similarity(recorded["v_emb"], recorded["text_embeddings"])
        golden.check(logits, recorded[key])


def test_copies_moves_and_pickles_keep_the_embeddings(language):
    expected = language(draw=False)
    for other in (copy.deepcopy(language), pickle.loads(pickle.dumps(language))):
        assert torch.equal(other(draw=False), expected)
        with torch.no_grad():
            other.lang_proj.neg_()
        assert torch.allclose(other(draw=False), -expected)
        assert torch.equal(language(draw=False), expected)
    passes = runs_of(language)
    torch.testing.assert_close(language.to(torch.float64)(draw=False).float(), expected)
    assert passes == []


def test_texts_are_no_part_of_the_state(golden, language):
    language(draw=False)
    assert list(language.state_dict()) == list(golden.state("tiny_state_dict", WEIGHTS))


def test_it_can_be_planned_without_memory(golden):
    with torch.device("meta"):
        planned = golden.language()
    made = golden.language()
    shapes = [{n: p.shape for n, p in x.named_parameters()} for x in (planned, made)]
    assert shapes[0] == shapes[1]
    assert all(p.is_meta for p in copy.deepcopy(planned).parameters())
