"""Several methods in one model: what a part may say, where each is, and what they are together."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from segsweep.base.config import Config, compose, fingerprint, plain, typed
from segsweep.base.errors import Unfit, UserError
from segsweep.base.explain import explained
from segsweep.data.base import Subject
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import delta_state_dict
from segsweep.peft.hybrid import Hybrid
from segsweep.results import frame
from segsweep.results.tables import ablation
from segsweep.run.module import parameter_groups
from tests.records import record, write

SMALL = ["model.weights=null", "model.queries=8", "model.points=16", "model.dn_number=4"]


def composed(*words: str, parts: str = "") -> Config:
    with explained():
        return compose(["peft=hybrid", *([f"peft.parts=[{parts}]"] if parts else []), *words])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ("adaptor", r"peft\.parts\.0: peft=adaptor: .* did you mean 'adapter'"),
        ("ia3,{name: lora, rnk: 4}", r"parts\.1\.rnk: there is no key .*did you mean 'rank'"),
        ("{name: lora, rank: two}", r"peft\.parts\.0\.rank=two: must be a whole number"),
        ("{name: lora, rank: 0}", r"peft\.parts\.0: peft\.rank=0: the rank must be at least 1"),
        ("{name: lora_plus, ratio: 0}", r"peft\.parts\.0\.ratio=0\.0: must be more than 0"),
        ("ia3,{name: lora, lr: 0.1}", r"peft\.parts\.1\.lr: parts have one in common; say peft.lr"),
        ("{rank: 4}", r"peft\.parts\.0={'rank': 4}: names no method"),
        ("3", r"peft\.parts\.0=3: names no method"),
        ("from_scratch", r"peft\.parts\.0: model\.weights=.* starts from random weights"),
        ("{name: lora, scope: tail}", r"peft\.parts\.0: peft\.scope=tail: .* choose from encoder"),
    ],
)
def test_a_part_is_as_strict_as_the_word_alone(parts: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        composed(parts=parts)


def test_a_scope_in_which_a_part_has_no_place_is_refused(base: Segmenter) -> None:
    with pytest.raises(UserError, match=r"^peft\.parts\.1: peft\.scope=encoder: nothing"):
        applied(base, parts="lora,{name: adapter, scope: encoder, seams: [*.after_cross_attn]}")


def test_no_parts_are_no_hybrid() -> None:
    with pytest.raises(UserError, match=r"peft\.parts=\[\]: name some"):
        composed("peft.parts=[]")


def test_a_part_has_what_its_word_says_and_may_be_changed_by_its_number() -> None:
    changed = composed("peft.parts.0.fused=joint", "peft.parts.1.repeats=2").peft
    lora, adapter = (["peft=lora", "peft.rank=4", "peft.fused=joint"], ["peft=adapter"])
    adapter += ["peft.repeats=2", "peft.residual=lambda"]
    assert changed.methods == [compose(words).peft for words in (lora, adapter)]
    assert changed.label == "LoRA r=4 fused=joint + Adapters I=2 λ"
    assert composed(parts="pissa,full_head").peft.methods[0] == compose(["peft=pissa"]).peft


def test_a_frozen_hybrid_is_the_same_run() -> None:
    config = composed("seed=1")
    frozen = OmegaConf.create(plain(config))
    assert fingerprint(typed(frozen)) == fingerprint(config)
    part = frozen.peft.parts[0]
    assert not {"lr", "label", "reference", "scope"} & part.keys()
    part.rank = 5
    assert fingerprint(typed(frozen)) != fingerprint(config)


def test_references_in_parts_are_not_looked_up() -> None:
    frozen = plain(composed())
    frozen["peft"]["parts"][0]["targets"] = [r"\${oc.env:HOME}"]
    with pytest.raises(UserError, match=r"peft\.parts\.0: .*is a reference"):
        typed(OmegaConf.create(frozen))


@pytest.fixture(scope="module")
def base() -> Segmenter:
    torch.manual_seed(0)
    return composed(*SMALL).model.build(Subject(["a", "b"])).eval()


def applied(base: Segmenter, *words: str, parts: str = ""):
    config = composed(*SMALL, *words, parts=parts)
    model = copy.deepcopy(base)
    return model, config, apply(model, config.peft, config.model.roles)


def test_counts_add_up_and_edits_merge(base: Segmenter) -> None:
    model, config, counts = applied(base)
    alone = 0
    for method in config.peft.methods:
        alone += apply(copy.deepcopy(base), method, config.model.roles).added
    assert counts.added == alone
    seams = merge(model)
    assert seams
    assert all(".after_" in name for name in seams)
    assert not config.peft.mergeable
    assert composed(parts="lora,full_head").peft.mergeable


def test_each_part_stays_in_its_scope(base: Segmenter) -> None:
    parts = "{name: lora, rank: 2, scope: encoder},{name: lora, rank: 3, scope: decoder},adapter"
    model, _, _ = applied(base, "peft.scope=last:1", parts=parts)
    ranks = {n: len(t) for n, t in delta_state_dict(model).items() if n.endswith("lora_A")}
    assert set(ranks.values()) == {2, 3}
    assert all(("encoder" in name) == (rank == 2) for name, rank in ranks.items())
    layers = {n.partition(".after")[0] for n in delta_state_dict(model) if ".filling." in n}
    assert len(layers) == 1


def test_rows_of_one_weight_may_belong_to_different_parts(base: Segmenter) -> None:
    keys = "{name: ia3, rows: [keys], columns: []}"
    model, _, _ = applied(base, parts=f"{{name: lora, targets: [attention]}},{keys}")
    names = "".join(delta_state_dict(model))
    assert all(f"in_proj_weight:{rows}" in names for rows in ("q.lora_A", "k.ia3", "v.lora_A"))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            "{name: lora, targets: [attention], fused: joint},ia3",
            r"'.*in_proj_weight:k' would be edited by "
            r"0 \(LoRA r=8 targets=attention fused=joint\) and 1 \(IA3\)",
        ),
        ("ia3,dora", r"'.*value_proj.weight' would be edited by 0 \(IA3\) and 1 \(DoRA r=8\)"),
        ("adapter,lora,adapter", r"'.*after_self_attn' would be filled by 0 \(Adap.* and 2 \(Adap"),
    ],
)
def test_two_parts_at_one_place_are_refused(base: Segmenter, parts: str, said: str) -> None:
    with pytest.raises(
        UserError, match=rf"^peft\.parts: {said}.*; give them places apart.* leave one"
    ):
        applied(base, parts=parts)


SAM = ["model=sam_tiny", "data=digits_binary", "model.weights=null"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("peft.parts=[lst,lora]", r"blocks\.0\.attn\.qkv\.weight:q\.lora_A' and 15 more"),
        ("peft.parts=[vpt,lst]", r"blocks\.0\.prompts\.filling\.prompts'"),
        ("peft.parts=[lst,bitfit]", r"patch_embed\.proj\.bias' and 24 more"),
    ],
)
def test_nothing_learns_ahead_of_where_gradients_end(word: str, said: str) -> None:
    config = compose(["peft=hybrid", word, *SAM])
    with torch.device("meta"):
        model = config.model.build(config.data.subject())
    with pytest.raises(UserError, match=rf"^peft: 'backbone\.{said} would not learn: "):
        apply(model, config.peft, config.model.roles)


def test_behind_a_network_beside_the_blocks_parts_learn() -> None:
    parts = "[lst,{name: ssf, targets: [neck], neck: true}]"
    config = compose(["peft=hybrid", f"peft.parts={parts}", *SAM])
    with torch.device("meta"):
        model = config.model.build(config.data.subject())
    assert apply(model, config.peft, config.model.roles).added


def test_a_part_without_a_rank_is_called_without_one() -> None:
    assert Hybrid(name="hybrid", parts=["oft", "vera"]).label == "OFT + VeRA r=256"


def test_parts_of_blocks_and_parts_of_heads_live_together() -> None:
    words = ["model=maskdino_swinl", "model.weights=null"]
    config = composed(*words, parts="{name: adapter, scope: decoder},convpass")
    with torch.device("meta"):
        model = config.model.build(Subject(["a"]))
    apply(model, config.peft, config.model.roles)
    assert {name.partition(".")[0] for name in merge(model)} == {"backbone", "sem_seg_head"}
    with pytest.raises(Unfit, match=r"^peft\.parts\.1: peft=convpass lives in the blocks"):
        composed(parts="lora,convpass")


def test_what_any_part_trains_of_the_base_trains(base: Segmenter) -> None:
    assert composed().peft.train == ["embeddings"]
    parts = "{name: lora, train: [], scope: encoder},{name: decoder_only}"
    _, config, counts = applied(base, parts=parts)
    assert config.peft.train == ["decoder"]
    decoder = sum(p.numel() for p in base.sem_seg_head.predictor.parameters())
    assert counts.trainable == counts.added + decoder


def test_the_second_factor_learns_faster_in_its_own_part_alone(base: Segmenter) -> None:
    parts = "{name: lora_plus, scope: encoder},{name: lora, scope: decoder}"
    model, config, _ = applied(base, "hparams.lr=1", parts=parts)
    groups = parameter_groups(model, config.hparams, config.model.roles)
    fast = {name for g in groups for name in g["names"] if g["lr"] == 16}
    assert fast == {n for n in delta_state_dict(model) if "encoder" in n and n.endswith("lora_B")}


def test_tables_call_a_hybrid_by_its_parts(tmp_path: Path) -> None:
    for ap, words in ((40, ()), (50, ("peft.parts.0.rank=8",)), (60, ("peft.lr=0.01",))):
        options = plain(composed(*words).peft)
        write(tmp_path, record(options.pop("name"), ap, **options))
    (table,) = ablation(frame.read(tmp_path).runs, "segm_AP")
    assert [row.setting for row in table.rows] == [
        "LoRA r=4 + Adapters I=1 λ (lr=0.001)",
        "LoRA r=4 + Adapters I=1 λ (lr=0.01)",
        "LoRA r=8 + Adapters I=1 λ",
    ]


def test_a_hybrid_says_what_its_parts_say() -> None:
    hybrid = Hybrid(name="hybrid", parts=["dora", "lora"])
    assert hybrid.sparse
    assert not hybrid.has_auxiliary_loss
    assert hybrid.identity
    assert not Hybrid(name="hybrid", parts=["lora", "adapter"]).identity
