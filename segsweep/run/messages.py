"""What a run says on the terminal: what is about to be trained, and what came out."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from segsweep.metrics.learnt import FLOOR, learnt
from segsweep.run.folder import DELTA
from segsweep.run.identity import Run

if TYPE_CHECKING:
    from segsweep.base.config import Config
    from segsweep.metrics.ceiling import Ceiling
    from segsweep.model.family import Family
    from segsweep.model.weights import LoadReport
    from segsweep.peft.apply import Counts
    from segsweep.run.elsewhere import Elsewhere


def advise(config: Config) -> None:
    """Say which model would help, where the base weights have never seen such data."""
    if advice := config.model.advice(config.data):
        print(advice, flush=True)


def announce(
    name: str,
    model: Family,
    loaded: LoadReport,
    counts: Counts,
    data: dict[str, Any],
    limit: Ceiling | None,
) -> None:
    """Say what is about to be trained, and what even a perfect model would not reach."""
    print(f"run {name}")
    print(f"  {loaded}")
    print(
        f"  trains {counts.trainable:,} of {counts.total:,} parameters ({counts.percent:.2f} %)",
        flush=True,
    )
    if counts.trainable and (line := negatives_line(data)):
        print(line, flush=True)
    if model.language:
        print(class_lines(data), flush=True)
    if limit and limit.notable:
        print(f"  ceiling: {limit}", flush=True)


def negatives_line(data: dict[str, Any]) -> str:
    """Say of how many training pictures nothing is learnt as they show no object, if there are."""
    negatives = data.get("negatives", {"train": 0})
    if not negatives["train"]:
        return ""
    line = f"  {negatives['train']} of {data['images']['train']} training pictures have no object"
    if negatives["rule"] == "keep":
        return f"{line}; they are trained on, too"
    return f"{line} and are not used; data.negatives=keep trains on them, too"


def class_lines(data: dict[str, Any]) -> str:
    """Say what a language-driven model is told of each class: swapped names show at a glance."""
    rows = list(zip(data["category_ids"], data["classes"], data["prompts"], strict=True))
    if len(rows) > 20:
        words = [f"{k}/{c} {name}" for k, (c, name, _) in enumerate(rows)]
        words = [w if t == n else f"{w} = {t}" for w, (_, n, t) in zip(words, rows, strict=True)]
        head = "  classes (id/category name = text): "
        return textwrap.fill(", ".join(words), 100, initial_indent=head, subsequent_indent="    ")
    lines = [("id", "category", "name", "text"), *((k, *row) for k, row in enumerate(rows))]
    width = max(len(name) for _, _, name, _ in lines)
    return "\n".join(f"  {k:>4} {c:>9}  {name:<{width}}  {text}" for k, c, name, text in lines)


def unlearnt(config: Config, metric: dict[str, Any] | None) -> str:
    """Say that training has led to nothing, and what may help; nothing where it has."""
    if not metric or metric["value"] is None:
        return ""
    if learnt(metric["value"], metric["unit"], metric["direction"]):
        return ""
    model, instead = config.model, config.model.instead(config.data)
    base = f"model={model.name} now{instead and f'; better: {instead}'}"
    return (
        f"nothing has been learnt ({config.metrics.key} is below {FLOOR:g}): more epochs "
        f"(hparams.epochs={config.hparams.epochs} now), a larger learning rate "
        f"(hparams.lr={config.hparams.lr:g} now) or a base that knows such images ({base}) may help"
    )


def conclude(run: Run, record: dict[str, Any]) -> None:
    """Say what came out, and which paths matter next."""
    metrics = {k: m["value"] for k, m in record["metrics"].items() if m["value"] is not None}
    key = run.config.metrics.key
    shown = [key, *[name for name in metrics if name != key]][:6]
    print("  " + "  ".join(f"{name} {metrics[name]:.2f}" for name in shown if name in metrics))
    for column, values in (record["analysis"] or {"slices": {}})["slices"].items():
        scores = [f"{v} {score[key]:.2f}" for v, score in values.items() if score[key] is not None]
        print(f"  {key} by {column}: " + "  ".join(scores))
    if record["best"] and (line := unlearnt(run.config, record["metrics"].get(key))):
        print(f"  {line}")
    seconds, memory = record["seconds"], record["memory"]["peak_rss_mib"]
    print(f"  {seconds['total']:.0f} s, peak memory {memory:.0f} MiB")
    print(f"  record  {run.directory / 'record.json'}")
    if record["best"]:
        print(f"  weights {run.directory / DELTA}")
    print("  table   python -m segsweep collect", flush=True)


def conclude_elsewhere(judged: Elsewhere, record: dict[str, Any]) -> None:
    """Say what a finished run reaches on other data, beside what it does on its own."""
    key = judged.config.metrics.key
    there, here = (
        each["metrics"].get(key, {}).get("value") for each in (record, judged.trained_record)
    )
    own = "" if here is None else f" ({here:.2f} on the data of the run)"
    print(f"  {key} {'undefined' if there is None else f'{there:.2f}'}{own}")
    print(f"  record  {judged.directory / 'record.json'}", flush=True)
