"""Kept label maps: what is written is read, and analysis, comparison and report follow from it."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segsweep.analysis.study import analyse, evaluated, recorded
from segsweep.base.config import compose
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import misfit
from segsweep.data.base import BACKGROUND, IGNORE
from segsweep.pages.compared.base import compared
from segsweep.pages.compared.semantic import BOTH_WRONG, ONLY_FIRST, ONLY_OTHER, disagreement
from segsweep.pages.report.content import measured
from segsweep.pages.report.pictures import galleries
from segsweep.results.candidates import contests, outcomes
from segsweep.results.decision import decide
from segsweep.results.frame import read
from segsweep.results.over_sets import sign_flips
from segsweep.results.wishes import Wishes
from segsweep.run import predictions
from segsweep.run.folder import file_facts
from segsweep.run.identity import Run
from segsweep.run.record import data_facts, metric_facts
from segsweep.run.shapes import ANALYSIS
from segsweep.verbs import analyse as analyse_verb
from segsweep.verbs import compare, predict
from tests.painted import WORDS
from tests.records import record, write

SMALL = ["data.train=2", "data.val=6", "data.side=64"]
Maps = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def shifted(labels: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """What is there, a few pixels aside."""
    return np.roll(labels, 3, 1)


def noisy(labels: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """What is there, with a share of the pixels drawn anew from all values of the image."""
    values = np.unique(labels)
    share = draws.uniform(0.1, 0.4)
    return np.where(draws.random(labels.shape) < share, draws.choice(values, labels.shape), labels)


def left(folder: Path, change: Maps, *words: str, domain: str = "street") -> Run:
    """Leave a run as if it had predicted the truth, but for a change."""
    own = [f"data.domain={domain}", f"io.results={folder}"]
    run = Run(compose([*WORDS, *SMALL, "metrics=miou", *own, *words]))
    config, draws = run.config, np.random.default_rng(len(words))
    data, evaluator = config.data, config.metrics.evaluator(config.data, "val")
    run.directory.mkdir(parents=True)
    run.prepare()
    head = {"run": run.id, "split": "val", "classes": data.classes(), "data": data.fingerprint()}
    path = run.directory / predictions.FILE
    with predictions.writing(path, head, 2) as writer:
        for image in data.records("val"):
            truth = data.label_map(image)
            found = change(truth, draws).astype(np.uint8)
            judged = evaluator.judge(truth, found, draws.random(truth.shape, np.float32))
            evaluator.add(image.image_id, judged)
            writer.add(image.image_id, judged)
    facts = {
        "status": "done",
        "data": data_facts(data),
        "metrics": metric_facts(config.metrics, evaluator.compute()),
        "files": file_facts(run.directory),
        "analysis": recorded(config, predictions.read(path)),
    }
    write(folder, record(config.peft.name, 50.0) | run.head() | facts)
    return run


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[Path, list[Run]]:
    """Two settings of several classes."""
    folder = tmp_path_factory.mktemp("maps")
    return folder, [left(folder, noisy, "peft=full_head"), left(folder, shifted, "peft=lora")]


@pytest.fixture(scope="module")
def page(results, tmp_path_factory) -> Path:
    """The runs side by side."""
    out = tmp_path_factory.mktemp("page")
    words = [*(str(run.directory) for run in results[1]), f"out={out}", "images=2"]
    assert compare.main(words) == 0
    return out / "index.html"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(path)]


def test_a_map_its_counts_and_measures_are_read_as_written(tmp_path: Path) -> None:
    run = left(tmp_path, noisy, "metrics=saliency", domain="clean")
    path = run.directory / predictions.FILE
    kept, data = dict(predictions.of_run(run.directory)), run.config.data
    evaluator = run.config.metrics.evaluator(data, "val")
    draws = np.random.default_rng(1)
    for image in data.records("val"):
        truth = data.label_map(image)
        found = noisy(truth, draws).astype(np.uint8)
        wanted = evaluator.judge(truth, found, draws.random(truth.shape, np.float32))
        assert np.array_equal(kept[image.image_id].labels(), found)
        assert np.array_equal(kept[image.image_id].pixels, wanted.pixels)
        assert kept[image.image_id].measures == wanted.measures
    with predictions.writing(tmp_path / "again", predictions.read(path).head, 2) as writer:
        for image_id, judged in kept.items():
            writer.add(image_id, judged)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "cut": (lambda line: line.update(map=line["map"][:-8]), "no label map"),
    "no text": (lambda line: line.update(map="?"), "no label map"),
    "size": (lambda line: line.update(size=[9, 9]), "no label map"),
    "strange": (lambda line: line["pixels"].append([77, 0, 1]), "pixels of class 77"),
    "number": (lambda line: line["pixels"].append([0, 0, -1]), "not a whole number"),
    "measure": (lambda line: line.update(measures={"S": 1}), "not list"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_is_named(results, tmp_path: Path, kind: str) -> None:
    head, first, *_ = lines(results[1][0].directory / predictions.FILE)
    change, message = BROKEN[kind]
    change(first)
    path = tmp_path / "one.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, [head, first])).encode()))
    with pytest.raises(Damaged, match=rf"one\.gz.*{message}"):
        [judged.labels() for _, judged in predictions.read(path)]


@pytest.mark.parametrize("metric", ["miou", "overlap", "ber", "saliency"])
def test_recorded_values_and_slices_follow_exactly(tmp_path: Path, metric: str) -> None:
    run = left(tmp_path, noisy, f"metrics={metric}", domain="clean")
    kept, config = predictions.of_run(run.directory), run.config
    values = json.loads((run.directory / "record.json").read_text())["metrics"]
    assert evaluated(config, kept) == {name: m["value"] for name, m in values.items()}
    for image in config.data.records("val"):
        image.meta["half"] = image.image_id % 2
    table = analyse(config, kept, columns=["half"]).numbers["slices"]["half"]
    for half, row in table.items():
        evaluator = config.metrics.evaluator(config.data, "val")
        own = [pair for pair in kept if pair[0] % 2 == int(half)]
        for pair in own:
            evaluator.add(*pair)
        assert row == {
            "images": len(own),
            config.metrics.key: evaluator.compute()[config.metrics.key],
        }


def test_another_metric_says_what_it_lacks(tmp_path: Path) -> None:
    run = left(tmp_path, noisy, domain="clean")
    other = compose([*WORDS, *SMALL, "metrics=saliency"])
    with pytest.raises(UserError, match="no E was kept"):
        evaluated(other, predictions.of_run(run.directory))


def test_an_analysis_is_what_pixels_say(results) -> None:
    run = results[1][0]
    data = run.config.data
    numbers = analyse(run.config, predictions.of_run(run.directory)).numbers
    pairs = [(data.label_map(r), kept.labels()) for r, (_, kept) in
             zip(data.records("val"), predictions.of_run(run.directory), strict=True)]  # fmt: skip
    truth, found = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in (0, 1))
    names = dict(enumerate(data.classes())) | {BACKGROUND: "background"}
    rows = {row["class"]: row for row in numbers["classes"]}
    for value in np.unique([truth, found]):
        row, both = rows[names[value]], ((truth == value) & (found == value)).sum()
        assert (row["pixels"], row["predicted"]) == ((truth == value).sum(), (found == value).sum())
        union = ((truth == value) | (found == value)).sum()
        assert row["IoU"] == pytest.approx(100 * both / union)
        assert row["images"] == sum((t == value).any() for t, _ in pairs)
    true, other, pixels, share = numbers["confusions"][0]
    values = {name: value for value, name in names.items()}
    assert pixels == ((truth == values[true]) & (found == values[other])).sum() > 0
    assert share == pytest.approx(100 * pixels / (truth == values[true]).sum())
    ious, parts = [], []
    for t, f in pairs:
        there = [v for v in np.union1d(t, f) if v != BACKGROUND]
        each = {v: ((t == v) & (f == v)).sum() / ((t == v) | (f == v)).sum() for v in there}
        ious.append(100 * np.mean([*each.values()]))
        parts += [((t == v).mean(), each[v]) for v in there if (t == v).any()]
    assert numbers["image_iou"]["mean"] == pytest.approx(np.mean(ious))
    assert numbers["image_iou"]["median"] == pytest.approx(np.median(ious))
    assert numbers["worst"][0][2] == pytest.approx(min(ious))
    large = [iou for part, iou in parts if 0.01 < part <= 0.1]
    assert numbers["regions"]["1 to 10 %"]["regions"] == len(large) > 0
    assert numbers["regions"]["1 to 10 %"]["IoU"] == pytest.approx(100 * np.mean(large))
    assert not misfit(numbers, ANALYSIS)
    assert misfit(numbers | {"confusions": [[1]]}, ANALYSIS)
    assert "recall" in misfit({"slices": {}}, ANALYSIS)


def test_the_verb_writes_lists_and_a_figure(results, tmp_path: Path, capsys) -> None:
    _, runs = results
    words = [*(str(run.directory) for run in runs), "--out", str(tmp_path)]
    assert analyse_verb.main(words) == 0
    told = capsys.readouterr().out
    assert "confusions" in told
    for run in runs:
        rows = list(csv.DictReader((tmp_path / run.name / "images.csv").open()))
        assert len(rows) == 6
        assert (tmp_path / run.name / "figure.png").stat().st_size > 0
        assert (tmp_path / run.name / "confusion.csv").exists()
    assert {row["run"] for row in csv.DictReader((tmp_path / "classes.csv").open())} == {
        run.name for run in runs
    }
    with pytest.raises(UserError, match="are of objects"):
        analyse_verb.main([str(runs[0].directory), "--score", "0.3"])


def test_runs_are_compared_image_by_image(results, page: Path) -> None:
    _, runs = results
    directories = [run.directory for run in runs]
    comparison = compared(directories, [], "best", 0.5)
    (pair,) = comparison.pairs()
    numbers = [analyse(run.config, predictions.of_run(run.directory)) for run in runs]
    ious = [np.array([row[2] for row in each.lists["images"].rows]) for each in numbers]
    difference = ious[0] - ious[1]
    row = dict(zip(pair.heads, pair.rows[0], strict=True))
    assert row["difference"] == f"{difference.mean():+.2f}"
    assert row["p"] == f"{sign_flips([*difference]).p:.2g}"
    wins = (difference > 0).sum(), (difference < 0).sum(), (difference == 0).sum()
    assert [*pair.rows[0][5:8]] == [*map(str, wins)]
    assert len(pair.rows) > 2  # a row for each class that is there
    rows, ways = comparison.pictures(2)
    files = {r.image_id: r.file for r in runs[0].config.data.records("val")}
    ids = [row[0] for row in numbers[0].lists["images"].rows]
    assert rows[0].file == files[ids[int(np.abs(difference).argmax())]]
    assert (len(rows), len(rows[0].panels), ways) == (2, 4, [[]])
    assert len({panel.size for row in rows for panel in row.panels[:3]}) <= 2
    assert len(list(csv.DictReader((page.parent / "images.csv").open()))) == 6
    assert "data:image/jpeg" in page.read_text()
    assert "better Full head" in page.read_text()
    with pytest.raises(UserError, match="these runs have label maps"):
        compare.main([*map(str, directories), "score=0.5"])


def test_who_is_right_where_maps_differ() -> None:
    truth = np.array([[0, 0, 0, BACKGROUND, IGNORE, 1]], np.uint8)
    a = np.array([[0, 1, 2, 0, 0, 1]], np.uint8)
    b = np.array([[0, 0, 1, BACKGROUND, 1, 2]], np.uint8)
    same = BACKGROUND
    assert disagreement(truth, a, b).tolist() == [
        [same, ONLY_OTHER, BOTH_WRONG, ONLY_OTHER, same, ONLY_FIRST]
    ]


def test_compared_label_maps_fit_a_narrow_screen(browser: Any, page: Path) -> None:
    window = browser.new_page(viewport={"width": 420, "height": 900})
    window.goto(page.as_uri())
    assert window.evaluate("document.documentElement.scrollWidth") <= 420
    window.close()


def test_a_report_shows_label_maps_and_what_they_lack(results) -> None:
    folder, runs = results
    found = read(folder).runs
    records = {r.id: json.loads((r.directory / "record.json").read_text()) for r in runs}
    (contest,) = contests(found, records)
    table = measured(contest)
    assert {"image IoU mean", "IoU of 1 to 10 %"} <= {*table["head"]}
    assert outcomes(records[runs[0].id]["analysis"]) == []
    (pictures,) = galleries([contest], [decide(contest, Wishes())], folder)
    assert pictures.remark == ""
    assert [len(row.pictures) for row in pictures.rows] == [4, 4, 4]


def test_a_file_is_made_again_for_runs_that_kept_none(results, capsys) -> None:
    assert predict.main(["split=val", f"results={results[0]}"]) == 0
    assert "2 have predictions" in capsys.readouterr().out
