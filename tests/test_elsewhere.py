"""A finished run on data that it was not trained on: a further record, and never a second run."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest

from segsweep.analysis import study
from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.pages.report import content
from segsweep.pages.report.page import render
from segsweep.results import reported
from segsweep.results.elsewhere import joined, shift_tables
from segsweep.results.frame import read
from segsweep.results.spec import load as load_table
from segsweep.results.tables import ablation, build
from segsweep.results.typeset import texts
from segsweep.results.wishes import Wishes
from segsweep.run.elsewhere import elsewhere
from segsweep.run.folder import DELTA
from segsweep.run.identity import Run
from segsweep.run.predictions import of_run
from segsweep.run.restore import load
from segsweep.story import train
from segsweep.sweeps.names import chosen
from segsweep.verbs import compare, evaluate, predict, prune, retry, status
from tests.records import record, write
from tests.runs import contents

TINY = [
    "data.train=2", "data.val=4", "data.domain=source", "hparams.epochs=1", "hparams.batch_size=2",
    "data.size=[96,96]", "data.resample=bicubic", "metrics.max_dets=7",
]  # fmt: skip
XRAY = ["data=digits", "data.domain=xray", "data.val=2"]
OWN = ["data=digits", "data.domain=source", "data.train=3", "data.val=4"]  # the same val


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two runs of the same scenes: LoRA after a step, and the frozen base."""
    results = tmp_path_factory.mktemp("results")
    made = [Run(compose([*TINY, f"io.results={results}", *words])) for words in (
        ["peft=lora", "peft.lr=0.1"], ["peft=frozen"])]  # fmt: skip
    for run in made:
        run.once(train)
    return [run.directory for run in made]


@pytest.fixture
def copied(runs: list[Path], tmp_path: Path) -> Path:
    """The first run, to be changed."""
    return Path(shutil.copytree(runs[0], tmp_path / "results" / "runs" / runs[0].name))


def judged(run: Path, *words: str) -> Path:
    """Judge a run; return the folder of the newest record."""
    assert evaluate.main([str(run), *words]) == 0
    folders = (run.parent.parent / "elsewhere" / run.name).glob("[!.]*")
    return max(folders, key=lambda folder: (folder / "record.json").stat().st_mtime_ns)


def said(directory: Path) -> dict:
    return json.loads((directory / "record.json").read_text())


def test_the_same_weights_see_other_pictures_in_the_same_way(copied: Path, capsys) -> None:
    before = contents(copied)
    folder = judged(copied, *OWN)
    assert contents(copied) == before
    there, here = said(folder), said(copied)
    assert there["metrics"] == here["metrics"]  # of the same pictures
    assert there["judges"]["run"] == here["id"] != there["id"]
    kept = ("size", "resample")
    assert all(there["config"]["data"][k] == here["config"]["data"][k] for k in kept)
    assert there["config"]["metrics"]["max_dets"] == 7
    other = said(judged(copied, *XRAY, "data.size=[64,64]", "metrics=coco_255"))
    assert other["config"]["data"]["size"] == [64, 64]
    assert other["config"]["metrics"]["max_dets"] == 255
    assert other["data"]["images"] == {"val": 2}
    files = contents(folder)
    capsys.readouterr()
    judged(copied, *OWN)
    assert capsys.readouterr().out.count("done already") == 1
    assert contents(folder) == files


def test_no_verb_takes_it_for_a_run(copied: Path, capsys) -> None:
    results, folder = copied.parent.parent, judged(copied, *OWN)
    assert chosen(results, []) == [copied]
    capsys.readouterr()
    status.main(["--results", str(results)])
    assert folder.name not in capsys.readouterr().out
    records = read(results)
    assert [run["id"] for run in records.runs] == [said(copied)["id"]]
    assert [run["id"] for run in records.elsewhere] == [said(folder)["id"]]
    for verb, words in ((retry, []), (prune, ["--yes"]), (status, []), (predict, ["split=val"])):
        with pytest.raises(UserError, match=f"is the run {copied.name} on other data; name"):
            verb.main([str(folder), *words])
    before = contents(folder)
    prune.main(["--yes", "--results", str(results)])
    assert contents(folder) == before


