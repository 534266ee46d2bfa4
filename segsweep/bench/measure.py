"""All variants of one base measured in one process, and the record of each.

    {"kind": "bench", "config": {..., "bench": {"form", "size", "classes", "threads", "device"}},
     "params": {...}, "bench": {"median_ms", "ratio": {"median", "low", "high"}, "flops", ...,
                                "train": {"median_ms", "peak_mib", "total_s", ...}}}

Records lie in results/bench/, apart from those of runs: nothing here was trained.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from segsweep.base.config import SCHEMA, Config, plain
from segsweep.base.files import write_json
from segsweep.base.terminal import watched
from segsweep.bench import training
from segsweep.bench.clock import Estimate, Times, rounds, spread
from segsweep.bench.count import count
from segsweep.bench.settings import Plan
from segsweep.bench.variants import Variant, variants
from segsweep.data.geometry import DIVISOR
from segsweep.model.segmenter import Segmenter
from segsweep.run.identity import git, now, versions
from segsweep.run.machine import arithmetic, machine_facts
from segsweep.run.restore import assemble

ARRANGEMENT = "all variants in one process, which shares the tensors of the base, in turns"


def measure(base: Config, settings: Mapping[str, Config], plan: Plan) -> list[dict[str, Any]]:
    """Measure a base and each of the settings of a method on it; return their records.

    Raises:
        UserError: the model cannot be built, takes no images of this size, or cannot be trained.
    """
    started, start = now(), time.monotonic()
    trained = _trained(settings, plan) if plan.train else {}
    device, cast = arithmetic(base.trainer)
    model, *_ = assemble(base, list(plan.subject.texts), plan.subject)
    model.sem_seg_head.only_pixels()
    model.to(device).eval()
    with torch.no_grad(), cast:
        _first(model, plan, device)  # encodes the texts, for the copies too
        named = {"base": base, **settings}
        compared = [v for label, config in named.items() for v in variants(model, config, label)]
        costs = [_cost(variant.model, plan, device) for variant in compared]
        times = {n: _times(compared, n, plan, device) for n in plan.batches}
    heads = [_head(v, plan, device, v.setting in trained) for v in compared]
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    weights = {"weights": base.model.weights or "random", "base_bytes": size}
    common = {"base": heads[0]["id"], **weights, "arrangement": ARRANGEMENT, "warmup": plan.warmup}
    ended = {"started": started, "ended": now(), "seconds": {"total": time.monotonic() - start}}
    return [
        {
            **heads[i],
            "bench": {
                **numbers(times[1][i], times[1][0]),
                "images_per_s": {str(n): 1e3 * n / median(t[i].wall) for n, t in times.items()},
                **costs[i],
                "checkpoint_bytes": variant.delta_bytes,
                **({"train": trained[variant.setting]} if variant.setting in trained else {}),
                **common,
            },
            **ended,
            **machine_facts(),
        }
        for i, variant in enumerate(compared)
    ]


def _trained(settings: Mapping[str, Config], plan: Plan) -> dict[str, dict[str, Any]]:
    """Measure training steps of each setting, before anything else takes memory."""
    shown = watched(settings.items(), len(settings), "training steps")
    return {label: training.measured(config, plan) for label, config in shown}


def numbers(times: Times, base: Times) -> dict[str, Any]:
    """Return times of an image, and ratios and differences of the same round to the base's."""
    walls = list(zip(times.wall, base.wall, strict=True))
    return {
        "median_ms": median(times.wall),
        "iqr_ms": spread(times.wall),
        "cpu_ms": median(times.cpu),
        "ratio": asdict(Estimate.of([a / b for a, b in walls])),
        "extra_ms": asdict(Estimate.of([a - b for a, b in walls])),
        "cpu_ratio": asdict(Estimate.of([a / b for a, b in zip(times.cpu, base.cpu, strict=True)])),
        "rounds": len(walls),
        "all_ms": times.wall,
        "all_cpu_ms": times.cpu,
    }


def write(records: Sequence[dict[str, Any]], results: Path) -> list[Path]:
    """Write each record to a directory of its own below `results/bench`; return the files."""
    paths = [results / "bench" / record["name"] / "record.json" for record in records]
    for path, record in zip(paths, records, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
    return paths


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Let torch use so many threads inside; None leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _images(plan: Plan, number: int, device: torch.device) -> Tensor:
    """Noise of the size asked for, padded as a loader would. -> (number, 3, H, W)"""
    height, width = plan.size
    images = torch.zeros(number, 3, *(-(-side // DIVISOR) * DIVISOR for side in plan.size))
    noise = torch.randn(number, 3, height, width, generator=torch.Generator().manual_seed(0))
    images[..., :height, :width] = noise
    return images.to(device)


def _first(model: Segmenter, plan: Plan, device: torch.device) -> None:
    with training.sized(plan):
        model(_images(plan, 1, device))


def _cost(model: Segmenter, plan: Plan, device: torch.device) -> dict[str, float]:
    """Operations and peak memory of the network on one image, without what is found."""
    images = _images(plan, 1, device)
    flops, peak = count(lambda: model(images), device)
    return {"flops": flops, "peak_mib": peak}


def _times(
    compared: Sequence[Variant], number: int, plan: Plan, device: torch.device
) -> list[Times]:
    """Time all variants on a batch of so many images, from pixels to what is found."""
    images = _images(plan, number, device)
    output = compared[0].model(images)
    calls = [_call(variant.model, images, output, plan) for variant in compared]
    for _ in range(plan.warmup):
        for call in calls:
            call()
    label = f"{compared[0].config.model.name}, {number} image{'s' if number > 1 else ''} at once"
    return rounds(calls, plan.rounds, plan.seconds, device, label)


def _call(model: Segmenter, images: Tensor, output: Any, plan: Plan) -> Callable[[], object]:
    """What is timed: the network, then what is found in the base's output.

    What comes after the network depends on what was found, which random weights do not tell.
    """
    view = plan.size, (images.shape[2], images.shape[3]), plan.size

    def call() -> None:
        model(images)
        model.predict(output, [view] * len(images))

    return call


def _head(variant: Variant, plan: Plan, device: torch.device, trained: bool) -> dict[str, Any]:
    """What a record says before anything is measured; its id names what is measured."""
    config, counts = variant.config, variant.counts
    conditions = {
        "form": variant.form,
        "size": "x".join(map(str, plan.size)),
        "classes": len(plan.subject.texts),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
    if trained:
        conditions["train"] = training.conditions(config, plan)
    described = {**plain(config), "bench": conditions}
    groups = ("model", "peft", "data", "trainer", "bench")
    content = json.dumps([described[group] for group in groups], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:12]
    return {
        "schema": SCHEMA,
        "kind": "bench",
        "id": key,
        "name": f"{config.model.name}-{config.peft.name}-{config.data.name}-{key}",
        "setting": variant.label,
        "status": "done",
        "error": None,
        "config": described,
        "git": git(),
        "versions": versions(),
        "params": {
            "trainable": counts.trainable,
            "total": counts.total,
            "percent": counts.percent,
            "base": config.model.name,
        },
    }
