"""What a record says about a run: data, metrics, parameters, optimizer, delta."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from segsweep.base.config import plain
from segsweep.data.base import trainable
from segsweep.data.splits import copies, few

if TYPE_CHECKING:
    from segsweep.peft.apply import Counts
    from segsweep.run.identity import Run


def data_facts(data: Any) -> dict[str, Any]:
    """Return what a record says about its data; reads both splits, so bad data fail here."""
    from segsweep.task.base import kind

    more = {"background": data.background} if kind(data.task).dense else {}
    parts = dict.fromkeys(("train", "val", data.chosen_on))
    more |= {"levels": asdict(data.levels)} if data.levels else {}
    if not kind(data.task).dense:
        of_splits = {s: sum(r.negative for r in data.records(s)) for s in ("train", "val")}
        more["negatives"] = {"rule": data.negatives.name, **of_splits}
    return more | {
        "fingerprint": data.fingerprint(),
        "not_hashed": data.not_hashed or None,
        "classes": data.classes(),
        "category_ids": data.category_ids(),
        "prompts": data.texts(),
        "images": {split: len(data.records(split)) for split in parts},
        "trained_on": len(trainable(data)),
        "split": data.split_facts(),
        "leaks": leaks(data),
    }


def judged_facts(data: Any) -> dict[str, Any]:
    """Return what a record says about data that a run was judged on, and not trained on."""
    more = {"levels": asdict(data.levels)} if data.levels else {}
    return more | {
        "fingerprint": data.fingerprint(),
        "not_hashed": data.not_hashed or None,
        "classes": data.classes(),
        "images": {"val": len(data.records("val"))},
        "split": data.split_facts(),
    }


def leaks(data: Any) -> int | None:
    """Return how many pictures of val train has as well, by their bytes; warns if there are any.

    None where files cannot be read, which is told where they are needed.
    """
    paths = [[p for r in data.records(s) if (p := data.picture(r))] for s in ("train", "val")]
    try:
        shared = copies(*paths)
    except OSError:
        return None
    if shared:
        pairs = [(path.name, first.name) for path, first in shared.items()]
        names = few([name if name == other else f"{name} is {other}" for name, other in pairs])
        warnings.warn(
            f"data={data.name}: {names} of {len(paths[1])} pictures of val are in train, too: "
            "results will be too good; `check-data` shows them, split again by photograph",
            stacklevel=2,
        )
    return len(shared)


def metric_facts(metric: Any, values: dict[str, float | None]) -> dict[str, Any]:
    """Return of each metric value, unit, direction, quantity, protocol; null where undefined."""
    described, protocol = metric.names(), metric.protocol()
    return {
        name: {
            "value": value,
            "unit": described[name][0],
            "direction": described[name][1],
            "quantity": metric.quantity(name),
            "protocol": protocol,
        }
        for name, value in values.items()
    }


def licence_facts(model: Any) -> dict[str, Any]:
    """Return the licence of the weights that a run starts from, nothing where nobody says one."""
    return {"licence": model.licence} if model.licence else {}


def count_facts(counts: Counts, base: str, base_hash: str) -> dict[str, Any]:
    """Return parameter counts; percent is equation 10: trainable / (base + added)."""
    return {
        "trainable": counts.trainable,
        "total": counts.total,
        "percent": counts.percent,
        "base": base,
        "base_hash": base_hash,
    }


def optimizer_facts(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the optimizer is told: rate before the schedule, decay, tensors of both."""
    return [
        {
            "lr": group["base_lr"],  # before the schedule
            "weight_decay": group["weight_decay"],
            "parameters": sum(parameter.numel() for parameter in group["params"]),
            "tensors": folded(group["names"]),
        }
        for group in groups
    ]


def folded(names: list[str]) -> list[str]:
    """Join names that differ in consecutive numbers: `layers.{0..8}.norm.weight`.

    That is the notation of shells, whose expansion gives exactly the names.
    """
    rows = [tuple(name.split(".")) for name in names]
    for place in range(max(map(len, rows), default=0)):
        alike: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for parts in rows:
            number = place < len(parts) and parts[place].isdigit()
            key = (*parts[:place], "", *parts[place + 1 :]) if number else parts
            alike.setdefault(key, []).append(parts)
        rows = [row for several in alike.values() for row in _joined(several, place)]
    return [".".join(parts) for parts in rows]


def _joined(alike: list[tuple[str, ...]], place: int) -> list[tuple[str, ...]]:
    """Make one of names that differ in the number at a place, if the numbers leave no gap."""
    if len(alike) == 1:
        return alike
    first, last = int(alike[0][place]), int(alike[-1][place])
    if [int(parts[place]) for parts in alike] != list(range(first, last + 1)):
        return alike
    return [(*alike[0][:place], f"{{{first}..{last}}}", *alike[0][place + 1 :])]


def delta_facts(run: Run, base_hash: str, best: dict[str, Any]) -> dict[str, Any]:
    """Return what a delta file says of itself."""
    return {
        "run": run.name,
        "method": plain(run.config.peft),
        "base": run.config.model.name,
        "base_hash": base_hash,
        "best": best,
    }
