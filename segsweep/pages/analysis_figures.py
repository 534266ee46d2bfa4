"""The figure of an analysis.

Of objects: what AP loses by type of error, and how far scores can be trusted. Of label maps: IoU of
the classes, and what is taken for what.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.analysis.matches import TYPES
from segsweep.results.charts.canvas import GREY, LOOK, save
from segsweep.results.wording import elided

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

BARS, EDGE = "#9db8d2", "#16324f"
BAR: dict[str, Any] = {"color": BARS, "edgecolor": EDGE, "linewidth": 0.8, "height": 0.65}
LINES, LETTERS = 10, 16  # classes or confusions that a panel has room for; of a name


def _labelled(ax: Axes, bars: BarContainer, labels: list[str], most: float) -> None:
    """Write beside each bar, from the first at the top, what it means."""
    ax.bar_label(bars, labels, padding=3, fontsize=7)
    ax.set(xlim=(0, most), ylim=(max(len(labels), len(TYPES)) - 0.4, -0.6))
    ax.grid(axis="y", visible=False)


def draw(numbers: dict[str, Any], stem: Path) -> Iterator[Path]:
    """Draw both panels and save them as `stem` with each suffix; yield the paths."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7.4, 3.2), layout="constrained")
        objects = "errors" in numbers
        panels = (_errors, _reliability) if objects else (_classes, _confusions)
        for panel, ax in zip(panels, figure.subplots(1, 2), strict=True):
            panel(ax, numbers)
        yield from save(figure, stem)


def _errors(ax: Axes, numbers: dict[str, Any]) -> None:
    """Draw what AP would gain without each type of error."""
    errors = numbers["errors"] or {}
    gains = [errors[name]["dAP"] if errors else 0.0 for name in TYPES.values()]
    counts = [errors[name]["count"] if errors else 0 for name in TYPES.values()]
    bars = ax.barh(list(TYPES.values()), gains, **BAR)
    labels = [f"{gain:.1f}  ({n})" for gain, n in zip(gains, counts, strict=True)]
    _labelled(ax, bars, labels, 1.3 * max(*gains, 1.0))
    ap = f"{errors['base']['AP']:.1f}" if errors else "not defined"
    boxes = "box " if numbers.get("matched") == "boxes" else ""
    ax.set_title(f"Errors: AP at {boxes}IoU {numbers['iou']:g} is {ap}", loc="left", pad=14)
    ax.set_xlabel("gain in AP without them, points (number of errors)")


def _reliability(ax: Axes, numbers: dict[str, Any]) -> None:
    """Draw the share of right predictions over their score; bars on the diagonal can be trusted."""
    calibration = numbers["calibration"]
    bins = calibration["bins"]
    width = 1 / len(bins)
    for k, (count, mean, share) in enumerate(bins):
        left = k * width
        if count:
            ax.bar(left, share, width, align="edge", color=BARS, edgecolor=EDGE, linewidth=0.8)
            ax.plot(mean / 100, share, "o", color=EDGE, markersize=3.5)
        ax.annotate(
            f"{count}",
            (left + width / 2, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=6,
            color=GREY,
        )
    ax.plot([0, 1], [0, 100], "--", color="#111111", linewidth=0.9)
    if numbers["best"]:
        score = numbers["best"]["score"]
        ax.axvline(score, color=GREY, linewidth=0.9, linestyle=":")
        ax.annotate(f"best F1 {score:.2f}", (score, 97), (3, 0), textcoords="offset points",
                    va="top", fontsize=7, color=GREY)  # fmt: skip
    ece = "not defined" if calibration["ECE"] is None else f"{calibration['ECE']:.1f} %"
    ax.set_title(f"Reliability: calibration error {ece}", loc="left", pad=14)
    legend = "score (dots: mean of a bin, above: predictions in it)"
    ax.set(xlim=(0, 1), ylim=(0, 100), xlabel=legend, ylabel="right predictions, %")


def _classes(ax: Axes, numbers: dict[str, Any]) -> None:
    """Draw the IoU of the classes, the lowest first."""
    rows = sorted(numbers["classes"], key=lambda row: row["IoU"])
    values = [row["IoU"] for row in rows[:LINES]]
    bars = ax.barh(range(len(values)), values, **BAR)
    names = [elided(row["class"], LETTERS) for row in rows[:LINES]]
    ax.set_yticks(range(len(values)), names)
    _labelled(ax, bars, [f"{value:.1f}" for value in values], 118)
    ax.set_xticks(range(0, 101, 20))
    which = f"the {LINES} lowest of {len(rows)}" if len(rows) > LINES else "all"
    mean = numbers["image_iou"]["mean"]
    title = "not defined" if mean is None else f"{mean:.1f}"
    ax.set_title(f"Classes: mean IoU of an image is {title}", loc="left", pad=14)
    ax.set_xlabel(f"IoU over all images, % ({which})")


def _confusions(ax: Axes, numbers: dict[str, Any]) -> None:
    """Draw which part of a class is taken for which other, most pixels first."""
    rows = numbers["confusions"][:LINES]
    bars = ax.barh(range(len(rows)), [share for *_, share in rows], **BAR)
    names = [f"{elided(true, LETTERS)} → {elided(other, LETTERS)}"
             for true, other, *_ in rows]  # fmt: skip
    ax.set_yticks(range(len(rows)), names)
    labels = [f"{share:.1f}  ({pixels:,})" for *_, pixels, share in rows]
    _labelled(ax, bars, labels, 1.5 * max([share for *_, share in rows], default=1.0))
    ax.set_title("Confusions: true class → taken for", loc="left", pad=14)
    ax.set_xlabel("share of the true class, % (pixels)")
