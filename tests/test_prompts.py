"""Texts of classes: where they come from, what becomes of them, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.data.sets.digits import Digits, DomainName
from segsweep.model.heads.prompts import BACKGROUND, Templates, encode, templates, token_ids
from segsweep.run.messages import class_lines
from segsweep.run.record import data_facts
from tests.small_coco import content, write

PLAIN = ["{}."]
CONTEXT = 77


def ids_of(text: str) -> list[int]:
    return list(encode(text))


def read(row: torch.Tensor) -> list[int]:
    """The ids of a text without the zeros behind it."""
    return row[: int(row.argmax()) + 1].tolist()


def test_background_is_the_last_class_and_every_template_is_filled():
    sentences = ["{}.", "a photo of a {}.", "the {} in a video game."]
    train, test = token_ids(["rigid_plastic", "Metal"], sentences, CONTEXT)
    assert train.shape == test.shape == (3, 3, CONTEXT)
    assert train.dtype == torch.int64
    for k, text in enumerate(["rigid_plastic", "Metal", BACKGROUND]):
        for t, sentence in enumerate(sentences):
            assert read(test[k, t]) == ids_of(sentence.format(text))
    assert torch.equal(train, test)


def test_training_hears_no_commas_and_plus_signs():
    train, test = token_ids(["bus, school", "salt+pepper"], PLAIN, CONTEXT)
    assert read(train[0, 0]) == ids_of("bus school.")
    assert read(test[0, 0]) == ids_of("bus, school.")
    assert read(train[1, 0]) == ids_of("salt pepper.")
    assert read(test[1, 0]) == ids_of("salt+pepper.")


def test_the_suffixes_of_panoptic_names_are_removed():
    names = ["wall-other-merged", "tree-merged", "door-stuff", "window"]
    for table in token_ids(names, PLAIN, CONTEXT):
        told = [read(row[0]) for row in table[:-1]]
        assert told == [ids_of(f"{name}.") for name in ("wall", "tree", "door", "window")]


def test_texts_are_planned_without_memory():
    with torch.device("meta"):
        assert all(table.is_meta for table in token_ids(["cat"], PLAIN, CONTEXT))


@pytest.mark.parametrize(("which", "count"), [("all81", 81), ("paper32", 32)])
def test_templates_are_sentences_with_one_place(which, count):
    sentences = templates(Templates[which])
    assert len(set(sentences)) == len(sentences) == count
    assert sentences[0] == "{}."
    assert all(sentence.count("{}") == 1 for sentence in sentences)
    assert set(sentences) <= set(templates(Templates["all81"]))


def test_ones_own_templates_replace_the_others():
    own = ["an X-ray of a {}.", "{} on a belt"]
    assert templates(Templates["all81"], own) == own


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ([], ["[]", "at least one"]),
        (["a photo"], ["'a photo'", "needs one {}"]),
        (["{}.", "a {} and a {}"], ["'a {} and a {}'", "needs one {}"]),
        (["a {name}."], ["'a {name}.'", "no other braces"]),
        (["a {} in {0}."], ["'a {} in {0}.'", "no other braces"]),
    ],
)
def test_templates_without_their_one_place_are_refused(own, said):
    with pytest.raises(UserError, match=r"model\.own_templates") as error:
        templates(Templates["all81"], own)
    assert all(part in str(error.value) for part in [*said, "a photo of a {}."])


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["cat", ""], ["class 1", "''", "says nothing", "rename"]),
        (["  \t"], ["class 0", "says nothing"]),
        ([",+"], ["class 0", "',+'", "says nothing"]),
        (["-other"], ["class 0", "'-other'", "says nothing"]),
        (["cat", "dog", "cat"], ["class 2", "'cat'", "of class 0"]),
        (["Cat", "cat"], ["class 1", "'Cat' of class 0", "case"]),
        (["red  car", "red car "], ["class 1", "'red  car' of class 0"]),
        (["tree-merged", "tree-other"], ["class 1", "'tree-merged' of class 0"]),
        (["a+b", "a b"], ["class 1", "'a+b' of class 0", "plus"]),
        (["bus, school", "bus school"], ["class 1", "'bus, school' of class 0", "comma"]),
        (["background"], ["class 0", "'background'", "no class", "leave"]),
        (["cat", "Background-stuff"], ["class 1", "'Background-stuff'", "no class"]),
        (["cat", "word " * 100], ["word word", "103 tokens", "reads 77", "shorten"]),
    ],
)
def test_texts_that_cannot_tell_a_class_are_refused(texts, said):
    with pytest.raises(UserError, match=r"^data\.prompts: ") as error:
        token_ids(texts, PLAIN, CONTEXT)
    message = str(error.value)
    assert all(part in message for part in [*said, "data.prompts={NAME:text}"]), message
    assert len(message) < 300


def test_a_text_that_fits_alone_but_not_in_a_template_is_refused():
    long = "word " * 74
    token_ids([long], PLAIN, CONTEXT)
    with pytest.raises(UserError, match=r"'a photo of a \{\}\.'"):
        token_ids([long], ["{}.", "a photo of a {}."], CONTEXT)


def test_classes_are_told_by_their_names_unless_prompted():
    data = Digits(name="digits", domain=DomainName.clutter)
    assert data.texts() == data.classes() == ["loop", "bar", "bow", "fork"]
    data.prompts = {"bow": "a bow, as in 3"}
    assert data.texts() == ["loop", "bar", "a bow, as in 3", "fork"]


def test_prompts_of_unknown_classes_are_refused_with_the_near_name(tmp_path):
    data = write(tmp_path, prompts={"blot": "a steel bolt"})
    with pytest.raises(UserError, match=r"no class 'blot' .*did you mean 'bolt'.*nut"):
        data_facts(data)


def test_the_record_says_what_each_class_was_told_by(tmp_path):
    renamed = content()
    renamed["categories"][0]["name"] = "Bolt, M4"
    data = write(tmp_path, renamed, renamed, prompts={"nut": "a hexagonal nut"})
    facts = data_facts(data)
    assert facts["classes"] == ["nut", "Bolt, M4"]
    assert facts["category_ids"] == [4, 9]
    assert facts["prompts"] == ["a hexagonal nut", "Bolt, M4"]
    lines = class_lines(facts).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["0", "4", "nut", "a", "hexagonal", "nut"],
        ["1", "9", "Bolt,", "M4", "Bolt,", "M4"],
    ]


def test_many_classes_are_said_in_few_lines():
    names = [f"thing{k}" for k in range(80)]
    facts = {"category_ids": range(1, 81), "classes": names, "prompts": ["first", *names[1:]]}
    said = class_lines(facts)
    assert "0/1 thing0 = first, 1/2 thing1, " in said
    assert "79/80 thing79" in said
    assert len(said.splitlines()) < 16
    assert max(map(len, said.splitlines())) <= 100


def test_prompts_are_part_of_what_a_run_is_but_rename_no_old_run():
    key = fingerprint(compose([]))
    assert fingerprint(compose(["data.prompts={}"])) == key
    one = compose(["data.prompts={digit:a white digit}"])
    assert one.data.prompts == {"digit": "a white digit"}
    assert fingerprint(one) != key
    assert compose(["data.prompts.digit=a number"]).data.prompts == {"digit": "a number"}
    quoted = compose(['data.prompts={digit:"one, two", a b:c}'])
    assert quoted.data.prompts == {"digit": "one, two", "a b": "c"}


@pytest.mark.parametrize("value", ["[a]", "{a:b}"])
def test_a_prompt_is_one_text(value):
    with pytest.raises(UserError, match=r"data\.prompts: 'digit' has .* one text"):
        compose([f"data.prompts={{digit:{value}}}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data.prompts={digit:background}"], ["data.prompts", "'background'", "{NAME:text}"]),
        (["model.own_templates=[a photo]"], ["model.own_templates", "'a photo'", "{}"]),
    ],
)
def test_what_a_model_cannot_read_is_refused_while_it_is_built(words, said):
    def build() -> None:
        config = compose(["model=seem_tiny", *words])
        config.model.build(config.data.subject())

    with pytest.raises(UserError) as error, torch.device("meta"):
        build()
    assert all(part in str(error.value) for part in said)


def test_a_mistyped_class_is_named_before_training(tmp_path: Path):
    words = ["data=coco", "data.prompts={bold:a steel bolt}", f"data.root={tmp_path / 'set'}"]
    write(tmp_path / "set")
    line = [sys.executable, "-m", "segsweep", "model=seem_tiny", *words]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in ("data.prompts", "'bold'", "did you mean 'bolt'"):
        assert part in done.stderr
    assert not list(tmp_path.rglob("metrics.jsonl"))
