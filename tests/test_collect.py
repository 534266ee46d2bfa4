"""Tables and figures follow from the records, and say what is missing, failed or mixed."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import product
from pathlib import Path

import pytest

from segsweep.base.config import compose, fingerprint, identity
from segsweep.base.errors import UserError
from segsweep.metrics.coco import CocoAP
from segsweep.results import frame
from segsweep.results.cells import Cell, Row, Table
from segsweep.results.charts.canvas import Style
from segsweep.results.charts.panels import panels
from segsweep.results.charts.scatter import Series
from segsweep.results.forms import csv_text, markdown
from segsweep.results.quantiles import dunnett
from segsweep.results.tables import ablation
from segsweep.verbs.collect import main
from tests.records import record, write

FIGURES = ("delta_vs_params", "pareto", "size")  # of runs without curves and without bench
TABLES = ("ablation", "against_full_head")
LORA = {2: 74.72, 4: 75.47, 8: 76.32, 16: 76.56}


def tables_of(results: Path, metric: str = "segm_AP") -> list[Table]:
    return ablation(frame.read(results).runs, metric)


def row(table: Table, setting: str) -> Row:
    return next(r for r in table.rows if r.setting == setting)


def cell(row: Row, data_set: str) -> Cell:
    return next(found for labels, found in row.cells.items() if labels[-1] == data_set)


def data_sets(table: Table) -> list[str]:
    return [column.labels[-1] for column in table.columns if not column.is_mean]


def best(table: Table, data_set: str) -> set[str]:
    (column,) = (c for c in table.columns if c.labels[-1] == data_set)
    return {
        table.cell(row, column).text() for row in table.rows if row.labels in table.bold(column)
    }


def lines_of(results: Path) -> list[str]:
    return markdown(tables_of(results)).splitlines()


def test_base_weights_are_what_they_hold_wherever_they_lay(tmp_path: Path) -> None:
    places = {"/a/base.pth": "a", "/b/copy.pth": "a", "/c/base.pth": "b"}
    for seed, (place, letter) in enumerate(places.items()):
        run = record("lora", 40, seed=seed)
        run["config"]["model"]["weights"] = place
        run["weights"] = {"source": place, "sha256": letter * 64}
        write(tmp_path, run)
    rows = [row for table in tables_of(tmp_path) for row in table.rows]
    assert sorted(cell.seeds for row in rows for cell in row.cells.values()) == [1, 2]
    assert "a" * 64 not in markdown(tables_of(tmp_path))


def test_rows_stand_in_the_order_of_the_study(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", 40, rank=r) for r in (16, 2, 8, 4)])
    write(tmp_path, *[record("adapter", 41, repeats=i) for i in (4, 1, 10, 2)])
    write(tmp_path, *[record("adapter", 39, residual=k) for k in ("lambda", "kappa")])
    others = ("zebra", "embeddings_only", "full_head", "frozen", "decoder_only", "another")
    write(tmp_path, *[record(method, 50) for method in others])
    assert [r.setting for r in tables_of(tmp_path)[0].rows] == [
        "Frozen base",
        "Full head",
        "Only decoder",
        "Only class & mask embeddings",
        "Adapters (I=1, κ)",
        "Adapters (I=1, λ)",
        "Adapters (I=1, κ+λ)",
        "Adapters (I=2, κ+λ)",
        "Adapters (I=4, κ+λ)",
        "Adapters (I=10, κ+λ)",
        *(f"LoRA (r={r})" for r in (2, 4, 8, 16)),
        "another",
        "zebra",
    ]


def test_parameters_percent_and_best_of_each_column(tmp_path: Path) -> None:
    head = {"trainable": 28_560_000, "total": 52_017_477}
    write(tmp_path, record("full_head", 78.98, **head), record("lora", 76.56, rank=16))
    write(tmp_path, record("full_head", 24.94, domain="street", **head))
    write(tmp_path, record("lora", 25.02, rank=16, domain="street"))
    text = lines_of(tmp_path)
    assert "| Full head | 28.56 | 54.90 | 24.94 | **78.98** | **51.96** |" in text
    assert "| LoRA (r=16) | 0.38 | 0.73 | **25.02** | 76.56 | 50.79 |" in text


def test_equally_printed_values_are_equally_good(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.001, rank=2), record("lora", 40.004, rank=4))
    assert sum("**40.00**" in line for line in lines_of(tmp_path)) == 2


def test_seeds_become_mean_and_standard_deviation(tmp_path: Path) -> None:
    for domain, values in {"xray": (40.0, 42.0, 44.0), "street": (20.0, 20.0, 23.0)}.items():
        runs = [record("lora", ap, domain=domain, seed=i) for i, ap in enumerate(values)]
        write(tmp_path, *runs)
    (table,) = tables_of(tmp_path)
    assert cell(table.rows[0], "digits (xray)").text() == "42.00 ± 2.00 (3)"
    assert len(cell(table.rows[0], "digits (xray)").runs) == 3
    # over data sets the seeds' own means are 30, 31 and 33.5
    assert table.rows[0].average.text() == "31.50 ± 1.80 (3)"


def test_seeds_that_do_not_pair_give_a_mean_without_spread(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0, seed=0), record("lora", 42.0, seed=1))
    write(tmp_path, record("lora", 20.0, seed=0, domain="street"))
    assert tables_of(tmp_path)[0].rows[0].average.text() == "30.50"


def test_repeats_of_a_seed_are_one_value_and_tell_the_noise_floor(tmp_path: Path) -> None:
    for seed, values in enumerate(((40.0, 40.2, 40.4), (42.0, 42.4))):
        write(tmp_path, *[record("lora", v, seed=seed, repeat=i) for i, v in enumerate(values)])
    (table,) = tables_of(tmp_path)
    assert [r.setting for r in table.rows] == ["LoRA (r=8)"]
    found = cell(table.rows[0], "digits (xray)")
    assert found.text() == "41.20 ± 1.41 (2)"  # of the seeds' means, 40.2 and 42.2
    assert len(found.runs) == 5
    # squares about the seeds' means: 2 x 0.2^2 = 0.08 and 2 x 0.2^2 = 0.08; 3 degrees of freedom
    assert table.floor(table.columns[0]) == (pytest.approx((0.16 / 3) ** 0.5), 5)
    assert "Noise floor: s = 0.23 from 5 same-seed repeats on AP digits (xray)." in table.notes


def test_the_noise_floor_of_a_mean_is_of_repeats_that_all_data_sets_have(tmp_path: Path) -> None:
    for domain, values in {"xray": (40.0, 42.0), "street": (20.0, 21.0, 29.0)}.items():
        runs = [record("lora", ap, domain=domain, repeat=i) for i, ap in enumerate(values)]
        write(tmp_path, *runs)
    (table,) = tables_of(tmp_path)
    assert table.columns[-1].is_mean
    # means over the data sets: 30.0 and 31.5
    assert table.floor(table.columns[-1]) == (pytest.approx(1.5 / 2**0.5), 2)


def test_without_repeats_there_is_no_noise_floor(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", 40.0 + seed, seed=seed) for seed in (0, 1)])
    (table,) = tables_of(tmp_path)
    assert table.floor(table.columns[0]) is None
    assert not any("floor" in note for note in table.notes)


def test_equal_repeats_are_no_noise_at_all(tmp_path: Path) -> None:
    ap = 42.857142857  # whose mean of three is not quite it
    write(tmp_path, *[record("lora", ap, repeat=i) for i in (0, 1, 2)])
    (table,) = tables_of(tmp_path)
    assert table.floor(table.columns[0]) == (0.0, 3)


def test_repeats_of_one_seed_say_nothing_about_seeds(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", 40.0, rank=2, repeat=i) for i in (0, 1, 2)])
    write(tmp_path, record("lora", 41.0, rank=4))
    (table,) = tables_of(tmp_path)
    assert cell(table.rows[0], "digits (xray)").text() == "40.00"
    assert any(note.startswith("One seed per cell") for note in table.notes)
    assert "Noise floor: s = 0.00 from 3 same-seed repeats on AP digits (xray)." in table.notes


def test_a_repeat_is_a_run_of_its_own() -> None:
    once, again = compose([]), compose(["repeat=1"])
    assert "repeat" not in identity(once)  # runs of old keep their names
    assert fingerprint(once) != fingerprint(again)
    with pytest.raises(UserError, match=r"repeat=-1: must not be negative"):
        compose(["repeat=-1"])


def test_missing_and_failed_cells_are_shown_and_counted(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0, rank=2), record("lora", None, rank=4))
    write(tmp_path, record("lora", 41.0, rank=2, domain="street"))
    text = "\n".join(lines_of(tmp_path))
    assert "| LoRA (r=4) | — | — | — | failed | — |" in text
    assert "(—, 1 of 4 cells" in text
    assert "**—**" not in text
    failed = json.loads(next(tmp_path.glob("runs/*/failed.json")).read_text())
    assert f"1 failed: {failed['id']} (OutOfMemoryError: CUDA out of memory)" in text


def test_interrupted_runs_are_missing_not_failed(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0, rank=2))
    write(tmp_path, record("lora", None, rank=4) | {"status": "interrupted"})
    assert cell(row(tables_of(tmp_path)[0], "LoRA (r=4)"), "digits (xray)").text() == "—"


def test_a_finished_retry_outlives_its_failure(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, record("lora", 40.0))
    failed = record("lora", None)
    (directory / "failed.json").write_text(json.dumps(failed))
    assert cell(tables_of(tmp_path)[0].rows[0], "digits (xray)").text() == "40.00"


def test_runs_are_averaged_only_if_they_differ_in_the_seed_alone(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40, rank=2, seed=0), record("lora", 42, rank=2, seed=1))
    write(tmp_path, record("lora", 30, rank=2, hparams={"lr": 1e-4}))
    write(tmp_path, record("lora", 35, rank=2, alpha=4.0))
    settings = {r.setting: cell(r, "digits (xray)").value for r in tables_of(tmp_path)[0].rows}
    assert settings == {
        "LoRA (r=2, alpha=2.0, lr=0.001)": 41.0,
        "LoRA (r=2, alpha=2.0, lr=0.0001)": 30.0,
        "LoRA (r=2, alpha=4.0)": 35.0,
    }


def test_rates_of_some_weights_are_a_difference_beside_none(tmp_path: Path) -> None:
    for ap, factors in ((40, {}), (50, {"embeddings": 0.1}), (60, {"embeddings": 0.1, "*.b": 2})):
        write(tmp_path, record("lora", ap, hparams={"lr_factors": factors}))
    assert {r.setting: cell(r, "digits (xray)").value for r in tables_of(tmp_path)[0].rows} == {
        "LoRA (r=8, lr_factors={})": 40.0,
        'LoRA (r=8, lr_factors={"embeddings": 0.1})': 50.0,
        'LoRA (r=8, lr_factors={"*.b": 2, "embeddings": 0.1})': 60.0,
    }


def test_the_frame_leaves_the_optimizer_groups_in_the_records(tmp_path: Path) -> None:
    groups = [{"lr": 1e-3, "weight_decay": 0.05, "parameters": 1, "tensors": ["a"] * 1000}]
    write(tmp_path, record("lora", 40) | {"optimizer": groups}, record("frozen", 1))
    assert not [name for name in frame.read(tmp_path).frame() if "optimizer" in name]


def test_epochs_may_differ_between_data_sets(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40, hparams={"epochs": 15}))
    write(tmp_path, record("lora", 20, domain="street", hparams={"epochs": 20}))
    assert [r.setting for r in tables_of(tmp_path)[0].rows] == ["LoRA (r=8)"]


def test_a_method_of_which_nothing_is_known_gets_labels_and_a_line(tmp_path: Path) -> None:
    sizes = {4: 41.0, 8: 43.0}
    write(tmp_path, *[record("melora", ap, rank=r, alpha=2 * r) for r, ap in sizes.items()])
    assert [r.setting for r in tables_of(tmp_path)[0].rows] == ["melora (r=4)", "melora (r=8)"]


def test_data_sets_are_what_they_hold(tmp_path: Path) -> None:
    here = record("lora", 40, data="coco", domain="/data/ndd20", seed=0)
    there = record("lora", 42, data="coco", domain="/scratch/ndd20", seed=1)
    other = record("lora", 20, data="coco", domain="/data/zerowaste")
    there["data"]["fingerprint"] = here["data"]["fingerprint"]
    write(tmp_path, here, there, other)
    (table,) = tables_of(tmp_path)
    assert data_sets(table) == ["ndd20", "zerowaste"]  # folders, which prove no set
    assert cell(table.rows[0], "ndd20").value == 41.0


def test_changed_annotations_are_another_column(tmp_path: Path) -> None:
    old, new = record("lora", 40, seed=0), record("lora", 50, seed=1)
    new["data"]["fingerprint"] = "abcdef0123"
    write(tmp_path, old, new)
    assert len(data_sets(tables_of(tmp_path)[0])) == 2


def test_the_protocol_is_that_of_the_records(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40, metrics=CocoAP(name="coco", max_dets=10)))
    assert "COCO mask AP, maxDets 10, in percent" in "\n".join(lines_of(tmp_path))


def test_what_the_first_records_did_not_say_is_filled_in(tmp_path: Path) -> None:
    said, old = (record("lora", 40, metrics="coco_255", rank=rank) for rank in (2, 4))
    for metric in old["metrics"].values():
        del metric["protocol"], metric["quantity"]
    write(tmp_path, said, old)
    said, old = (
        {key: value for key, value in run.items() if key.startswith("metrics.")}
        for run in frame.read(tmp_path).runs
    )
    assert said == old
    assert said["metrics.bbox_AP50.quantity"] == "box AP50"
    assert said["metrics.bbox_AP50.protocol"] == "COCO maxDets 255"


def test_models_have_tables_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40), record("lora", 50, model="maskdino_r50"))
    assert [t.title for t in tables_of(tmp_path)] == ["maskdino_r50", "maskdino_tiny"]


def test_mixed_code_versions_are_named(tmp_path: Path) -> None:
    dirty = record("lora", 42, rank=4, commit="fedcba9876543210")
    dirty["git"]["dirty"] = True
    write(tmp_path, record("lora", 40, rank=2), dirty)
    assert (
        "Mixed code versions: 1 at 0123456, 1 at fedcba9+changes." in tables_of(tmp_path)[0].notes
    )


def test_caption_says_metric_protocol_and_number_of_runs(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40))
    assert "COCO mask AP, maxDets 100, in percent" in "\n".join(lines_of(tmp_path))
    assert "1 run." in "\n".join(lines_of(tmp_path))


def test_another_metric_can_be_chosen_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40))
    assert cell(tables_of(tmp_path, "segm_AP50")[0].rows[0], "digits (xray)").value == 60
    with pytest.raises(UserError, match=r"segm_APx.*segm_AP, segm_AP50"):
        tables_of(tmp_path, "segm_APx")


def test_lower_is_better_where_the_record_says_so(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", ap, rank=r, metrics="ber") for r, ap in LORA.items()])
    assert best(tables_of(tmp_path, "BER")[0], "digits (xray)") == {"74.72"}


def test_unreadable_files_are_named_and_skipped(tmp_path: Path, capsys) -> None:
    write(tmp_path, record("lora", 40))
    for name, text in {
        "torn": '{"schema": 1, "id"',
        "new": json.dumps(record() | {"schema": 9}),
    }.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "record.json").write_text(text)
    (tmp_path / "runs" / "begun").mkdir()
    assert main(["--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"skipped {tmp_path / 'runs' / 'torn' / 'record.json'}: " in out
    assert "schema 9" in out
    assert "begun" not in out
    assert "LoRA (r=8)" in out


def test_no_runs_yet_is_no_error(tmp_path: Path, capsys) -> None:
    assert main(["--results", str(tmp_path)]) == 0
    assert "No finished runs" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_csv_leads_from_every_number_to_its_runs(tmp_path: Path) -> None:
    runs = [record("lora", 40, seed=0), record("lora", 42, seed=1)]
    write(tmp_path, *runs)
    (cell,) = csv.DictReader(io.StringIO(csv_text(tables_of(tmp_path))))
    assert (cell["setting"], float(cell["value"]), cell["seeds"]) == ("LoRA (r=8)", 41.0, "2")
    assert sorted(cell["runs"].split()) == sorted(one["id"] for one in runs)
    rows = list(csv.DictReader(io.StringIO(frame.read(tmp_path).csv_text())))
    assert {r["config.peft.rank"] for r in rows} == {"8"}


def test_the_frame_has_one_row_per_run_and_keeps_integers(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40), record("frozen", 3), record("lora", None, rank=4))
    tidy = frame.read(tmp_path).frame()
    assert len(tidy) == 3
    assert set(tidy["config.peft.rank"].dropna()) == {8, 4}
    assert "error.traceback" not in tidy


def full_study(results: Path) -> None:
    """Write a small sweep with a full-head reference on one of two data sets."""
    write(
        results, record("full_head", 80.0, trainable=28_560_000), record("frozen", 1.0, trainable=0)
    )
    for seed, (rank, ap) in product((0, 1), LORA.items()):
        trained = 330_000 + 24_576 * rank
        write(results, record("lora", ap + seed, rank=rank, trainable=trained, seed=seed))
    write(results, record("lora", 30.0, rank=2, domain="street", trainable=380_000))


def test_delta_is_relative_to_the_full_head(tmp_path: Path) -> None:
    full_study(tmp_path)
    drawn = {panel.column.labels[-1]: panel for panel in panels(tables_of(tmp_path)[0])}
    points = {p.row.setting: p for p in drawn["digits (xray)"].points()}
    assert points["Full head"].value == 0.0
    assert points["LoRA (r=2)"].value == pytest.approx(100 * (75.22 - 80) / 80)
    # s^2 = 0.5 with 4 degrees of freedom; one run of the full head, two of each of the four ranks
    reach = (0.5 * (1 + 1 / 2)) ** 0.5 * dunnett(1, [1 / 2] * 4 + [1], 4, True)
    assert points["LoRA (r=2)"].bar == pytest.approx(100 * reach / 80)
    assert "Frozen base" not in points  # trains nothing: no place on a logarithmic axis
    line = [p for p in points.values() if p.row.method == "lora"]
    labels = Series(line, Style("black", "o"), main=True).labels()
    assert [label.text for label in labels] == ["r=2", "4", "8", "16"]
    assert drawn["digits (street)"].reference is None
    assert drawn["digits (street)"].points()[0].value == 30.0
    assert drawn["mean"].reference is None


def test_figures_are_written_and_say_what_they_show(tmp_path: Path) -> None:
    full_study(tmp_path)
    main(["--results", str(tmp_path)])
    png = (tmp_path / "figures" / "delta_vs_params.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 20_000
    text = " ".join(
        re.findall(r"<!-- (.*?) -->", (tmp_path / "figures" / "delta_vs_params.svg").read_text())
    )
    for words in (
        "δ AP to the full head (%)",
        "no full-head run with AP",
        "frozen base −98.75 %",
        "AP (%)",
    ):
        assert words in text


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        full_study(folder)
        main(["--results", str(folder)])
        files = sorted(p for sub in ("tables", "figures") for p in (folder / sub).iterdir())
        assert {p.name for p in files} == {
            *(f"{name}.{end}" for name in FIGURES for end in ("pdf", "png", "svg")),
            *(f"{name}.{end}" for name in TABLES for end in ("csv", "html", "md", "tex")),
            "runs.csv",
        }
        contents.append([p.read_bytes() for p in files])
    assert contents[0] == contents[1]


def test_labels_do_not_cover_points_or_each_other(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from segsweep.results.charts.labels import Label, place

    ax = Figure(figsize=(4, 3)).subplots()
    ax.set(xscale="log", xlim=(1e5, 1e8), ylim=(-30, 5))
    points = [(3e5 * 1.12**i, -10 + 0.5 * i) for i in range(6)]
    place(ax, [Label(x, y, "r=16", "black") for x, y in points], [points])
    to_points = ax.transData.transform
    centres = [to_points(t.xy) * 72 / ax.figure.dpi + t.xyann for t in ax.texts]
    assert len(centres) == 6
    for i, a in enumerate(centres):
        for b in centres[:i]:
            assert abs(a[0] - b[0]) >= 17 or abs(a[1] - b[1]) >= 7
