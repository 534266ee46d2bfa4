"""The verb `bench`: what a method costs at inference, beside the base that it is applied to.

    python -m segsweep bench model=maskdino_r50 peft=adapter peft.repeats=1,2 --size 512 512
    python -m segsweep bench +sweep=table2 model=maskdino_r50 data=ndd20 --classes 1
    python -m segsweep bench peft=lora peft.rank=4,16 --batches 1,8 --rounds 50 --threads 2
    python -m segsweep table latency

Each setting of the words is measured beside its base, a method that edits weights both as it trains
and merged: time from pixels to instances, operations and peak memory of the network, bytes of the
checkpoint. All are there at once and take turns, so that other work on the machine tells on all
alike; ratios to the base are of the same round. Weights are random unless model.weights= is said:
they change no time. Records go to results/bench/.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, plain, typed
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.terminal import human

COLUMNS = ("ms", "IQR", "to base", "CPU to base", "GFLOP", "peak", "delta", "trained")


@dataclass
class Group:
    """A base and the settings, by what they are called, that are measured beside it."""

    base: Config
    settings: dict[str, Config] = field(default_factory=dict)


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write what the words say.

    Raises UserError for words that cannot be composed and numbers that cannot be.
    """
    options = _parser().parse_intermixed_args(argv)
    _check(options)
    try:
        found = groups(options.overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    texts = [_texts(group.base, options.classes) for group in found]
    from segsweep.bench import measure

    for group, told in zip(found, texts, strict=True):
        plan = measure.Plan(
            size=tuple(options.size or group.base.model.input),
            texts=told,
            batches=list(dict.fromkeys([1, *options.batches])),
            rounds=options.rounds,
            warmup=options.warmup,
            seconds=options.seconds,
        )
        with measure.threads(options.threads):
            records = measure.measure(group.base, group.settings, plan)
        show(records)
        for path in measure.write(records, options.results):
            print(f"wrote {path}")
    return 0


def groups(words: Sequence[str]) -> list[Group]:
    """Compose the settings of a command line, each once, by the base that they are settings of."""
    import hydra

    from segsweep.sweep.sweeper import composing

    if not any(word.startswith("model.weights=") for word in words):
        words = [*words, "model.weights=null"]
    found: dict[str, Group] = {}
    with composing(words) as (_, combinations):
        for combination in combinations:
            rest = [word for word in combination if not word.startswith(("peft=", "peft."))]
            base = typed(hydra.compose("train", overrides=[*rest, "peft=frozen"]))
            config = typed(hydra.compose("train", overrides=combination))
            parts = [plain(part) for part in (base.model, base.data, base.trainer)]
            group = found.setdefault(json.dumps(parts), Group(base))
            label = " ".join(w for w in combination if w.startswith(("peft=", "peft.")))
            if config.peft != base.peft and config.peft not in _methods(group):
                group.settings[label or f"peft={config.peft.name}"] = config
    return list(found.values())


def _methods(group: Group) -> list[Any]:
    return [config.peft for config in group.settings.values()]


def show(records: Sequence[dict[str, Any]]) -> None:
    """Print the records of one base as a table."""
    from rich.console import Console
    from rich.table import Table

    bench, about = records[0]["bench"], records[0]["config"]["bench"]
    told = (f"{key} {about[key]}" for key in ("size", "classes", "threads"))
    title = f"{records[0]['params']['base']}: {', '.join(told)}, {bench['rounds']} rounds"
    larger = [number for number in bench["images_per_s"] if number != "1"]
    grid = Table("setting", title=title, title_justify="left")
    for name in (*COLUMNS, *(f"images/s by {number}" for number in larger)):
        grid.add_column(name, justify="right", no_wrap=True)
    for record in records:
        one = record["bench"]
        speed = [f"{one['images_per_s'][number]:.3g}" for number in larger]
        grid.add_row(record["setting"], *_cells(one, record["params"]), *speed)
    Console(width=None if sys.stdout.isatty() else 160).print(grid)
    print("to base: median over rounds, [95 % interval]; weights: " + bench["weights"])


def _cells(bench: dict[str, Any], params: dict[str, Any]) -> list[str]:
    return [
        f"{bench['median_ms']:,.1f}",
        f"{bench['iqr_ms']:,.1f}",
        _ratio(bench["ratio"]),
        _ratio(bench["cpu_ratio"]),
        f"{bench['flops'] / 1e9:,.3f}",
        human(bench["peak_mib"] * 2**20),
        human(bench["checkpoint_bytes"]),
        f"{params['trainable']:,}",
    ]


def _ratio(estimate: dict[str, float | None]) -> str:
    ends = [estimate["low"], estimate["high"]]
    interval = " ".join(f"{end:.3f}" for end in ends if end is not None)
    return f"{estimate['median']:.3f}" + (f" [{interval}]" if interval else "")


def _texts(base: Config, number: int | None) -> list[str]:
    """Return what the classes are called: the data set's, or as many as the user says."""
    if number:
        return [f"class {i}" for i in range(number)]
    try:
        return base.data.texts()
    except UserError as error:
        raise UserError(f"{error} (bench needs only the number of classes: --classes N)") from error


def _check(options: argparse.Namespace) -> None:
    least = {"rounds": 2, "warmup": 0, "seconds": 0, "batches": 1, "threads": 1}
    least |= {"size": 1, "classes": 1}
    for name, bound in least.items():
        value = getattr(options, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < bound:
                raise UserError(f"--{name} {number}: must be at least {bound}")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_numbers.__name__ = "list of numbers"  # what argparse calls it


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m segsweep bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("overrides", nargs="*", help="words as for training a sweep")
    parser.add_argument("-m", "--multirun", action="store_true", help="as there; implied")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="default: model.input"
    )
    parser.add_argument("--classes", type=int, metavar="N", help="default: the data set's")
    parser.add_argument("--batches", type=_numbers, default=[1], help="images at once: 1,4 (1)")
    parser.add_argument("--rounds", type=int, default=30, help="times each is measured (30)")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before that (2)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="then no more rounds begin")
    parser.add_argument("--threads", type=int, help="of torch; default: as it chooses")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    return parser
