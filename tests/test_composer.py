"""Composing on copies gives what Hydra gives, for every sweep, and refuses as it does."""

from functools import partial
from pathlib import Path

import hydra
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.base.config import fingerprint, plain, typed
from segsweep.base.errors import Unfit, UserError
from segsweep.base.explain import explained
from segsweep.sweeps.composer import Composer
from segsweep.sweeps.sweeper import composing

SWEEPS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf/sweep").glob("*.yaml"))


def by_hydra(words):
    return typed(hydra.compose("train", overrides=words))


def said(make, words):
    """What composing gives, or what it says against it."""
    try:
        with explained():
            return plain(make(words))
    except (UserError, Unfit) as error:
        return type(error), str(error)


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_is_composed_as_hydra_composes_it(sweep):
    with composing([f"+sweep={sweep}"]) as (_, combinations):
        compose = Composer(partial(hydra.compose, "train"))
        for words in combinations[:: max(1, len(combinations) // 3)]:
            assert said(compose, words) == said(by_hydra, words), words


def test_values_are_set_as_hydra_sets_them_wherever_they_stand():
    lines = [
        "peft=lora",
        "peft.rank=3 peft=lora seed=-5",
        "peft=lora peft.targets=[attention,ffn] peft.scope=last:2 hparams.lr=1e-5",
        "hparams.lr_factors={head:0.5} hparams.ema=null hparams.schedule=cosine",
        "peft=lora peft.lr=3 hparams.backbone_lr=0.5 io.results=elsewhere",
        "model=sam_tiny data=digits_binary model.backbone.kwargs.depth=2 data.domain=street",
        "model=maskdino_tiny model.weights=null seed=1 seed=2",
        "peft=lora +peft.rank=3",
        "peft=lora peft.rnk=3",
        "peft=lora peft.rank=two",
        "peft=lora peft.rank=-1",
        "peft=lora peft.rank=[1]",
        "peft=lora peft.rank={a:1}",
        "peft.rank=3 peft=frozen",
        "hparams=nothing seed=1",
        "data=coco seed=1",
        "model=sam_tiny seed=1",
        "~logger seed=1",
        "logger@metrics=csv seed=1",
        "data.domain='street' data.train='8'",
        "peft.name=adapter seed=1",
        "hparams.lr=${seed} seed=3 io.results=a/${data.name}",
        "io.results=there peft.lr=0.5 model.clip=3",  # others refer to these
        "hparams.lr_factors.head=0.5",
        "sed=3",
    ]
    with composing([]):
        compose = Composer(partial(hydra.compose, "train"))
        whole = {line: said(by_hydra, line.split()) for line in lines}
        for _ in range(2):  # what is set on copies does not stay
            for line in lines:
                assert said(compose, line.split()) == whole[line], line


@settings(max_examples=8, deadline=None)
@given(
    st.integers(-9, 9),
    st.floats(1e-8, 10, allow_nan=False),
    st.integers(0, 64),
    st.sampled_from(["r", "null", "true", "1e-3", "[1,2]", "multistep", "'a b'"]),
)
def test_any_value_is_set_or_refused_as_by_hydra(seed, rate, rank, odd):
    words = ["peft=lora", f"seed={seed}", f"hparams.lr={rate}", f"peft.rank={rank}"]
    words += [f"hparams.schedule={odd}"] if seed % 2 else [f"peft.label={odd}"]
    with composing([]):
        compose = Composer(partial(hydra.compose, "train"))
        assert said(compose, words) == said(by_hydra, words)


def test_runs_share_nothing_that_could_change():
    with composing([]):
        compose = Composer(partial(hydra.compose, "train"))
        first, second = (compose(["peft=lora", f"seed={seed}"]) for seed in range(2))
    first.model.backbone.kwargs["depth"], first.io.results = 9, "elsewhere"
    assert plain(second) == plain(first) | {
        "seed": 1, "model": plain(second.model), "io": plain(second.io)
    }  # fmt: skip
    assert second.io.results == "results"
    assert "depth" not in second.model.backbone.kwargs


def test_groups_are_composed_once():
    seen = []

    def counted(overrides):
        seen.append(overrides)
        return hydra.compose("train", overrides=overrides)

    with composing([]):
        compose = Composer(counted)
        keys = [
            fingerprint(compose(["peft=lora", f"peft.rank={rank}", f"seed={seed}"]))
            for rank in (2, 4)
            for seed in range(3)
        ]
    assert seen == [["peft=lora"]]
    assert len(set(keys)) == 6
