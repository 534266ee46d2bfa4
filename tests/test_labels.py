"""What things are called: by finished runs alone, without hashes, apart where they differ."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.files import read_json, write_json
from segsweep.results import frame
from segsweep.results.candidates import contests
from segsweep.results.cells import Table
from segsweep.results.charts.embed import svg
from segsweep.results.charts.figures import delta_figure, styles_of
from segsweep.results.charts.lines import curve_chart, curves, sizes
from segsweep.results.charts.panels import panels
from segsweep.results.charts.scatter import delta_chart
from segsweep.results.forms import markdown
from segsweep.results.sheets import sheet
from segsweep.results.spec import load
from segsweep.results.tables import ablation, build
from segsweep.results.typeset import html
from segsweep.run.identity import Run
from segsweep.run.record import metric_facts
from segsweep.sweeps.board import score
from segsweep.sweeps.status import status
from segsweep.verbs.collect import main
from tests.layouts_semantic import sbu

DIGEST = "fe18e8545cefb8e5cc9be7322e2606777cef11819926d698fe680ca28e6cba17"
HEX = re.compile(r"[0-9a-f]{32}")


def run_of(results: Path, *words: str) -> Run:
    return Run(compose([*words, f"io.results={results}"]))


def done(results: Path, *words: str, value: float = 40.0, **data: Any) -> Run:
    """Leave what a run of these words leaves, but for what training would compute."""
    run = run_of(results, *words)
    metric = run.config.metrics
    facts = {"fingerprint": run.config.data.name, "classes": ["a", "b"], **data}
    values = {name: value if name == metric.key else value - 20 for name in metric.names()}
    metrics = metric_facts(metric, {**values})
    trained = 0 if run.config.peft.name == "frozen" else 1000 * getattr(run.config.peft, "rank", 9)
    params = {"trainable": trained, "percent": 1.0}
    run.once(lambda _: {"metrics": metrics, "data": facts, "params": params, "analysis": None})
    return run


def failed(results: Path, *words: str) -> None:
    """Leave what a run of these words leaves that fails."""

    def train(_: Run) -> dict[str, Any]:
        raise UserError("no such file")

    with pytest.raises(UserError):
        run_of(results, *words).once(train)


def tables_of(results: Path) -> list[Table]:
    return ablation(frame.read(results).runs)


def labels(results: Path) -> list[Any]:
    """All headings that tables, decisions and figures have."""
    runs = frame.read(results).runs
    tables = ablation(runs)
    return [
        [(t.title, [r.labels for r in t.rows], [c.labels for c in t.columns]) for t in tables],
        [(c.name, [one.name for one in c.candidates]) for c in contests(runs, {})],
    ]


def test_failed_runs_decide_no_labels(tmp_path: Path) -> None:
    for rank in (2, 4):
        done(tmp_path, "peft=lora", f"peft.rank={rank}")
    before = labels(tmp_path)
    mistyped = ("hparams.lr_factors={x: 2}", "data.train=7", "peft.lr=9")
    for word in mistyped:
        failed(tmp_path, "peft=lora", "peft.rank=2", word)
    assert labels(tmp_path) == before
    (table,) = tables_of(tmp_path)
    (row,) = (row for row in table.rows if row.setting == "LoRA (r=2)")
    assert row.cells[table.columns[0].labels].failed == len(mistyped)
    failed(tmp_path, "peft=lora", "peft.rank=8")
    (table,) = tables_of(tmp_path)
    assert [row.setting for row in table.rows][-1] == "LoRA (r=8)"  # it has a row, as rank is shown


def test_no_label_holds_a_hash_and_what_differs_is_told_apart(tmp_path: Path) -> None:
    other = DIGEST[::-1]
    theirs = tmp_path / "b/theirs.pth"
    theirs.parent.mkdir()
    theirs.write_bytes(b"weights")
    for word in (f"a/mine.pth#sha256={DIGEST}", f"a/mine.pth#sha256={other}", theirs):
        done(tmp_path, f"model.weights='{word}'")
    done(tmp_path)  # with its own weights, of the first one's hash: the same run
    titles = [table.title for table in tables_of(tmp_path)]
    assert len({*titles}) == 3
    assert not HEX.search(" ".join(titles))
    assert sum("theirs.pth" in title for title in titles) == 1


def test_an_option_that_is_off_is_another_than_one_that_is_on(tmp_path: Path) -> None:
    """Also of runs by versions that had no such option."""
    old = done(tmp_path, "seed=0").directory / "record.json"
    record = read_json(old)
    del record["config"]["hparams"]["ema"], record["config"]["data"]["negatives"]
    write_json(old, record)
    done(tmp_path, "seed=1")
    done(tmp_path, "hparams.ema=0.999")
    done(tmp_path, "data.negatives=keep")
    (table,) = tables_of(tmp_path)
    assert {row.setting: row.average.seeds for row in table.rows} == {
        "LoRA (r=8, negatives=drop)": 2,
        "LoRA (r=8, negatives=drop, ema=0.999)": 1,
        "LoRA (r=8, negatives=keep)": 1,
    }


def test_what_words_say_of_weights_tells_no_runs_apart(tmp_path: Path) -> None:
    bare = compose([]).model.weights.partition("&")[0]  # as earlier versions said it
    done(tmp_path)
    done(tmp_path, "seed=1", f"model.weights='{bare}'")
    assert [table.title for table in tables_of(tmp_path)] == ["maskdino_tiny"]


def test_versions_of_a_data_set_are_told_apart_and_a_mean_counts_one(tmp_path: Path) -> None:
    for rank in (2, 4):
        done(tmp_path, "peft=lora", f"peft.rank={rank}", value=40, fingerprint="aaaaaa11")
    done(tmp_path, "peft=lora", "peft.rank=2", "seed=1", value=90, fingerprint="bbbbbb22")
    done(
        tmp_path,
        "peft=lora",
        "peft.rank=2",
        "seed=2",
        value=80,
        fingerprint="aaaaaa11",
        classes=["a"],
    )
    for rank in (2, 4):
        done(tmp_path, "peft=lora", f"peft.rank={rank}", "data.domain=xray", value=20)
    (table,) = tables_of(tmp_path)
    clean = "digits (clean)"
    assert {c.labels[-1] for c in table.columns if not c.is_mean} == {
        clean, f"{clean}, version 2", f"{clean}, version 3", "digits (xray)",
    }  # fmt: skip
    assert [row.average.value for row in table.rows] == [30, 30]
    assert panels(table)[0].title() == "mean of 2 data sets"
    notes = " ".join(table.notes)
    assert f"{clean} is content aaaaaa, classes a, b, 2 runs;" in notes
    assert re.search(
        f"{re.escape(clean)}, version . is content bbbbbb, classes a, b, 1 run[;.]", notes
    )
    assert re.search(
        f"{re.escape(clean)}, version . is content aaaaaa, classes a, 1 run[;.]", notes
    )
    assert f"not AP {clean}, version 2, AP {clean}, version 3." in notes
    assert len(contests(frame.read(tmp_path).runs, {})) == 4


def test_pairs_of_a_test_are_of_one_version(tmp_path: Path) -> None:
    for seed, content in enumerate(("aaaaaa11", "aaaaaa11", "bbbbbb22")):
        for method in ("lora", "full_head"):
            done(tmp_path, f"peft={method}", f"seed={seed}", fingerprint=content)
    (table,) = build(load("against_full_head"), frame.read(tmp_path).runs)
    assert [row.here.units for row in table.rows if row.here] == [2]


def test_collect_takes_each_runs_own_key_metric(tmp_path: Path) -> None:
    sbu(tmp_path / "sbu")
    done(tmp_path, "data=sbu", f"data.root={tmp_path}/sbu", "model=seem_tiny", value=7)
    for rank, key in ((2, "segm_AP"), (4, "segm_AP"), (4, "bbox_AP")):
        words = ("peft=lora", f"peft.rank={rank}", f"metrics.key={key}")
        run = done(tmp_path, *words, value=30 + rank)
        lines = "".join(f'{{"epoch": {e}, "{key}": {e}}}\n' for e in (1, 2))
        (run.directory / "metrics.jsonl").write_text(lines)
    assert main(["--results", str(tmp_path)]) == 0
    assert "7.00" in (tmp_path / "tables" / "ablation.md").read_text()
    instances, binary = tables_of(tmp_path)
    # several metrics of one data set have columns of their own, and no mean counts it twice
    assert [column.labels[0] for column in instances.columns] == ["AP", "box AP"]
    titles = [panel.title() for panel in panels(instances)]
    assert titles == ["digits (clean), AP", "digits (clean), box AP"]
    assert len(curves(instances.runs, tmp_path / "runs")) == 2
    assert [column.metric for column in binary.columns] == ["BER"]


def test_there_is_no_mean_of_errors_and_precisions(tmp_path: Path) -> None:
    sbu(tmp_path / "sbu")
    done(tmp_path, "data=sbu", f"data.root={tmp_path}/sbu", "model=seem_tiny", value=7)
    done(tmp_path, "model=seem_tiny", value=40)
    (table,) = tables_of(tmp_path)
    assert {column.direction for column in table.columns} == {"higher", "lower"}
    assert not any(column.is_mean for column in table.columns)
    assert any(note.startswith("No mean: ") for note in table.notes)


def test_values_with_commas_are_one_detail(tmp_path: Path) -> None:
    factors = "hparams.lr_factors={a:2,b:1}"
    done(tmp_path, "peft=full_head", "peft.lr=1e-3")
    done(tmp_path, "peft=full_head", "peft.lr=1e-3", factors)
    for rank in (2, 4):
        done(tmp_path, "peft=lora", f"peft.rank={rank}", factors)
    (table,) = tables_of(tmp_path)
    details = {p.label() for panel in panels(table) for p in panel.points()}
    assert ('lr_factors={"a": 2.0, "b": 1.0}', "") in details
    assert [sorted(family.rows) for family in sizes(table)] == [[2, 4]]


@pytest.mark.filterwarnings("error")
def test_long_titles_are_elided_and_said_in_full(tmp_path: Path) -> None:
    long, wide = (
        f"model.weights='a/{word}.pth#sha256={digest}'"  # of which the file is not asked for
        for word, digest in (("long" * 30, DIGEST), ("wide" * 60, DIGEST[::-1]))
    )
    for word in ([long, "model.clip=0.5"], [wide]):
        for rank in (2, 4):
            run = done(tmp_path, "peft=lora", f"peft.rank={rank}", *word)
            lines = "".join(f'{{"epoch": {e}, "segm_AP": {e}}}\n' for e in (1, 2))
            (run.directory / "metrics.jsonl").write_text(lines)
    tables = tables_of(tmp_path)
    for table in tables:
        page = sheet(table)
        assert len(page.title) <= 72 < len(table.title)
        assert page.caption.startswith(f"{table.title}. ")
        assert f'<h2 title="{table.title}">{page.title}</h2>' in html([table])
        assert f"## {page.title}\n\n{table.title}. " in markdown([table])
    _, file, _ = delta_figure(tables, tmp_path / "delta")
    told = "".join(re.findall(r"<!-- (.*?) -->", file.read_text(), re.DOTALL))
    assert all("".join(table.title.split()) in "".join(told.split()) for table in tables)
    whole = delta_chart([panel for table in tables for panel in panels(table)], styles_of(tables))
    for table, part in zip(tables, whole.apart((3.4, 2.8)), strict=True):
        assert f'data-tip="{escape(table.title)}"' in svg(part, "a")
    drawn = curve_chart(curves(frame.read(tmp_path).runs, tmp_path / "runs"))
    for chart in (whole, drawn):
        with chart.painted() as (figure, painted):
            for ax, _ in painted:
                width, height = ax.get_window_extent().size
                assert width > 0.6 * chart.size[0] * figure.dpi
                assert height > 0.5 * chart.size[1] * figure.dpi


def test_status_and_board_show_the_key_metric(tmp_path: Path) -> None:
    run = done(tmp_path, "metrics.key=bbox_AP", value=44)
    assert (status(run.directory).metric, status(run.directory).value) == ("bbox_AP", 44)
    assert score(run.directory).startswith("bbox_AP 44.00")
    begun = run_of(tmp_path, "metrics.key=bbox_AP", "seed=1")
    begun.directory.mkdir(parents=True)
    begun.prepare()
    line = '{"step": 1, "epoch": 1.0, "time": 1.0, "segm_AP": 10.0, "bbox_AP": 12.0}\n'
    (begun.directory / "metrics.jsonl").write_text(line)
    assert (status(begun.directory).metric, status(begun.directory).value) == ("bbox_AP", 12)
