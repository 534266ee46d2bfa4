"""A sweep is a product of blocks of override lines, narrowed by the command line."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.base.errors import UserError
from segsweep.base.words import files
from segsweep.sweeps.sweeper import alternatives, composing, configs, expand

SETTINGS = {
    "settings": [
        "peft=full_head,decoder_only",
        "peft=adapter peft.repeats=1,2",
        "peft=lora peft.rank=2,4",
    ],
}


def test_a_block_is_the_union_of_its_lines_and_a_line_the_product_of_its_words():
    assert expand(SETTINGS) == [
        ["peft=full_head"],
        ["peft=decoder_only"],
        ["peft=adapter", "peft.repeats=1"],
        ["peft=adapter", "peft.repeats=2"],
        ["peft=lora", "peft.rank=2"],
        ["peft=lora", "peft.rank=4"],
    ]


def test_blocks_multiply():
    blocks = {"cells": ["model=a data=x,y", "model=b data=z"], "seeds": ["seed=0,1"]}
    assert expand(blocks) == [
        [model, data, seed]
        for model, data in (("model=a", "data=x"), ("model=a", "data=y"), ("model=b", "data=z"))
        for seed in ("seed=0", "seed=1")
    ]


@pytest.mark.parametrize(
    ("blocks", "words", "named"),
    [
        ({}, ["seed=range(10000)", "repeat=range(100)"], r"seed \(10,000\), repeat \(100\)"),
        ({}, ["seed=range(1000000000000)"], "seed"),
        ({"seeds": ["seed=range(2000)"]}, ["repeat=range(500)"], "itself.*2,000.*repeat"),
        ({"a": ["seed=range(1000)"], "b": ["repeat=range(1000)"]}, [], r"a \(1,000\), b \(1,000\)"),
        ({"a": ["seed=range(1000) repeat=range(1000)"]}, [], r"seed \(1,000\), repeat \(1,000\)"),
    ],
)
def test_a_million_runs_are_refused_before_they_are_made(blocks, words, named):
    with pytest.raises(UserError, match=f"1,000,000 runs or more.*{named}"):
        expand(blocks, words)


def test_no_blocks_leave_the_command_line():
    assert expand({}, ["a=1,2", "b=3"]) == [["a=1", "b=3"], ["a=2", "b=3"]]


def test_a_word_on_the_command_line_narrows():
    assert expand(SETTINGS, ["peft=lora"]) == [
        ["peft=lora", "peft.rank=2"],
        ["peft=lora", "peft.rank=4"],
    ]
    assert expand(SETTINGS, ["peft.rank=4"]) == [["peft=lora", "peft.rank=4"]]


def test_a_new_value_replaces_the_key_where_it_stands():
    assert expand(SETTINGS, ["peft.rank=4,32"]) == [
        ["peft=lora", "peft.rank=4"],
        ["peft=lora", "peft.rank=32"],
    ]
    assert expand({"seeds": ["seed=0,1"]}, ["seed=7"]) == [["seed=7"]]
    assert expand({"seeds": ["seed=0"]}, ["seed=0,1,2"]) == [["seed=0"], ["seed=1"], ["seed=2"]]


def test_a_new_key_is_added_to_all():
    assert all(c[-1] == "hparams.epochs=2" for c in expand(SETTINGS, ["hparams.epochs=2"]))
    assert len(expand(SETTINGS, ["seed=0,1"])) == 12


def test_hydra_sweep_syntax_holds():
    assert alternatives(["peft.rank=range(2,5)"])["peft.rank"] == [
        f"peft.rank={i}" for i in (2, 3, 4)
    ]
    assert alternatives(["data.root=/a/b"]) == {"data.root": ["data.root=/a/b"]}


keys = st.sampled_from(["a", "b", "c.d", "e"])
lines = st.dictionaries(keys, st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1)


@settings(deadline=None)  # of a machine that is busy
@given(st.lists(st.lists(lines, min_size=1, max_size=3), max_size=2))
def test_counts_are_products_of_sums_of_products(blocks):
    """Keys of different blocks are made different, so that nothing is narrowed or doubled."""
    named, expected = {}, 1
    for i, block in enumerate(blocks):
        named[f"block{i}"] = [
            " ".join(f"k{i}_{j}_{k}={','.join(map(str, v))}" for k, v in line.items())
            for j, line in enumerate(block)
        ]
        distinct = [
            set(itertools.product(*[{f"k{i}_{j}_{k}={x}" for x in v} for k, v in line.items()]))
            for j, line in enumerate(block)
        ]
        expected *= len(set().union(*distinct))
    assert len(expand(named)) == expected


def test_configs_composes_a_sweep_from_conf():
    found = list(configs(["+sweep=demo", "seed=3"]))
    words = [" ".join(combination) for combination, _ in found]
    assert len(words) == len(set(words)) >= 5
    assert all(config.seed == 3 for _, config in found)
    assert {config.peft.name for _, config in found} >= {"lora", "frozen"}


def test_a_glob_stands_for_every_word_of_a_group():
    with composing(["+sweep=methods_mini"]) as (_, combinations):
        methods = [word for c in combinations for word in c if word.startswith("peft=")]
    assert {word.partition("=")[2] for word in methods} == {*files("peft")} - {"from_scratch"}
    assert len(methods) == 2 * 2 * (len(files("peft")) - 1)


def test_the_miniature_has_the_ten_settings_in_each_look_and_four_on_classes():
    with composing(["+sweep=convlora_mini"]) as (_, combinations):
        assert len(combinations) == 44
    binary = [config.peft for _, config in configs(["+sweep=convlora_mini", "data.domain=street"])]
    several = [
        config.peft for _, config in configs(["+sweep=convlora_mini", "data=digits_semantic"])
    ]
    published = [c.peft.name for _, c in configs(["+sweep=convlora", "data=kvasir"])]
    assert {method.name for method in binary} == {*published}
    assert len(binary) == 10
    assert len(several) == 4
    assert all(method in binary for method in several)


def test_a_mistyped_line_is_refused():
    with pytest.raises(Exception, match=r"mismatched|extraneous|no viable"):
        expand({"settings": ["peft=[lora"]})
