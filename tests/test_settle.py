"""The seeds that would settle a table: which are named, and that their command lines make them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from segsweep.base.config import Config, compose, identity, plain
from segsweep.base.errors import UserError
from segsweep.data.sets.digits import DomainName
from segsweep.run.identity import Run
from segsweep.sweeps.commands import joined, words_of
from segsweep.sweeps.names import chosen, remember
from segsweep.verbs import plan

BASE = ["data.train=8", "data.val=4", "hparams.epochs=2"]
Values = dict[str, dict[str, tuple[float, ...]]]
CLEAR: Values = {  # of two data sets, by method: full head far above, or LoRA close to it
    "full_head": {"clean": (50.0, 50.4, 50.2), "xray": (40.0, 40.4, 40.2)},
    "lora": {"clean": (49.5, 49.1, 49.3), "xray": (30.0, 30.4, 30.2)},
    "adapter": {"clean": (20.0, 20.4, 20.2), "xray": (20.0, 20.4, 20.2)},
}


def composed(results: Path, *words: str) -> Config:
    return compose([f"io.results={results}", *BASE, *words])


def measured(config: Config, ap: float) -> Run:
    """Write the record of a finished run as its own config and metric name things."""
    run = Run(config)
    metric = config.metrics
    unit, direction = metric.names()[metric.key]
    value = {"value": ap, "unit": unit, "direction": direction, "protocol": metric.protocol()}
    record = run.head() | {
        "status": "done",
        "metrics": {metric.key: value},
        "params": {"trainable": 1000},
        "seconds": {"setup": 15.0, "train": 80.0, "evaluate": 5.0, "total": 100.0},
        "memory": {"peak_rss_mib": 1024.0, "peak_cuda_mib": None},
        "data": {"fingerprint": config.data.fingerprint(), "images": {"train": 8, "val": 4}},
    }
    run.directory.mkdir(parents=True)
    (run.directory / "record.json").write_text(json.dumps(record))
    return run


def study(results: Path, values: Values, sweep: str = "") -> None:
    """Write the runs of methods on data sets, seed by seed; a sweep may know their words."""
    for method, sets in values.items():
        config = composed(results, f"peft={method}")
        for domain, seeds in sets.items():
            config.data.domain = DomainName[domain]
            for config.seed, ap in enumerate(seeds):
                run = measured(config, ap)
                if sweep:
                    own = [f"peft={method}", f"data.domain={domain}", f"seed={config.seed}"]
                    remember(results, sweep, {run.name: [*BASE, *own]})


def asked(results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert plan.main(["--settle", "ablation", f"io.results={results}", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("sweep", ["", "first"])
def test_the_missing_seeds_of_what_is_open_are_new_runs_that_differ_in_the_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sweep: str
) -> None:
    study(tmp_path, CLEAR, sweep)
    old = {path.name for path in (tmp_path / "runs").iterdir()}
    clean, xray = (answer := asked(tmp_path, capsys))["columns"]
    assert xray["settled"]
    (comparison,) = clean["open"]
    assert comparison["against"] == "Full head"
    assert comparison["gap"] == pytest.approx(0.9)
    assert comparison["seeds"] is None  # the margin of 1 is too near
    assert not answer["runs"]
    clean, _ = (answer := asked(tmp_path, capsys, "--margin", "0.6"))["columns"]
    needed = clean["open"][0]["seeds"]
    assert needed > 3
    (command,) = answer["commands"]
    assert f"seed={','.join(map(str, range(3, needed)))}" in command
    assert "data.domain=xray" not in command
    planned = {run["run"]: run for run in answer["runs"]}
    assert len(planned) == 2 * (needed - 3)
    assert not old & planned.keys()
    assert {run["state"] for run in planned.values()} == {"new"}
    assert {round(3600 * run["hours"]) for run in planned.values()} == {100}
    assert {run["source"] for run in planned.values()} == {"3 run(s) like it"}
    for run in (answer["runs"][0], answer["runs"][-1]):
        method = next(w for w in run["overrides"] if w.startswith("peft="))
        first = identity(compose([*BASE, method, "data.domain=clean"]))
        assert identity(compose(run["overrides"])) | {"seed": 0} == first


def test_nothing_known_of_noise_asks_for_two_more_seeds_and_they_can_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("full_head", "lora"):
        measured(composed(tmp_path, f"peft={method}", "seed=4"), 50.0)
    words = ["--settle", "ablation", f"io.results={tmp_path}"]
    assert plan.main([*words, "--save", "more", "--max-hours", "100"]) == 0
    out = capsys.readouterr().out
    assert "one run of each tells no noise; two more seeds of each are the beginning" in out
    (command,) = [line for line in out.splitlines() if line.startswith("python -m segsweep -m ")]
    saved = [run.name for run in chosen(tmp_path, ["more"])]
    pasted = shlex.split(command)[3:]
    assert plan.main([*pasted, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in runs] == saved
    assert [run["overrides"][-2] for run in runs] == ["seed=5", "seed=6"] * 2


def test_an_unstable_setting_is_named_and_gets_no_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    near = {method: {"clean": CLEAR[method]["clean"]} for method in ("full_head", "lora")}
    study(tmp_path, near | {"adapter": {"clean": (49.0, 49.2, 20.0)}})
    (column,) = (answer := asked(tmp_path, capsys, "--margin", "0.6"))["columns"]
    (unstable,) = column["unstable"]
    assert unstable.startswith("Adapter")
    assert [one["setting"] for one in column["open"]] == ["LoRA (r=8)"]
    assert answer["runs"]
    assert not any("adapter" in run["run"] for run in answer["runs"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--settle", "ablatoin"], "did you mean 'ablation'"),
        (["--settle", "ablation"], "no finished run below"),
        (["--settle", "ablation", "--margin", "0"], "--margin 0: must be more than 0"),
        (["--settle", "ablation", "peft=lora"], "peft=lora would make other settings"),
    ],
)
def test_what_cannot_be_settled_is_refused(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan.main([f"io.results={tmp_path}", *words])


@pytest.mark.parametrize(
    "words",
    [
        ["model=seem_tiny", "model.text_encoder=trained", "peft.lr=1e-4", "hparams.epochs=3"],
        ["peft=adapter", "hparams.lr=0.01", "hparams.lr_factors={head:0.5}", "seed=7", "repeat=2"],
        ["metrics=coco_255", "trainer=debug", "data.slices=[camera]", "model.weights=null"],
        ["data.prompts={zero: 'a digit, round'}"],
    ],
)
def test_the_words_of_a_record_compose_its_run(tmp_path: Path, words: list[str]) -> None:
    run = measured(composed(tmp_path, *words), 50.0)
    record = json.loads((run.directory / "record.json").read_text())
    found = words_of(record)
    same = [f"seed={run.config.seed}", f"repeat={run.config.repeat}"]
    assert Run(compose([*found, *same])).id == run.id
    assert not {"hparams.lr=0.001", "trainer=default", "metrics=coco"} & set(found)
    changed = record | {"id": "0" * 12}  # of other data or weights
    with pytest.raises(UserError, match="no other seed of it can be run here: its data"):
        words_of(changed)


def test_the_words_of_a_sweep_may_hold_blanks() -> None:
    config = composed(Path("r"), "model.label=a b")
    record = {"id": Run(config).id, "name": "x", "config": plain(config)}
    words = words_of(record, "model.label=a b peft=lora seed=0 model.label='a b'")
    assert words[:3] == ["model.label=a b", "peft=lora", "model.label='a b'"]


def test_few_lines_stand_for_just_the_runs_that_are_asked_for() -> None:
    runs = [["a=1", "b=1"], ["a=1", "b=2"], ["a=2", "b=1"], ["a=2", "b=2"], ["a=3", "b=2"], ["c=1"]]
    assert joined(runs) == [["a=1,2", "b=1,2"], ["a=3", "b=2"], ["c=1"]]


def test_settings_are_compared_with_the_reference_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = {("full_head", 1e-4): 30.0, ("full_head", 1e-3): 50.0, ("lora", 1e-3): 49.1}
    for (method, lr), level in levels.items():
        config = composed(tmp_path, f"peft={method}", f"peft.lr={lr}")
        for config.seed in range(3):
            measured(config, level + 0.2 * config.seed)
    words = ["--settle", "against_full_head", f"io.results={tmp_path}", "--json"]
    assert plan.main(words) == 0
    (column,) = json.loads(capsys.readouterr().out)["columns"]
    assert [(c["setting"], c["against"]) for c in column["open"]] == [
        ("LoRA (r=8)", "Full head (lr=0.001)")
    ]