def test_what_reads_files_reads_it(runs: list[Path], tmp_path: Path, capsys) -> None:
    folders = [str(judged(run, *XRAY)) for run in runs]
    assert said(Path(folders[1]))["params"]["trainable"] == 0
    assert said(Path(folders[0]))["metrics"] != said(Path(folders[1]))["metrics"]
    compare.main([*folders, "images=1", f"out={tmp_path}"])
    assert "LoRA (r=8)" in (tmp_path / "index.html").read_text()
    with pytest.raises(UserError, match="was evaluated on other data"):
        compare.main([folders[0], str(runs[0])])
    assert analysed(Path(folders[0])) == said(Path(folders[0]))["analysis"]


def test_refusals_name_both_sides(runs: list[Path], copied: Path) -> None:
    def refused(*words: str, run: Path = runs[0]) -> str:
        with pytest.raises(UserError) as caught:
            evaluate.main([str(run), *words])
        return str(caught.value)

    text = refused("data=digits", "data.domain=street")
    assert "of the run: zero, one, two" in text
    assert "eight, nine\n" in text
    assert text.endswith("of the set: zero, one, two, three, four, five, six, seven")
    assert "metrics=coco judges instances" in refused("data=digits_semantic")
    assert "learnt instances, but data=digits_semantic has label maps" in refused(
        "data=digits_semantic", "metrics=miou")  # fmt: skip
    assert "was trained on these data" in refused("data=digits", *TINY[:3])
    assert "hparams.lr=1: only data and metrics" in refused("data=digits", "hparams.lr=1")
    assert "there is no data 'digit'; did you mean 'digits'" in refused("data=digit")
    assert "data.domian: there is no key" in refused("data=digits", "data.domian=xray")
    assert "data.root: give the folder" in refused("data=coco")
    (copied / DELTA).rename(copied / "elsewhere.safetensors")
    assert "is gone (deleted by `prune`" in refused(*OWN, run=copied)
    (copied / "record.json").rename(copied / "elsewhere.json")
    assert "its run has not finished" in refused(*OWN, run=copied)
    assert not (copied.parent.parent / "elsewhere").exists()


def test_a_record_of_other_weights_is_told_and_made_again(copied: Path, capsys) -> None:
    folder = judged(copied, *OWN)
    changed = said(folder)
    changed["judges"]["delta"] = "0" * 64  # as if the run had been trained anew
    (folder / "record.json").write_text(json.dumps(changed))
    results = copied.parent.parent
    assert not read(results).elsewhere
    assert "judges other weights" in read(results).unreadable[folder]
    again = judged(copied, *OWN)
    assert again == folder
    assert said(folder)["judges"] != changed["judges"]
    assert len(read(results).elsewhere) == 1


def analysed(folder: Path) -> dict:
    """Analyse what was kept, as the verb `analyse` does."""
    (directory,) = chosen(folder.parent.parent.parent, [str(folder)], elsewhere=True)
    return study.analyse(load(directory), of_run(directory)).numbers


def told(results: Path, run: dict, domain: str, ap: float) -> None:
    """Write what a run reaches on another domain, in the form of a record."""
    other = record(run["choices"]["peft"], ap, domain=domain, seed=run["config"]["seed"])
    other |= {"judges": {"run": run["id"], "name": run["name"], "data": "", "delta": None}}
    other["id"] = f"{run['id'][:8]}{domain[:4]}"
    folder = results / "elsewhere" / run["name"] / f"digits-{other['id']}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(other))


