"""The figure of training curves: the metric of each validation against epochs."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from segsweep.results.canvas import Style, grid, head, left_out, styles
from segsweep.results.look import save
from segsweep.results.settings import LabelledRun, arrange, order
from segsweep.results.wording import Values, metric_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEEDS = 3  # of a setting, whose mean is drawn
FILES = 400  # that are read at most
SETTINGS = 16  # lines of a panel
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (3, 1, 1, 1, 1, 1)))

Curve = dict[float, float]
"""Metric by epoch."""

Lines = tuple[tuple[str, str], dict[str, tuple[LabelledRun, Curve]]]
"""A model and a data set, and of every setting there a run and the mean curve."""


def read(path: Path, metric: str) -> Curve:
    """Read the validations of a `metrics.jsonl`; a broken last line is left out."""
    word, found = f'"{metric}"'.encode(), {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return {}
    for line in lines:
        if word in line:
            try:
                values = json.loads(line)
                found[float(values["epoch"])] = float(values[metric])
            except (ValueError, TypeError, KeyError):
                continue
    return found


def curves(runs: list[Values], directories: Path) -> list[Lines]:
    """Return the mean curve of every setting, by (model, data set), then by setting.

    `directories` is the folder with the run directories.
    """
    places: dict[tuple[str, str], dict[str, list[LabelledRun]]] = {}
    done = [run for run in runs if run["status"] == "done"]
    for run in arrange(done):
        settings = places.setdefault((run.model, run.data_set), {})
        settings.setdefault(run.setting, []).append(run)
    drawable = []
    left = FILES
    for place, settings in sorted(places.items()):
        lines = {}
        several = sorted(settings.items(), key=lambda setting: order(setting[1][0]))
        for setting, members in several[:SETTINGS]:
            chosen = members[: min(SEEDS, left)]
            left -= len(chosen)
            curve = _mean([_curve(run, directories) for run in chosen])
            if len(curve) > 1:
                lines[setting] = (members[0], curve)
        if lines:
            drawable.append((place, lines))
    return drawable


def curve_figure(drawable: list[Lines], stem: Path) -> list[Path]:
    """Draw a panel for every model and data set; return the files written, none without curves."""
    if not drawable:
        return []
    with grid(len(drawable), size=(4.6, 3.4)) as (figure, axes, width):
        from matplotlib.lines import Line2D

        looks = styles(run.method for _, lines in drawable for run, _ in lines.values())
        dashes, shown = _dashes(drawable, looks), {}
        for ax, ((model, data_set), lines) in zip(axes, drawable, strict=False):
            head(ax, data_set, model)
            for setting, (run, curve) in lines.items():
                epochs, values = zip(*sorted(curve.items()), strict=True)
                look = looks[run.method]
                (line,) = ax.plot(epochs, values, color=look.color, marker=look.marker)
                line.set(linestyle=dashes[setting], markersize=3.5)
                shown[setting] = line
            _name(ax, lines)
        shown |= {text: Line2D([], [], linestyle="none") for text in left_out(len(drawable))}
        place = {"loc": "outside lower center", "ncols": 2 * width, "frameon": False}
        figure.legend(list(shown.values()), list(shown), handlelength=2.8, **place)
        return list(save(figure, stem))


def _dashes(drawable: list[Lines], looks: dict[str, Style]) -> dict[str, Any]:
    """Return the dash of every setting: those of one colour differ."""
    colors: dict[str, list[str]] = {}
    for _, lines in drawable:
        for setting, (run, _) in lines.items():
            settings = colors.setdefault(looks[run.method].color, [])
            settings += [setting] if setting not in settings else []
    return {s: DASHES[i % len(DASHES)] for own in colors.values() for i, s in enumerate(own)}


def _curve(run: LabelledRun, directories: Path) -> Curve:
    return read(directories / str(run.values.get("name")) / "metrics.jsonl", _key(run))


def _key(run: LabelledRun) -> str:
    return run.values.get("config.metrics.key") or "segm_AP"


def _mean(curves: list[Curve]) -> Curve:
    """Return the mean of curves where all have a value."""
    found = [curve for curve in curves if curve]
    shared = set.intersection(*(set(curve) for curve in found)) if found else set()
    return {epoch: fmean(curve[epoch] for curve in found) for epoch in shared}


def _name(ax: Axes, lines: dict[str, tuple[LabelledRun, Curve]]) -> None:
    """Name axes and lines."""
    run = next(iter(lines.values()))[0]
    unit = run.values.get(f"metrics.{_key(run)}.unit") or ""
    ax.set_xlabel("epoch")
    ax.set_ylabel(f"{metric_name(_key(run))} ({unit})" if unit else metric_name(_key(run)))
