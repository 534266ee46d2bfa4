"""Tables are specifications over one frame of our runs and published numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from pathlib import Path

import pytest

from segsweep.base.errors import UserError
from segsweep.results import evidence, frame, over_sets, reported, typeset
from segsweep.results.cells import Table
from segsweep.results.forms import csv_text, markdown, sheet
from segsweep.results.spec import Spec, load, names
from segsweep.results.tables import build
from segsweep.results.typeset import html
from segsweep.verbs.table import main
from tests.records import record, write

RESULTS = Path(__file__).resolve().parent.parent / "results"
PUBLISHED = reported.read(RESULTS)
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
        metrics = [key.split(".")[1] for key in run if re.fullmatch(r"metrics\.\w+\.value", key)]
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
    assert table.best(ber, "reported") == "2.54"  # lower is better


def ours(results: Path) -> None:
    """Write runs of Mask DINO on NDD20, some of what Table 2a asks for."""
    for seed, (rank, ap) in itertools.product((0, 1), {2: 70.0, 4: 72.0}.items()):
        one = record("lora", ap + seed, rank=rank, data="coco", domain="data/ndd20", seed=seed)
        one["config"]["model"]["name"] = "maskdino_r50"
        write(results, one)


def test_ours_stand_beside_the_published_and_gaps_are_named(tmp_path: Path) -> None:
    ours(tmp_path)
    (table,) = built(tmp_path, "peft_table2a")
    rows = {row.labels: row for row in table.rows}
    place = ("AP", "NDD20", "Mask DINO")
    assert rows["LoRA (r=2)", "reported"].cells[place].text() == "74.72"
    assert rows["LoRA (r=2)", "ours"].cells[place].text() == "70.50 ± 0.71 (2)"
    assert rows["Full head", "ours"].cells[place].text() == "—"
    note = next(note for note in table.notes if "missing" in note)
    assert note.startswith("90 of 92 cells missing (—)")
    assert "Full head on AP NDD20 SEEM" in note


def test_runs_elsewhere_do_not_enter_a_published_table(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40, rank=2))
    (table,) = built(tmp_path, "peft_table2a")
    assert {row.origin for row in table.rows} == {"reported"}
    assert any("No run of ours belongs to this table yet: 92 cells" in n for n in table.notes)


def test_other_options_than_the_published_are_rows_of_their_own(tmp_path: Path) -> None:
    one = record("lora", 70.0, rank=2, alpha=4.0, data="coco", domain="data/ndd20")
    one["config"]["model"]["name"] = "maskdino_r50"
    write(tmp_path, one)
    (table,) = built(tmp_path, "peft_table2a")
    settings = {row.setting for row in table.rows if any(c.runs for c in row.cells.values())}
    assert {"LoRA (r=2, alpha=2)", "LoRA (r=2, alpha=4)"} <= settings


def test_protocols_are_never_mixed_silently(tmp_path: Path) -> None:
    for domain, protocol in {"xray": "COCO", "street": "Cityscapes"}.items():
        one = record("lora", 40.0, domain=domain)
        one["metrics"]["segm_AP"]["protocol"] = protocol
        write(tmp_path, one)
    (table,) = built(tmp_path, "ablation")
    assert table.columns[-1].labels[-1] == "mean of Cityscapes & COCO"
    assert any("scales are not the same" in note for note in table.notes)
    other = record("lora", 44.0, domain="street", seed=1)
    other["metrics"]["segm_AP"]["protocol"] = "COCO"
    write(tmp_path, other)
    (table,) = built(tmp_path, "ablation")
    heads = [column.labels for column in table.columns]
    assert ("AP (COCO)", "digits (street)") in heads
    assert ("AP (Cityscapes)", "digits (street)") in heads


def test_key_is_each_runs_own_metric(tmp_path: Path) -> None:
    masks, maps = record("lora", 40.0), record("lora", 1.0, domain="street")
    maps["metrics"]["mIoU"] = {"value": 61.0, "unit": "%", "direction": "higher"}
    maps["config"]["metrics"]["key"] = "mIoU"
    write(tmp_path, masks, maps)
    (table,) = built(tmp_path, "against_full_head")
    heads = [column.labels for column in table.columns]
    assert heads[:2] == [("AP", "digits (xray)"), ("mIoU", "digits (street)")]
    assert heads[2][1] == "mean of segm_AP & mIoU"


def test_models_that_would_share_a_cell_get_rows_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0), record("lora", 50.0, model="seem_tiny"))
    (table,) = built(tmp_path, Spec("mine", rows=["method"]))
    assert {row.labels for row in table.rows} == {("LoRA, maskdino_tiny",), ("LoRA, seem_tiny",)}


def test_sign_flips_are_exact() -> None:
    differences = [1.0, 2.0, -0.5, 3.0, 1.5, 2.5]
    signs = list(itertools.product((1, -1), repeat=6))
    totals = [abs(sum(s * d for s, d in zip(one, differences, strict=True))) for one in signs]
    wanted = sum(total >= abs(sum(differences)) - 1e-9 for total in totals) / len(totals)
    assert over_sets.sign_flips(differences) == over_sets.Test(wanted, 6)
    assert over_sets.sign_flips([1.0] * 6).p == 2 / 2**6
    assert over_sets.sign_flips([1.0] * 5).text() == "0.062 (5)"
    assert 0.0001 <= over_sets.sign_flips([1.0] * 40).p < 0.001


def test_holm_and_pooled_deviation() -> None:
    assert over_sets.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert evidence.pooled([[1.0, 3.0], [5.0], [10.0, 10.0, 10.0]]) == pytest.approx((2 / 3) ** 0.5)
    assert evidence.pooled([[1.0]]) is None


def test_ties_need_a_known_noise(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", ap, rank=r) for r, ap in {2: 40.0, 4: 40.3, 8: 44.0}.items()])
    (table,) = built(tmp_path, "ablation")
    assert table.ties(table.columns[0]) == set()
    assert any("One run per cell" in note for note in table.notes)
    write(tmp_path, record("lora", 46.0, rank=8, seed=1))
    (table,) = built(tmp_path, "ablation")  # sd of rank 8: 1.41; 2 sqrt(2 + 2/2) = 3.46
    assert table.ties(table.columns[0]) == set()
    write(tmp_path, record("lora", 43.0, rank=16))
    (table,) = built(tmp_path, "ablation")
    assert table.ties(table.columns[0]) == {("LoRA (r=16)",)}


def test_a_reference_is_compared_pair_by_pair(tmp_path: Path) -> None:
    for seed, domain in itertools.product(range(3), ("xray", "street")):
        write(tmp_path, record("full_head", 50.0 + seed, domain=domain, seed=seed))
        write(tmp_path, record("lora", 48.0 + seed, domain=domain, seed=seed))
    (table,) = built(tmp_path, "against_full_head")
    lora = next(row for row in table.rows if row.method == "lora")
    assert lora.test == over_sets.Test(2 / 2**6, 6)
    assert lora.delta == pytest.approx(100 * -2 / 51)
    assert lora.remains


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
        "its id is no text or its config no object",
        "metrics.segm_AP.value is 'forty', not a number",
    ]


def test_markdown_escapes_what_would_break_a_row(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0, domain="a|b"))
    assert "AP digits (a\\|b)" in markdown(built(tmp_path, "ablation"))
