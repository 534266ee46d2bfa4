"""Figures follow from tables, ours and published alike, and say what they show."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from segsweep.results import frame, reported
from segsweep.results.charts.figures import (
    COSTS,
    beside_printed,
    delta_figure,
    of_runs,
    studio,
    styles_of,
    tradeoff_figure,
)
from segsweep.results.charts.lines import curve_chart, curves, read, size_chart, sizes
from segsweep.results.charts.panels import REPEATS, SEEDS, Panel, PlotPoint, front, panels
from segsweep.results.charts.scatter import tradeoff_chart
from segsweep.results.evidence import Evidence
from segsweep.results.spec import load
from segsweep.results.tables import ablation, build
from segsweep.sweeps.sweeper import configs
from segsweep.verbs.collect import main
from tests.records import record, record_of, write

FORMS = ("md", "tex", "html", "csv")
PUBLISHED = reported.read(Path(__file__).resolve().parent.parent / "results")


def words(svg: Path) -> str:
    return " ".join(re.findall(r"<!-- (.*?) -->", svg.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert main(["--reported", "--results", str(results)]) == 0
    return results / "figures"


def test_figures_6_and_7_are_drawn_from_published_numbers(published: Path) -> None:
    for name, told in {"peft_figure6": "mean of 4 data sets", "peft_figure7": "mean of 3"}.items():
        for end in ("png", "svg", "pdf"):
            assert (published / f"{name}.{end}").stat().st_size > 10_000
        assert told in words(published / f"{name}.svg")
    assert "COCO &amp; Cityscapes" in words(published / "peft_figure6.svg")
    assert "Cityscapes" not in words(published / "peft_figure7.svg")  # of the larger backbone


def test_figures_6_and_7_have_runs_of_ours_beside_the_printed_points(tmp_path: Path) -> None:
    """Of settings of `+sweep=table2`; each is compared with the full head of its own kind."""
    sweep = ["+sweep=table2", "data=ndd20,wixray", "model=maskdino_r50"]
    for chosen, ap in {"peft=full_head": 50.0, "peft.rank=2": 45.0}.items():
        write(tmp_path, *(record_of(config, ap) for _, config in configs([*sweep, chosen])))
    (drawing,) = beside_printed([*PUBLISHED, *frame.read(tmp_path).runs], tmp_path / "figures")
    assert isinstance(drawing, partial)
    assert drawing.args[1].name == "peft_figure7"  # none is of SEEM
    printed, ours = drawing.args[0]
    assert [printed.title, ours.title] == ["maskdino_r50, as printed", "maskdino_r50, ours"]
    for table, delta in ((printed, 100 * (74.72 - 78.98) / 78.98), (ours, -10.0)):
        panel = next(panel for panel in panels(table) if panel.title() == "NDD20")
        drawn = {point.row.setting: point.value for point in panel.points()}
        assert drawn["LoRA (r=2)"] == pytest.approx(delta)
        assert drawn["Full head"] == 0
    svg = next(path for path in drawing() if path.suffix == ".svg")
    assert words(svg).count("maskdino_r50, ours") == 2


def test_delta_of_figure_6_is_equation_11() -> None:
    cells = [run for run in PUBLISHED if run["source.table"] == "2a"]
    spec = load("ablation")
    spec.reported = "000 2a"
    seem = next(t for t in build(spec, cells, ("reported",)) if t.title == "seem_focall")
    points = {p.row.setting: p for p in panels(seem)[0].points()}
    full = (79.2 + 25.97 + 39.88 + 32.19) / 4
    lora = (76.89 + 23.9 + 35.06 + 31.77) / 4
    assert points["LoRA (r=8)"].value == pytest.approx(100 * (lora - full) / full)
    assert points["LoRA (r=8)"].x == 1_440_000


def test_the_other_figures_of_the_study(published: Path) -> None:
    assert "scale α" in words(published / "peft_alpha.svg")
    assert {"rank r", "repeats I"} <= set(
        re.findall(r"rank r|repeats I", words(published / "peft_size.svg"))
    )
    assert "Latency (ms)" in words(published / "peft_latency.svg")
    assert "Pareto front" in words(published / "peft_pareto.svg")


def test_families_are_settings_that_differ_in_one_number(tmp_path: Path) -> None:
    write(tmp_path, *[record("lora", 40, rank=r) for r in (2, 16, 4)], record("full_head", 50))
    write(tmp_path, *[record("adapter", 40, repeats=1, residual=k) for k in ("kappa", "lambda")])
    (table,) = ablation(frame.read(tmp_path).runs)
    (family,) = sizes(table)
    assert (family.title, family.name, sorted(family.rows)) == ("LoRA", "rank r", [2, 4, 16])


def test_the_front_is_what_nothing_cheaper_beats(tmp_path: Path) -> None:
    values = {2: (1e5, 40.0), 4: (2e5, 39.0), 8: (4e5, 44.0), 16: (8e5, 44.0)}
    for rank, (trained, ap) in values.items():
        write(tmp_path, record("lora", ap, rank=rank, trainable=int(trained)))
    write(tmp_path, record("frozen", 1.0, trainable=0))
    (table,) = ablation(frame.read(tmp_path).runs)
    found = panels(table)[0].priced("params.trainable")
    assert len(found) == 4  # the frozen base trains nothing
    best: list[PlotPoint] = front(found)
    assert [point.row.setting for point in best] == ["LoRA (r=2)", "LoRA (r=8)"]
    assert [c.x for c in front(found, higher=False)] == pytest.approx([0.1, 0.2])


def test_costs_that_are_not_recorded_are_not_drawn(tmp_path: Path) -> None:
    for rank in (2, 4):
        (directory,) = write(tmp_path, record("lora", 40 + rank, rank=rank))
        (directory / "delta.safetensors").write_bytes(b"0" * 1000 * rank)
    tables = ablation(frame.read(tmp_path).runs)
    assert tradeoff_figure(tables, "bench.median_ms", tmp_path / "latency") == []
    png, svg, _ = tradeoff_figure(tables, "delta.bytes", tmp_path / "checkpoint")
    assert png.exists()
    assert "Checkpoint (MB)" in words(svg)


def test_curves_are_means_over_seeds_and_broken_lines_are_left_out(tmp_path: Path) -> None:
    lines = [{"step": 1, "epoch": 0.5, "loss": 3.0}]
    for seed in (0, 1):
        (directory,) = write(tmp_path, record("lora", 40.0, seed=seed))
        points = [{"epoch": e, "segm_AP": 10 * e + seed} for e in (1, 2, 3)]
        text = "\n".join(json.dumps(line) for line in [*lines, *points])
        (directory / "metrics.jsonl").write_text(text + '\n{"epoch": 4, "segm_AP"')
    assert read(directory / "metrics.jsonl", "segm_AP") == {1.0: 11.0, 2.0: 21.0, 3.0: 31.0}
    runs = frame.read(tmp_path).runs
    _, svg, _ = curve_chart(curves(runs, tmp_path / "runs")).save(tmp_path / "curves")
    assert "epoch" in words(svg)
    assert "LoRA (r=8)" in words(svg)
    assert "lines: means of up to 3 seeds" in words(svg)


def test_published_tables_are_rebuilt_by_the_same_command(published: Path) -> None:
    tables = {path.name for path in (published.parent / "tables").iterdir()}
    assert {
        f"{name}.{end}" for name in ("peft_table2a", "convlora_main") for end in FORMS
    } <= tables


def test_figures_are_drawn_elsewhere_from_tables_without_their_runs(tmp_path: Path) -> None:
    for seed, rank in product((0, 1, 2), (2, 4)):
        write(tmp_path, record("lora", 40 + seed + rank, rank=rank, seed=seed))
    write(tmp_path, record("full_head", 50.0))
    (table,) = ablation(frame.read(tmp_path).runs)
    drawing, *_ = of_runs([table], tmp_path / "figures", tmp_path / "runs")
    assert isinstance(drawing, partial)
    (light,) = drawing.args[0]
    assert light.runs == []
    for whole, own in zip(panels(table), panels(light), strict=True):
        for cost in COSTS.values():
            numbers = [[(c.x, c.value, c.bar) for c in p.priced(cost)] for p in (whole, own)]
            assert numbers[0] == numbers[1]
        assert [(p.x, p.value) for p in whole.points()] == [(p.x, p.value) for p in own.points()]
    with studio() as elsewhere:
        elsewhere.draw([drawing])
        (png, *_) = elsewhere.paths()
    (here, *_) = delta_figure([table], tmp_path / "here")
    assert png.read_bytes() == here.read_bytes()


def test_what_goes_wrong_while_drawing_is_told(tmp_path: Path) -> None:
    write(tmp_path, record("lora", 40.0))
    tables = ablation(frame.read(tmp_path).runs)
    (tmp_path / "file").touch()
    with studio() as elsewhere:
        elsewhere.draw([partial(delta_figure, tables, tmp_path / "file" / "delta")])
        with pytest.raises(OSError, match="file"):
            elsewhere.paths()


def test_benchmarks_alone_have_no_figures(tmp_path: Path) -> None:
    one = record("lora", 40.0) | {"kind": "bench"}
    (directory,) = write(tmp_path, one)
    (tmp_path / "bench").mkdir()
    directory.rename(tmp_path / "bench" / directory.name)
    assert main(["--results", str(tmp_path)]) == 0
    assert not (tmp_path / "figures").exists()


def test_the_band_is_of_same_seed_repeats_where_there_are_any(tmp_path: Path) -> None:
    full = [record("full_head", 50.0 + seed, seed=seed) for seed in (0, 1)]
    write(tmp_path, *full, record("lora", 40.0, repeat=0), record("lora", 42.0, repeat=1))
    (table,) = ablation(frame.read(tmp_path).runs)
    noise = panels(table)[0].noise()
    assert noise is not None
    assert noise.source == REPEATS
    assert noise.sd == pytest.approx(100 * 2**0.5 / 50.5)  # of 40 and 42, to a full head of 50.5
    _, svg, _ = delta_figure([table], tmp_path / "repeats")
    assert "band: ± standard deviation of same-seed repeats" in words(svg)
    assert "95 % intervals" in words(svg)  # two seeds of the full head tell the noise of LoRA, too


def test_without_repeats_the_band_is_over_seeds(tmp_path: Path) -> None:
    for seed, ap in enumerate((50.0, 51.0)):
        write(tmp_path, record("full_head", ap, seed=seed), record("lora", ap - 9, seed=seed))
    (table,) = ablation(frame.read(tmp_path).runs)
    noise = panels(table)[0].noise()
    assert noise is not None
    assert noise.source == SEEDS
    assert noise.sd == pytest.approx(100 * 0.5**0.5 / 50.5)
    _, svg, _ = delta_figure([table], tmp_path / "seeds")
    assert "band: ± pooled standard deviation over seeds" in words(svg)


def test_equal_repeats_have_no_band_and_panels_may_differ(tmp_path: Path) -> None:
    for domain, repeat in product(("xray", "street"), (0, 1)):
        spread = repeat if domain == "street" else 0
        write(tmp_path, record("full_head", 50.0 + spread, domain=domain, repeat=repeat))
    for seed in (0, 1):
        write(tmp_path, record("full_head", 50.0 + seed, domain="clutter", seed=seed))
        write(tmp_path, record("lora", 50.0 + seed, domain="clutter", seed=seed))
    _, svg, _ = delta_figure(ablation(frame.read(tmp_path).runs), tmp_path / "delta")
    assert "standard deviation of same-seed repeats, else pooled" in words(svg)
    assert "no band: same-seed repeats are equal" in words(svg)


NEAR = {  # seeds by rank; the full head trains more than all of them
    2: (40.0, 40.4, 40.2),
    4: (39.9, 40.3, 40.1),  # 0.1 below rank 2
    8: (45.0, 45.4, 45.2),
    16: (44.7, 45.1, 44.9),  # 0.3 below rank 8
    32: (43.0, 43.4, 43.2),  # 2 below rank 8
    64: (52.0, 52.4, 31.0),  # unstable, though near its best it is above all
}
FULL = (47.0, 47.4, 47.2)


def studied(folder: Path, seeds: int = 3, domains: tuple[str, ...] = ("clean",)) -> list[Panel]:
    for domain, (rank, values) in product(domains, [*NEAR.items(), (0, FULL)]):
        for seed, ap in enumerate(values[:seeds]):
            options: dict[str, Any] = {"rank": rank} if rank else {}
            options |= {"domain": domain, "seed": seed, "trainable": 10_000 * (rank or 512)}
            write(folder, record("lora" if rank else "full_head", ap, **options))
    (table,) = ablation(frame.read(folder).runs)
    return panels(table)


def by_rank(points: list[PlotPoint]) -> dict[str, PlotPoint]:
    return {point.label()[0]: point for point in points}


def test_bars_are_the_intervals_against_the_full_head(tmp_path: Path) -> None:
    mean, clean, _ = studied(tmp_path, domains=("clean", "xray"))
    runs = {f"r={rank}": values for rank, values in NEAR.items()} | {"": FULL}
    known = Evidence(runs).against("")
    drawn = by_rank(clean.points())
    assert drawn[""].bar == 0
    assert drawn["r=64"].unstable
    assert drawn["r=64"].bar == 0
    for rank in (2, 4, 8, 16, 32):
        point, interval = drawn[f"r={rank}"], known[f"r={rank}"]
        assert point.value - point.bar == pytest.approx(100 * interval.low / 47.2)
        assert point.value + point.bar == pytest.approx(100 * interval.high / 47.2)
    assert by_rank(mean.points())["r=2"].bar == pytest.approx(100 * 0.2 / 47.2)  # of seeds
    band = clean.noise()
    assert band is not None
    assert band.sd == pytest.approx(100 * 0.2 / 47.2)  # without that of the unstable setting
    _, svg, _ = delta_figure([clean.table], tmp_path / "delta")
    assert "bars: 95 % intervals of the difference to the full head (Dunnett)" in words(svg)
    assert "bars of means: ± standard deviation over seeds, never tested" in words(svg)
    assert "unstable over seeds" in words(svg)


def test_lower_is_better_turns_signs_but_not_the_drawing(tmp_path: Path) -> None:
    (panel,) = studied(tmp_path)
    lower = Panel(panel.table, replace(panel.column, direction="lower"), panel.reference)
    for up, down in zip(panel.points(), lower.points(), strict=True):
        assert (up.value, up.bar) == pytest.approx((down.value, down.bar))
    frontier = lower.front(lower.priced("params.trainable"))
    assert [point.label()[0] for point in frontier.best] == ["r=2", "r=4"]
    assert not frontier.near  # all others are surely higher


def test_an_unstable_full_head_is_compared_with_nothing(tmp_path: Path) -> None:
    for (rank, values), (seed, full) in product(NEAR.items(), enumerate((50.0, 51.0, 20.0))):
        if rank < 64:
            options: dict[str, Any] = {"seed": seed, "trainable": 1000 * rank, "rank": rank}
            write(tmp_path, record("lora", values[seed], **options))
            write(tmp_path, record("full_head", full, seed=seed))
    (panel,) = panels(ablation(frame.read(tmp_path).runs)[0])
    assert not any(point.bar for point in panel.points())
    assert panel.remark() == "the full head is unstable: nothing is compared with it"


def test_one_run_each_has_no_bars_and_says_so(tmp_path: Path) -> None:
    (panel,) = studied(tmp_path, seeds=1)
    assert not any(point.bar for point in panel.points())
    assert panel.noise() is None
    frontier = panel.front(panel.priced("params.trainable"))
    assert not frontier.near
    assert not frontier.reaches
    for draw in (delta_figure, partial(tradeoff_figure, cost="params.trainable")):
        _, svg, _ = draw([panel.table], stem=tmp_path / "one")
        assert "one run each: noise is unknown and not drawn" in words(svg)
        assert "95 %" not in words(svg)


def test_the_front_draws_what_cannot_be_told_from_it(tmp_path: Path) -> None:
    (panel,) = studied(tmp_path)
    frontier = panel.front(panel.priced("params.trainable"))
    assert [point.label()[0] for point in frontier.best] == ["r=2", "r=8", ""]
    assert [point.label()[0] for point in frontier.near] == ["r=4", "r=16"]  # 32 is surely beaten
    assert len(frontier.reaches) == 3
    assert all(0.3 < reach < 2 for reach in frontier.reaches)
    _, svg, _ = tradeoff_figure([panel.table], "params.trainable", tmp_path / "pareto")
    for text in ("not told from the front", "no better than a cheaper one", "within noise"):
        assert text in words(svg)
    assert "unstable over seeds, never on the front" in words(svg)


def test_a_tie_is_not_called_beaten_and_the_frozen_base_is_seen(tmp_path: Path) -> None:
    for rank in (2, 4):
        write(tmp_path, record("lora", 40.0, rank=rank, trainable=10_000 * rank))
    write(tmp_path, record("frozen", 12.34, trainable=0))
    _, svg, _ = tradeoff_figure(
        ablation(frame.read(tmp_path).runs), "params.trainable", tmp_path / "pareto"
    )
    assert "beaten" not in words(svg)
    assert "no better than a cheaper one" in words(svg)
    assert "frozen base 12.34 %" in words(svg)


def test_where_nothing_was_learnt_nothing_is_ranked(tmp_path: Path) -> None:
    for rank, ap in ((2, 0.0), (4, 0.0), (8, 0.4)):
        write(tmp_path, record("lora", ap, rank=rank, trainable=10_000 * rank))
    (table,) = ablation(frame.read(tmp_path).runs)
    _, svg, _ = tradeoff_figure([table], "params.trainable", tmp_path / "pareto")
    assert "nothing was learnt (AP below 1): no front" in words(svg)
    for text in ("beaten", "cheaper one", "on the Pareto front"):
        assert text not in words(svg)


def test_a_mean_over_data_sets_has_a_front_but_no_test(tmp_path: Path) -> None:
    mean, *_ = studied(tmp_path, domains=("clean", "xray"))
    frontier = mean.front(mean.priced("params.trainable"))
    assert [point.label()[0] for point in frontier.best] == ["r=2", "r=8", ""]
    assert not frontier.near


def test_bars_of_sizes_say_what_they_are(tmp_path: Path) -> None:
    (panel,) = studied(tmp_path)
    _, svg, _ = size_chart(sizes(panel.table)).save(tmp_path / "size")
    assert "bars: ± standard deviation over seeds" in words(svg)


def test_the_legend_is_never_wider_than_its_figure(tmp_path: Path) -> None:
    (panel,) = studied(tmp_path, domains=("clean",))
    chart = tradeoff_chart([panel] * 3, "params.trainable", styles_of([panel.table]))
    with chart.painted() as (figure, _):
        (legend,) = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width
