"""What a record says about a run, and what a run says on the terminal."""

from __future__ import annotations

import contextlib
import gc
import platform
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.run.identity import Run, rank

if TYPE_CHECKING:
    from segsweep.peft.apply import Counts


def data_facts(data: Any, classes: list[str]) -> dict[str, Any]:
    """Return what a record says about its data; reads both splits, so bad data fail here."""
    background = {"background": data.background} if data.task == "semantic" else {}
    return background | {
        "fingerprint": data.fingerprint(),
        "classes": classes,
        "category_ids": data.category_ids(),
        "prompts": data.texts(),
        "images": {split: len(data.records(split)) for split in ("train", "val")},
        "split": data.split_facts(),
    }


def metric_facts(metric: Any, values: dict[str, float | None]) -> dict[str, Any]:
    """Return value, unit, direction and protocol of each metric; null where it is undefined."""
    described, protocol = metric.names(), metric.protocol()
    return {
        name: {
            "value": value,
            "unit": described[name][0],
            "direction": described[name][1],
            "protocol": protocol,
        }
        for name, value in values.items()
    }


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
    """Return what AdamW is told: rate before the schedule, decay, and the tensors they hold for."""
    return [
        {
            "lr": group["lr"],
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
    found = [tuple(name.split(".")) for name in names]
    for place in range(max(map(len, found), default=0)):
        alike: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for parts in found:
            number = place < len(parts) and parts[place].isdigit()
            key = (*parts[:place], "", *parts[place + 1 :]) if number else parts
            alike.setdefault(key, []).append(parts)
        found = [one for several in alike.values() for one in _joined(several, place)]
    return [".".join(parts) for parts in found]


def _joined(alike: list[tuple[str, ...]], place: int) -> list[tuple[str, ...]]:
    """Make one of names that differ in the number at a place, if the numbers leave no gap."""
    if len(alike) == 1:
        return alike
    first, last = int(alike[0][place]), int(alike[-1][place])
    if [int(parts[place]) for parts in alike] != list(range(first, last + 1)):
        return alike
    return [(*alike[0][:place], f"{{{first}..{last}}}", *alike[0][place + 1 :])]


def machine_facts() -> dict[str, Any]:
    """Return peak memory in MiB since the run began, and the device."""
    import torch

    cuda = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    return {
        "memory": {
            "peak_rss_mib": peak_rss_mib(),
            "peak_cuda_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1) if cuda else None,
        },
        "device": {
            "name": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
            "host": platform.node(),
            "threads": torch.get_num_threads(),
        },
    }


def reset_peaks() -> None:
    """Begin to measure peak memory: several runs may share a process."""
    import torch

    gc.collect()  # a Lightning trainer is full of cycles
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_rss_mib() -> float:
    """Return the peak resident memory of this process in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024, 1)
    except (OSError, StopIteration):
        import resource

        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def announce(run: Run, counts: Counts, loaded: Any, data: dict[str, Any]) -> None:
    """Say what is about to be trained."""
    if rank(run.config.trainer):
        return
    print(f"run {run.name}")
    print(f"  {loaded}")
    print(
        f"  trains {counts.trainable:,} of {counts.total:,} parameters ({counts.percent:.2f} %)",
        flush=True,
    )
    if run.config.model.language:
        print(class_lines(data), flush=True)


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


def conclude(run: Run, record: dict[str, Any]) -> None:
    """Say what came out, and which paths matter next."""
    metrics = {k: m["value"] for k, m in record["metrics"].items() if m["value"] is not None}
    key = run.config.metrics.key
    shown = [key, *[name for name in metrics if name != key]][:6]
    print("  " + "  ".join(f"{name} {metrics[name]:.2f}" for name in shown if name in metrics))
    for column, values in (record["analysis"] or {"slices": {}})["slices"].items():
        found = [f"{v} {one[key]:.2f}" for v, one in values.items() if one[key] is not None]
        print(f"  {key} by {column}: " + "  ".join(found))
    seconds, memory = record["seconds"], record["memory"]["peak_rss_mib"]
    print(f"  {seconds['total']:.0f} s, peak memory {memory:.0f} MiB")
    print(f"  record  {run.directory / 'record.json'}")
    if (run.directory / "delta.safetensors").exists():
        print(f"  weights {run.directory / 'delta.safetensors'}")
    print("  table   python -m segsweep collect", flush=True)
