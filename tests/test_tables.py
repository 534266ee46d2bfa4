"""Tables are specifications over one frame of our runs and published numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from functools import partial
from pathlib import Path

import pytest

from segsweep.base.errors import UserError
from segsweep.results import frame, over_sets, reported, typeset
from segsweep.results.cells import Table
from segsweep.results.forms import csv_text, markdown
from segsweep.results.sheets import sheet, sheets
from segsweep.results.spec import Spec, load, names
from segsweep.results.tables import build
from segsweep.results.typeset import html
from segsweep.verbs.table import main
from tests.records import record, write

RESULTS = Path(__file__).resolve().parent.parent / "results"
PUBLISHED = reported.read(RESULTS)
of_study = partial(record, data="ndd20", domain="data/ndd20", model="maskdino_r50")
PAPERS = [name for name in names() if load(name).reported]


def built(results: Path, spec: str | Spec, **options) -> list[Table]:
    found = load(spec) if isinstance(spec, str) else spec
    return build(found, [*PUBLISHED, *frame.read(results).runs], **options)


def printed(name: str) -> Table:
    (table,) = build(load(name), PUBLISHED, ("reported",))
    return table


def texts(table: Table, row: str) -> list[str]:
    return next(
        [e.text for e in entries[len(table.fields) :]]
        for entries in sheet(table).body
        if row in [e.text for e in entries]
    )


def test_table_2a_is_the_published_one() -> None:
    table = printed("peft_table2a")
    assert len(table.rows) == 13
    assert texts(table, "Full head")[:8] == (
        ["79.20", "78.98", "25.97", "24.94", "39.88", "44.17", "32.19", "39.11"]
    )
    assert texts(table, "LoRA (r=16)")[:9] == (
        ["76.52", "76.56", "24.50", "22.34", "34.01", "38.00", "31.30", "40.39", "42.95"]
    )
    assert "LoRA (r=16) 40.95 (its cells: 42.95)" in " ".join(table.notes)
    assert next(row.delta for row in table.rows if row.setting == "LoRA (r=16)") == pytest.approx(
        100 * (42.9525 - 45.555) / 45.555
    )


def test_every_published_number_stands_in_a_table() -> None:
    shown = {
        (run["id"], column.metric)
        for name in PAPERS
        for table in build(load(name), PUBLISHED, ("reported",))
        for row in table.rows
        for column in table.columns
        for run in row.cells.get(column.labels, table.cell(row, column)).runs
    }
    facts = ("params.trainable", "params.percent", "source.mean")
    for run in PUBLISHED:
        if run["source.document"] == "001" or run["source.table"] == "linear probing":
            continue  # an article's restatement, and a side experiment on another task
        metrics = [key.split(".")[1] for key in run if re.fullmatch(r"metrics\..+\.value", key)]
        for metric in metrics:
            assert (run["id"], metric) in shown or metric in facts, (run["id"], metric)


@pytest.mark.parametrize(
    ("name", "row", "wanted"),
    [
        ("peft_table2b", "LoRA (r=8)", "1.44 0.42 0.53 1.01 0.54 0.24"),
        ("peft_table3", "LoRA (r=8)", "65.76 52.21 85.28 64.85 54.11 40.61 135.86 266.34"),
        ("peft_tableA1", "LoRA", "32.20 33.95 34.86 36.50"),
        ("vfm_table1", "VFM-Adapter", "11.93 51.6 72.0 56.3 42.1 66.0 44.9"),
        ("vfm_table2", "Full tuning", "52.8 64.0 84.5 42.9 53.2 81.0 45.8 57.4 81.7"),
        ("vfm_table3", "input-aware", "43.5"),
        ("vfm_table4", "VFM-Adapter", "39.50 31.0 3.6 198.0 52.6"),
    ],
)
def test_published_rows_are_printed_as_published(name: str, row: str, wanted: str) -> None:
    assert texts(printed(name), row) == wanted.split()


def test_printed_spreads_make_ties() -> None:
    table = printed("convlora_main")
    kvasir = next(c for c in table.columns if c.labels == ("Medical", "Kvasir", "Sα"))
    assert table.rows[-1].cells[kvasir.labels].text(1) == "92.0 ± 0.15"
    tied = {row.setting for row in table.rows if row.labels in table.ties(kvasir)}
    assert tied == {"VPT", "SSF"}  # 91.5 ± 0.23 and 91.3 ± 0.87
    ber = next(c for c in table.columns if c.metric == "BER_image")
    assert {labels[-1] for labels in table.bold(ber)} == {"Conv-LoRA"}  # 2.54: lower is better


def ours(results: Path) -> None:
    """Write runs of Mask DINO on NDD20, some of what Table 2a asks for."""
    for seed, (rank, ap) in itertools.product((0, 1), {2: 70.0, 4: 72.0}.items()):
        write(results, of_study("lora", ap + seed, rank=rank, seed=seed))


def test_ours_stand_beside_the_published_and_gaps_are_named(tmp_path: Path) -> None:
    ours(tmp_path)
    (table,) = built(tmp_path, "peft_table2a")
    rows = {row.labels: row for row in table.rows}
    place = ("AP", "NDD20", "Mask DINO")
    assert rows["LoRA (r=2)", "reported"].cells[place].text() == "74.72"
    assert rows["LoRA (r=2)", "ours"].cells[place].text() == "70.50 ± 0.71 (2)"
    assert rows["Full head", "ours"].cells[place].text() == "—"
    note = next(note for note in table.notes if "finished run yet" in note)
    assert note.startswith("No finished run yet (—, 90 of 92 cells")
    assert "Full head on AP NDD20 SEEM" in note


def test_parts_of_the_model_are_rows_of_the_methods_that_were_kept_to_them(tmp_path: Path) -> None:
    parts = [{}, {"scope": ""}, {"scope": "backbone"}, {"scope": "last:4"}]
    write(tmp_path, *(record("lora", 40.0 + i, seed=i, **part) for i, part in enumerate(parts)))
    write(tmp_path, record("adapter", 30.0), record("lora", 50.0, model="seem_tiny"))
    (table,) = built(tmp_path, "scope")
    cells = {row.labels: [c.value for c in row.cells.values()] for row in table.rows}
    assert cells == {
        ("LoRA", "everywhere"): [40.5], ("LoRA", "backbone"): [42.0], ("LoRA", "last:4"): [43.0],
    }  # fmt: skip
    write(tmp_path, record("lora", 20.0, scope="head", rank=4), record("lora", 21.0, rank=4))
    (table,) = built(tmp_path, "scope")
    assert {row.labels[0] for row in table.rows} == {"LoRA"}
    assert sum(len(row.cells) for row in table.rows) == len(table.rows) == 5


def test_runs_elsewhere_do_not_enter_a_published_table(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40, rank=2))
    (table,) = built(tmp_path, "peft_table2a")
    assert {row.origin for row in table.rows} == {"reported"}
    assert any("No run of ours belongs to this table yet: 92 cells" in n for n in table.notes)


def test_other_options_than_the_published_are_rows_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, of_study("lora", 70.0, rank=2, alpha=4.0))
    (table,) = built(tmp_path, "peft_table2a")
    settings = {row.setting for row in table.rows if any(c.runs for c in row.cells.values())}
    assert {"LoRA (r=2, alpha=2)", "LoRA (r=2, alpha=4)"} <= settings


def test_protocols_are_never_mixed_silently(tmp_path: Path) -> None:
    for domain, metrics in {"xray": "coco", "street": "cityscapes"}.items():
        write(tmp_path, record("lora", 40.0, domain=domain, metrics=metrics))
    (table,) = built(tmp_path, "ablation")
    assert table.columns[-1].labels[-1] == "mean of Cityscapes & COCO"
    assert any("scales are not the same" in note for note in table.notes)
    write(tmp_path, record("lora", 44.0, domain="street", seed=1))
    (table,) = built(tmp_path, "ablation")
    heads = [column.labels for column in table.columns]
    assert ("AP (COCO)", "digits (street)") in heads
    assert ("AP (Cityscapes)", "digits (street)") in heads


def test_key_is_each_runs_own_metric(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0), record("lora", 61.0, domain="street", metrics="miou"))
    (table,) = built(tmp_path, "against_full_head")
    heads = [column.labels for column in table.columns]
    assert heads[:2] == [("AP", "digits (xray)"), ("mIoU_fg", "digits (street)")]
    assert heads[2][1] == "mean of mask AP & mIoU_fg"


def test_models_that_would_share_a_cell_get_rows_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0), record("lora", 50.0, model="seem_tiny"))
    (table,) = built(tmp_path, Spec("mine", rows=["method"]))
    assert {row.labels for row in table.rows} == {("LoRA, maskdino_tiny",), ("LoRA, seem_tiny",)}


def test_a_tie_needs_a_known_noise(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", ap, rank=r) for r, ap in {2: 40.0, 4: 43.8, 8: 44.0}.items()])
    (table,) = built(tmp_path, "ablation")
    assert table.ties(table.columns[0]) == set()
    assert any("One run per cell" in note for note in table.notes)
    write(tmp_path, *[record("lora", ap, rank=r, seed=1) for r, ap in {2: 40.5, 8: 44.5}.items()])
    (table,) = built(tmp_path, "ablation")  # s = 0.35
    assert table.ties(table.columns[0]) == {("LoRA (r=4)",)}


def test_what_is_unstable_is_named_and_ties_with_nothing_for_it(tmp_path: Path) -> None:
    values = {
        2: (40.0, 40.2, 40.1),
        4: (60.4, 60.5, 60.6),
        8: (50.1, 36.0, 55.2),
        16: (60.2, 60, 60.1),
    }
    for rank, seeds in values.items():
        write(tmp_path, *[record("lora", ap, rank=rank, seed=i) for i, ap in enumerate(seeds)])
    (table,) = built(tmp_path, "ablation")
    (column,) = table.columns
    assert table.unstable(column) == {("LoRA (r=8)",): 1}
    assert texts(table, "LoRA (r=8)")[2] == "47.10 ± 9.95 (3)"
    assert "| 47.10 ± 9.95 (3) † |" in markdown([table])
    assert any("LoRA (r=8) is unstable" in n and "seed 1 with 36.00" in n for n in table.notes)
    assert table.bold(column) == {("LoRA (r=4)",)}


def test_one_row_alone_is_no_contest(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0), record("lora", 50.0, model="seem_tiny"))
    assert "**" not in markdown(built(tmp_path, "ablation"))
    (both,) = built(tmp_path, Spec("mine", rows=["model", "method"]))
    assert both.bold(both.columns[0]) == set()  # models are not compared


def test_a_reference_is_compared_with_intervals_and_pair_by_pair(tmp_path: Path) -> None:
    for seed, domain in itertools.product(range(3), ("xray", "street")):
        write(tmp_path, record("full_head", 50.0 + seed, domain=domain, seed=seed))
        write(tmp_path, record("lora", 48.0 + seed + 0.1 * seed, domain=domain, seed=seed))
    (table,) = built(tmp_path, "against_full_head")
    lora = next(row for row in table.rows if row.method == "lora")
    assert lora.here == over_sets.Test(2 / 2**6, 6)
    assert lora.here_remains
    assert lora.delta == pytest.approx(100 * -1.9 / 51)
    interval = table.against(table.columns[0])[lora.labels]
    # s^2 = (1 + 1.21) / 2 with 4 degrees of freedom; t = 2.776
    assert interval.low == pytest.approx(-1.9 - 2.776 * (1.105 * 2 / 3) ** 0.5, abs=1e-3)
    assert "| LoRA (r=8) | −1.90 (−4.28 to +0.48) |" in markdown([table])
    assert any("p beyond these sets: no difference can be" in note for note in table.notes)


def test_what_is_unstable_is_no_reference(tmp_path: Path) -> None:
    heads = {1e-3: (60.0, 40.0, 90.0), 1e-4: (50.0, 50.1, 50.2)}
    for lr, values in heads.items():
        runs = [record("full_head", v, seed=i, lr=lr) for i, v in enumerate(values)]
        write(tmp_path, *runs, *[record("lora", 48.0 + i / 10, seed=i) for i in range(3)])
    (table,) = built(tmp_path, "against_full_head")
    assert table.unstable(table.columns[0]).keys() == {("Full head (lr=0.001)",)}
    assert {row.reference for row in table.rows} == {None, ("Full head (lr=0.0001)",)}


def test_the_least_p_is_known_before_it_is_asked_for(tmp_path: Path) -> None:
    for seed, domain in itertools.product(range(2), ("xray", "street")):
        for method in ("full_head", "lora", "adapter"):
            write(tmp_path, record(method, 50.0 + seed, domain=domain, seed=seed))
    (table,) = built(tmp_path, "against_full_head")
    assert not any("p on" in " ".join(head) for head in sheet(table).head)
    note = "no difference can be significant with 4 pairs of data set and seed and 2 rows; 7 would"
    assert any(note in text for text in table.notes)


def test_a_metric_where_less_is_better_turns_no_sign(tmp_path: Path) -> None:
    for method, seed in itertools.product(("full_head", "lora"), range(3)):
        one = record(method, (0.5 if method == "lora" else 0.3) + 0.01 * seed, seed=seed)
        one["metrics"]["segm_AP"]["direction"] = "lower"
        write(tmp_path, one)
    (table,) = built(tmp_path, "against_full_head")
    interval = table.against(table.columns[0])[("LoRA (r=8)",)]
    assert interval.middle == pytest.approx(0.2)
    assert 0 < interval.low < 0.2 < interval.high
    lora = next(row for row in table.rows if row.method == "lora")
    assert lora.delta == pytest.approx(100 * 0.2 / 0.31)  # a low error has learnt
    assert table.bold(table.columns[0]) == {("Full head",)}


def test_what_has_learnt_nothing_is_said_and_not_marked(tmp_path: Path) -> None:
    heads = [record("full_head", 0.3, seed=seed) for seed in range(2)]
    write(tmp_path, *heads, record("lora", 0.2), record("frozen", 0.0, trainable=0))
    (table,) = built(tmp_path, "ablation")
    (said,) = (note for note in table.notes if "learnt" in note)
    assert said.startswith(
        "Nothing has been learnt: all that was trained is below 1 in AP digits (xray)"
    )
    assert table.notes[0] == said
    assert table.bold(table.columns[0]) == table.ties(table.columns[0]) == set()
    assert len(sheets(built(tmp_path, "against_full_head")[0])) == 1  # no differences
    write(tmp_path, record("adapter", 30.0), record("adapter", 20.0, data="coco"))
    (table,) = built(tmp_path, "ablation")
    assert table.notes[0].startswith("Nothing was learnt by what is below 1 in AP digits (xray)")
    assert table.notes[0].endswith(": Full head, LoRA (r=8).")
    assert not any("learnt" in note for note in table.notes[1:])
    assert table.bold(table.columns[0])


def test_rows_that_learnt_at_other_rates_are_named(tmp_path: Path) -> None:
    write(tmp_path, record("full_head", 50.0), record("lora", 48.0))
    write(tmp_path, record("frozen", 1.0, trainable=0))
    (table,) = built(tmp_path, "ablation")
    wanted = "Rows differ in lr, too: 0.0001 (Full head); 0.001 (LoRA (r=8))."
    assert wanted in table.notes


def test_what_is_still_rising_says_so(tmp_path: Path) -> None:
    late = record("lora", 48.0)
    late["best"]["epoch"] = 10
    write(tmp_path, late, record("full_head", 50.0))
    (table,) = built(tmp_path, "ablation")
    assert "| LoRA (r=8) ↑ |" in markdown([table])
    assert "| Full head |" in markdown([table])


def test_a_single_validation_is_not_rising(tmp_path: Path) -> None:
    only = record("lora", 48.0)
    only["best"]["epoch"] = only["config"]["hparams"]["epochs"] = 1
    write(tmp_path, only)
    (table,) = built(tmp_path, "ablation")
    assert "↑" not in markdown([table])


@pytest.mark.parametrize("name", PAPERS)
def test_latex_is_balanced(name: str) -> None:
    text = typeset.latex([printed(name)])
    stack = []
    for kind, environment in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(environment)
        else:
            assert stack.pop() == environment
    assert stack == []
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.count("$") - text.count(r"\$") & 1 == 0
    assert text.isascii()
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])  # type: ignore[index]
    for line in text.splitlines():
        if line.endswith(r"\\"):
            widths = [int(w) for w in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            cells = len(re.findall(r"(?<!\\)&", line)) + 1 + sum(w - 1 for w in widths)
            assert cells == columns, line


def test_html_leads_from_numbers_to_runs_and_is_escaped(tmp_path: Path) -> None:
    one = record("lora", 40.0)
    one["config"]["data"]["domain"] = "<b>x</b>"
    write(tmp_path, one)
    page = html(built(tmp_path, "ablation"))
    assert f"../runs/{one['name']}/config.yaml" in page
    assert "commit 0123456" in page
    assert "<b>x" not in page
    assert "http" not in page  # needs nothing else


def test_csv_has_a_line_for_every_cell() -> None:
    table = printed("convlora_main")
    lines = list(csv.DictReader(io.StringIO(csv_text([table]))))
    assert len(lines) == 11 * 14
    ber = next(r for r in lines if r["metric"] == "BER_image" and r["method"] == "conv_lora")
    assert (ber["data_set"], float(ber["value"]), float(ber["sd"])) == ("SBU", 2.54, 0.081)


def test_trace_names_runs_configs_commits_and_documents(tmp_path: Path, capsys) -> None:
    ours(tmp_path)
    assert main(["peft_table2a", "--results", str(tmp_path), "--trace"]) == 0
    out = capsys.readouterr().out
    run = frame.read(tmp_path).runs[0]
    assert f"runs/{run['name']}/config.yaml  seed" in out
    assert "commit 0123456" in out
    assert "table 2a  reported/reported.csv  line 1" in out


def test_trace_names_the_repeat(tmp_path: Path, capsys) -> None:
    write(tmp_path, *[record("lora", 40.0 + i, repeat=i) for i in (0, 1)])
    assert main(["ablation", "--results", str(tmp_path), "--trace"]) == 0
    out = capsys.readouterr().out
    assert "seed 0, commit 0123456" in out
    assert "seed 0, repeat 1, commit 0123456" in out


@pytest.mark.parametrize("form", ["md", "tex", "html", "csv"])
def test_a_committed_table_is_checked(tmp_path: Path, capsys, form: str) -> None:
    write(tmp_path, record("lora", 40.0))
    words = ["ablation", "--results", str(tmp_path)]
    main([*words, "--out", str(tmp_path / "tables")])
    file = tmp_path / "tables" / f"ablation.{form}"
    assert main([*words, "--check", str(file)]) == 0
    write(tmp_path, record("lora", 42.0, rank=2))
    capsys.readouterr()
    assert main([*words, "--check", str(file)]) == 1
    assert re.search(r"^\+.*42", capsys.readouterr().out, re.MULTILINE)


def test_a_table_of_ones_own(tmp_path: Path, capsys) -> None:
    write(tmp_path, *[record("lora", 40 + r, rank=r) for r in (2, 4)], record("frozen", 1.0))
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "caption: Ranks.\nrows: [data_set]\ncolumns: [peft.rank]\nwhere: {peft.name: lora}\n"
        'labels: {"2": rank 2}\n'
    )
    assert main([str(mine), "--results", str(tmp_path), "--format", "md"]) == 0
    assert "| digits (xray) | 42.00 | 44.00 |" in (out := capsys.readouterr().out).replace("**", "")
    assert "AP rank 2" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("row: [setting]", r"mine\.yaml: row: .*did you mean 'rows'"),
        ("decimals: two", r"mine\.yaml: decimals"),
        ("rows: []", r"mine: rows: names no field"),
        ("metric: [a, b]", r"several metrics"),
        ("a: [", r"mine\.yaml"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load(str(tmp_path / "mine.yaml"))


def test_an_unknown_table_is_refused_with_the_near_name() -> None:
    with pytest.raises(UserError, match=r"peft_table2.*did you mean 'peft_table2[ab]'"):
        main(["peft_table2"])


def test_published_numbers_that_are_broken_are_named(tmp_path: Path) -> None:
    path = tmp_path / "reported" / "reported.csv"
    path.parent.mkdir()
    lines = (RESULTS / "reported" / "reported.csv").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], lines[3].replace("28.56,,M", "many,,M")]))
    with pytest.raises(UserError, match=r"reported\.csv: line 4: .*many"):
        reported.read(tmp_path)


def test_broken_metrics_are_named_and_skipped(tmp_path: Path) -> None:
    one = record("lora", 40.0)
    one["metrics"]["segm_AP"]["value"] = "forty"
    write(tmp_path, one, record("lora", 41.0, rank=2))
    (tmp_path / "runs" / "odd").mkdir()
    (tmp_path / "runs" / "odd" / "record.json").write_text(json.dumps(one | {"config": []}))
    found = frame.read(tmp_path)
    assert len(found.runs) == 1
    assert sorted(map(str, found.unreadable.values())) == [
        "config is [], not object",
        "metrics.segm_AP.value is 'forty', not float | None",
    ]


def test_markdown_escapes_what_would_break_a_row(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0, domain="a|b"))
    assert "AP digits (a\\|b)" in markdown(built(tmp_path, "ablation"))
