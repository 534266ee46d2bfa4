"""Singular values of weights and updates: numbers, the verb `spectrum`, the panel of the report."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from segsweep.analysis.spectrum import Spectrum, chosen, numbered, picked, read, spectra
from segsweep.base.config import compose
from segsweep.base.errors import Damaged, UserError
from segsweep.data.base import Subject
from segsweep.model.family import BackboneConfig
from segsweep.pages.report.rank import rank_panel
from segsweep.pages.spectrum import HEADS
from segsweep.peft.apply import apply
from segsweep.run.folder import DELTA
from segsweep.run.identity import Run
from segsweep.run.restore import base
from segsweep.run.shapes import record_of
from segsweep.story import train
from segsweep.verbs import spectrum

WIDTH, RANK = 24, 2
WORDS = [
    "model=vit_tiny_segformer", "data=digits_binary", "data.train=2", "data.val=1", "seed=1",
    "data.size=[32,32]", "hparams.epochs=1", "hparams.batch_size=1", "model.weights=null",
    f"model.backbone.kwargs.embed_dim={WIDTH}", "model.backbone.kwargs.depth=2",
]  # fmt: skip
METHODS = {"full_ft": [], "lora": [f"peft.rank={RANK}"], "adapter": [], "frozen": []}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spectrum") / "results"
    for method, words in METHODS.items():
        Run(compose([*WORDS, f"peft={method}", *words, f"io.results={folder}"])).once(train)
    return folder


def run_of(results: Path, method: str) -> Path:
    (directory,) = (results / "runs").glob(f"*-{method}-*")
    return directory


def values(*numbers: float) -> Spectrum:
    return Spectrum(1, "w", "w", True, (len(numbers), len(numbers)), np.array(numbers, float))


@pytest.mark.parametrize("d", [1, 2, 10, 64])
def test_all_ranks_of_the_identity_are_its_size(d: int) -> None:
    one = values(*[1.0] * d)
    assert one.effective_rank == pytest.approx(d)
    assert one.stable_rank == pytest.approx(d)
    assert one.rank() == ceil(0.9 * d)


def test_ranks_are_those_of_their_definitions() -> None:
    one = values(3, 1, 1, 1, 0)  # squares 9 of 12, then 10, 11, 12
    assert [one.rank(share) for share in (0.75, 0.76, 0.9, 1)] == [1, 2, 3, 4]
    assert one.stable_rank == pytest.approx(12 / 9)
    entropy = -(0.5 * np.log(0.5) + 3 * np.log(1 / 6) / 6)
    assert one.effective_rank == pytest.approx(np.exp(entropy))
    zero = values(0, 0)
    assert (zero.rank(), zero.stable_rank, zero.effective_rank) == (None, None, None)


def test_a_lora_changes_a_weight_by_its_rank(results: Path) -> None:
    """In single precision, what merging rounds off would look like rank: d values, not r."""
    found = spectra(run_of(results, "lora"), "update")
    assert [matrix.part for matrix in found.matrices] == ["fused", "q", "k", "v"] * 2
    counts = [int(np.sum(m.values > 1e-6 * m.values[0])) for m in found.matrices]
    assert counts == [2 * RANK, RANK, 0, RANK] * 2
    assert not any(matrix.trained for matrix in found.matrices)


def test_an_update_is_the_tuned_weight_minus_that_of_the_seed(results: Path) -> None:
    directory = run_of(results, "full_ft")
    found = spectra(directory, "update", [2])
    config = compose([*WORDS, "peft=full_ft"])
    model, _ = base(config, config.data.classes(), config.data.subject())
    name = "backbone.blocks.1.attn.qkv.weight"
    update = load_file(directory / DELTA)[name].double() - model.state_dict()[name].double()
    for matrix, part in zip(found.matrices, [update, *update.chunk(3)], strict=True):
        np.testing.assert_allclose(matrix.values, torch.linalg.svdvals(part), rtol=1e-9)
        assert matrix.trained
        assert matrix.shape == part.shape
    weights = spectra(directory, "weight", [2], at="*.mlp.fc1.weight").matrices
    assert [matrix.part for matrix in weights] == ["mlp.fc1"]


def test_the_verb_writes_a_list_pictures_and_what_the_report_reads(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, records = run_of(results, "full_ft"), results / "runs"
    every = [record for path in records.iterdir() if (record := record_of(path))]
    before = rank_panel(results, every)
    assert before is not None
    assert (before.sentences, before.unseen) == ([], [directory.name])
    runs = [str(path) for path in records.iterdir()]
    assert spectrum.main([*runs, "--results", str(results), "layers=1,2"]) == 0
    said = capsys.readouterr().out
    assert "peft=frozen trains nothing, so there is no update" in said
    assert "peft=adapter changed none of these weights: backbone.blocks.0.attn.qkv" in said
    assert "Started from random weights" in said
    out = results / "spectrum"
    with (out / "update.csv").open() as file:
        heads, *rows = csv.reader(file)
    assert tuple(heads) == HEADS
    assert len(rows) == 2 * 2 * 4  # runs, layers, fused and thirds
    assert {row[heads.index("rank of 90%")] for row in rows if "-lora-" in row[0]} >= {""}
    for name in ("update", "update_mass"):
        with Image.open(out / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    panel = rank_panel(results, every)
    assert panel is not None
    assert (len(panel.svgs), panel.unseen) == (1, [])
    (sentence,) = panel.sentences
    assert "2 steps changed in random weights, 90% of the squared mass lies in rank" in sentence
    assert sentence.endswith(f"of {WIDTH} (v); layers 1, 2 of 2.")
    (full,) = [record for record in every if record["name"] == directory.name]
    stale = json.loads(json.dumps(full))
    stale["files"][DELTA]["sha256"] = "0" * 64  # trained again since
    panel = rank_panel(results, [stale])
    assert panel is not None
    assert (panel.sentences, panel.unseen) == ([], [directory.name])
    assert rank_panel(results, [r for r in every if r is not full]) is None
    kept = json.loads((out / directory.name / "update.json").read_text())
    kept["matrices"][1]["values"].reverse()
    (tmp_path / "update.json").write_text(json.dumps(kept))
    with pytest.raises(Damaged, match=r"qkv.weight:q: no singular values, the largest first"):
        read(tmp_path / "update.json")


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("frozen", [], "peft=frozen trains nothing, so there is no update; of=weight shows"),
        ("adapter", [], r"at places is no weight: .*after_attn \.\.\. .*after_mlp"),
        ("lora", ["layers=1,3"], "layers=3: model=vit_tiny_segformer has 2 layers .*, 1 to 2"),
        ("lora", ["layers=0"], "layers=0: .* 1 to 2"),
        ("lora", ["at=norms"], r"no matrix at norms; it has matrices at=.*attention.*ffn"),
        ("lora", ["at=*.qkw.weight"], r"at: '\*.qkw.weight' matches none of .* did you mean"),
        ("lora", ["at=atention"], "at: 'atention' is no role of this model"),
    ],
)
def test_what_cannot_be_shown_is_said(
    results: Path, tmp_path: Path, method: str, words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        spectrum.main([str(run_of(results, method)), f"out={tmp_path / 'out'}", *words])
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_not_finished_or_has_no_weights_is_refused(
    results: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "runs" / run_of(results, "full_ft").name
    shutil.copytree(run_of(results, "full_ft"), copy)
    (copy / DELTA).rename(tmp_path / DELTA)
    with pytest.raises(UserError, match="is gone"):
        spectra(copy, "update")
    (copy / "record.json").unlink()
    with pytest.raises(UserError, match="its run has not finished"):
        spectra(copy, "update")


def test_base_weights_that_are_others_now_are_refused(results: Path, tmp_path: Path) -> None:
    """A delta of all weights does not tell: its base has none of its own."""
    config = compose([*WORDS, "peft=full_ft"])
    file = tmp_path / "base.pt"
    model, _ = base(config, config.data.classes(), config.data.subject())
    torch.save(model.state_dict(), file)
    run = Run(compose([*WORDS, "peft=full_ft", f"model.weights={file}", f"io.results={tmp_path}"]))
    run.once(train)
    assert spectra(run.directory, "update", [1]).start.startswith("weights: ")
    torch.save({k: t + 1 if t.is_floating_point() else t for k, t in model.state_dict().items()},
               file)  # fmt: skip
    with pytest.raises(UserError, match="are others now"):
        spectra(run.directory, "update", [1])
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        spectra(run.directory, "update", [1])


@pytest.mark.parametrize(
    ("words", "first", "depth"),
    [
        # the network beside the blocks has attention of its own
        ("sam_tiny digits_binary lst", "backbone.blocks.0.attn.qkv.weight", 4),
        ("swin_tiny_segformer digits_binary lora", "backbone.layers.0.blocks.0.attn.qkv.weight", 8),
        (
            "maskdino_tiny digits lora",
            "sem_seg_head.predictor.decoder.layers.0.self_attn.in_proj_weight",
            3,
        ),
    ],
)
def test_attention_is_that_of_the_backbone_if_it_has_some(
    words: str, first: str, depth: int
) -> None:
    keys = zip(("model", "data", "peft"), words.split(), strict=True)
    config = compose(["=".join(pair) for pair in keys])
    with torch.device("meta"):
        model = config.model.build(Subject(("a",), config.data.task))
        apply(model, config.peft, config.model.roles)
    layers = numbered(chosen(model, config))
    assert (layers[1][0].name, len(layers)) == (first, depth)


def test_a_model_without_attention_says_what_it_has() -> None:
    config = compose(["model=swin_tiny_segformer", "data=digits_binary"])
    config.model = replace(config.model, backbone=BackboneConfig("resnet18", "resnet"))
    with torch.device("meta"):
        model = config.model.build(Subject(("a",), "semantic"))
    with pytest.raises(UserError, match="has no attention weights; it has matrices at=head"):
        chosen(model, config)


def test_the_first_of_each_third_is_what_the_paper_shows_of_twelve() -> None:
    config = compose([])
    assert [[*picked(count, (), config)] for count in (12, 4, 2, 1, 24)] == [
        [1, 5, 9],
        [1, 2, 3],
        [1, 2],
        [1],
        [1, 9, 17],
    ]