def test_its_table_has_the_runs_and_their_seeds_once(tmp_path: Path) -> None:
    made = [record(peft, 50.0 + seed, domain="source", seed=seed)
            for peft in ("lora", "full_head") for seed in (0, 1)]  # fmt: skip
    more = record("lora", 90.0, domain="xray", seed=0)  # trained on what others are judged on
    write(tmp_path, *made, more)
    for run in made:
        told(tmp_path, run, "xray", run["config"]["seed"] + 20.0)
    records = read(tmp_path)
    before = ablation(records.runs)
    (table,) = shift_tables(records.runs, records.elsewhere)
    assert before == ablation(records.runs)  # the runs themselves are as they were
    assert [c.labels[-2:] for c in table.columns] == [
        ("trained on", "digits (source)"), ("unseen", "digits (xray)")]  # fmt: skip
    for row in table.rows:
        values = [(cell.value, cell.seeds) for cell in row.cells.values()]
        assert values == [(50.5, 2), (20.5, 2)]
    xray = [row.cells[c.labels] for row in before[0].rows for c in before[0].columns
            if c.labels[-1] == "digits (xray)"]  # fmt: skip
    assert [cell.value for cell in xray if cell.value is not None] == [90.0]
    written = texts([table], tmp_path / "elsewhere")[tmp_path / "elsewhere.csv"]
    lines = [*csv.DictReader(io.StringIO(written))]
    assert {line["setting"] for line in lines} == {"Full head", "LoRA (r=8)"}
    assert {line["judged"] for line in lines} == {"trained on", "unseen"}
    gathered = content.gather(tmp_path, [], tmp_path / "report.html", published=False)
    page = render(gathered, Wishes(), pictures=False)
    (section,) = re.findall(r'<h2 id="elsewhere">.*?</section>', page, re.S)
    assert "digits (xray)" in section
    assert "<svg" in section
    assert f'href="#run-{made[0]["id"]}"' in section


def test_nothing_is_computed_to_say_what_would_be(runs: list[Path]) -> None:
    one = elsewhere(runs[0], "digits", None, XRAY[1:])
    assert one.directory.parent.name == runs[0].name
    assert not one.directory.exists() or one.known()
    assert one.id != elsewhere(runs[1], "digits", None, XRAY[1:]).id


def test_one_training_fills_two_columns_of_a_published_table(tmp_path: Path) -> None:
    def polyps(data: str, value: float, peft: str = "lora", seed: int = 0) -> dict:
        return record(peft, value, data=data, model="sam_h", metrics="saliency", seed=seed)

    made = [polyps("kvasir", 90.0, seed=s) for s in (0, 1)]
    made += [polyps("kvasir", 91.0, "bitfit"), polyps("cvc612", 92.0, "bitfit")]
    write(tmp_path, *made)
    for run in made[:3]:
        other = polyps("cvc612", 80.0, run["choices"]["peft"], run["config"]["seed"])
        other["judges"] = {"run": run["id"], "name": run["name"], "data": "", "delta": None}
        folder = tmp_path / "elsewhere" / run["name"] / f"cvc612-{run['id']}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps(other | {"id": run["id"][::-1]}))
    asked, records = load_table("convlora_main"), read(tmp_path)
    published = reported.read(Path(__file__).parents[1] / "results")
    (table,) = build(asked, joined(asked, [*published, *records.runs], records.elsewhere))
    shown = {row.method: [(c.value, c.seeds) for c in row.cells.values() if c.value]
             for row in table.rows if row.origin == "ours"}  # fmt: skip
    both = len(shown["lora"]) // 2
    assert shown["lora"] == [(90.0, 2)] * both + [(80.0, 2)] * both
    assert shown["bitfit"] == [(91.0, 1)] * both + [(92.0, 1)] * both  # its own run counts
    (note,) = [note for note in table.notes if "trained on other data" in note]
    assert "LoRA" in note
    assert "BitFit" not in note
    plain = load_table("ablation")
    assert joined(plain, records.runs, records.elsewhere) == records.runs
