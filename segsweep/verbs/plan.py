"""The verb `plan`: what a command line would run, what is missing for it, and what it would cost.

    python -m segsweep plan -m +sweep=table2 peft=lora
    python -m segsweep plan -m hydra/launcher=slurm peft.rank=2,4,8 --max-hours 20

The words are those of the command that would follow; `--dry-run` behind that command does the same.
Every run is composed and checked: keys and values, data, base weights. Costs are those of finished
runs like it (segsweep/sweep/cost.py). Nothing is started and nothing written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, plain, typed
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.owner import owned
from segsweep.base.terminal import aligned, duration, human, shared
from segsweep.model.files import locate
from segsweep.run.identity import LIVE, Run, State, state_of
from segsweep.sweep.cost import Cost, estimate, known, probe
from segsweep.sweep.names import directories, remember
from segsweep.sweep.slurm import Slurm, script
from segsweep.sweep.status import jobs
from segsweep.sweep.sweeper import Combination, composing


@dataclass
class Planned:
    """One combination: its run if it can be composed, and all that is to be known of it."""

    words: Combination
    run: Run | None = None
    state: str = "refused"
    faults: list[str] = field(default_factory=list)
    same: str | None = None  # words of the combination that means the same run
    cost: Cost = field(default_factory=Cost)

    @property
    def to_run(self) -> bool:
        """Whether this run would be started."""
        over = (State.DONE.value, *(state.value for state in LIVE))
        if self.run is None or self.same:
            return False
        return self.state not in over or (self.state == "done" and self.run.config.force)


def main(argv: list[str] | None = None) -> int:
    """Print the plan; 1 if something is missing for it.

    Raises UserError when it costs more than `--max-hours`.
    """
    options = _parser().parse_intermixed_args(argv)
    folder = options.config_dir
    words = [f"hydra.searchpath=[file://{folder.resolve()}]"] if folder else []
    try:
        with composing([*words, *options.overrides]) as (whole, combinations):
            runs = [composed(words) for words in combinations]
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    check(runs, options.fetch)
    price(runs, options.probe)
    kept, total = within(runs, options.max_hours, options.trim)
    if options.json:
        print(json.dumps([described(one, one in kept) for one in runs], indent=1))
    else:
        print("\n".join([*lines(runs, kept), *header(whole, kept)]))
    if options.max_hours is not None:
        refuse(runs, total, options.max_hours)
    if options.save:
        save(kept, options.save)
    return 1 if any(one.faults for one in runs) else 0


def composed(words: Combination) -> Planned:
    """Compose and check one combination; what is wrong with it is kept, not raised."""
    try:
        run = Run(typed(hydra.compose("train", overrides=words)))
        return Planned(words, run)
    except (HydraException, OmegaConfBaseException) as error:
        return Planned(words, faults=[explain(error)])
    except UserError as error:
        return Planned(words, faults=[str(error)])


def check(runs: Sequence[Planned], fetch: bool) -> None:
    """Find states, combinations that mean the same run, and missing data and weights."""
    found = [(one, one.run) for one in runs if one.run is not None]
    queue = jobs([run.directory for _, run in found])
    first: dict[str, Planned] = {}
    missing = _missing(fetch)
    for one, run in found:
        one.state = state_of(run.directory, queue).value
        other = first.setdefault(run.name, one)
        if other is not one:
            one.same = " ".join(other.words)
        elif one.to_run:
            one.faults += missing(run.config)


def _missing(fetch: bool) -> Callable[[Config], list[str]]:
    """Return what says what a run would not find; each data set and file is looked for once."""
    seen: dict[str, list[str]] = {}

    def once(key: str, look: Callable[[], object]) -> list[str]:
        if key not in seen:
            try:
                look()
                seen[key] = []
            except UserError as error:
                seen[key] = [str(error)]
        return seen[key]

    def missing(config: Config) -> list[str]:
        weights = config.model.weights
        faults = once(json.dumps(plain(config.data)), config.data.texts)
        if weights is not None:
            faults = faults + once(weights, lambda: locate(weights, download=fetch))
        return faults

    return missing


def price(runs: Sequence[Planned], measure: bool) -> None:
    """Estimate what is to be run; `measure` probes what no finished run is like."""
    folders = {one.run.config.io.results for one in runs if one.run is not None}
    evidence = known([run for folder in folders for run in directories(Path(folder))])
    probed: dict[str, Cost] = {}
    for one in runs:
        if one.run is None or not one.to_run or one.faults:
            continue
        config = one.run.config
        images = cache(lambda data=config.data: len(data.records("train")))
        one.cost = estimate(config, images, evidence)
        if measure and one.cost.hours is None:
            groups = (config.model, config.data, config.hparams, config.trainer)
            key = json.dumps([config.peft.name, *map(plain, groups)])  # ranks cost about the same
            if key not in probed:
                print(f"probing {' '.join(one.words)}", file=sys.stderr)
                probed[key] = probe(config)
            one.cost = probed[key]


def within(runs: Sequence[Planned], most: float | None, trim: bool) -> tuple[list[Planned], float]:
    """Return the runs that would be started, in order, and the hours that are known of them.

    `trim` leaves out, from the first one that exceeds `most` hours on, all that follow.
    """
    kept: list[Planned] = []
    total = 0.0
    for one in (one for one in runs if one.to_run):
        hours = one.cost.hours or 0.0
        if trim and most is not None and total + hours > most:
            break
        kept.append(one)
        total += hours
    return kept, total


def refuse(runs: Sequence[Planned], total: float, most: float) -> None:
    """Raise UserError when runs take more than `most` hours, or nobody knows how many."""
    unknown = [o for o in runs if o.to_run and o.cost.hours is None and not o.faults]
    if unknown:
        raise UserError(
            f"--max-hours: nothing is known of {len(unknown)} runs, first of "
            f"{' '.join(unknown[0].words) or 'the default'}; --probe measures them"
        )
    if total > most:
        raise UserError(
            f"--max-hours={most:g}: these runs take about {total:.1f} hours; "
            "--trim keeps the first ones that fit"
        )


def lines(runs: Sequence[Planned], kept: Sequence[Planned]) -> list[str]:
    """Return the plan as text."""
    common = shared([one.words for one in runs])
    rows: list[Sequence[str]] = [("", "hours", "memory", "GPU memory", "disk", "as", "")]
    for one in runs:
        words = " ".join(w for w in one.words if w not in common)
        left = one.to_run and one not in kept
        state = f"same as {one.same}" if one.same else "too much" if left else one.state
        cost = one.cost if one.to_run else Cost(source="")
        hours = "" if cost.hours is None else f"{cost.hours:.2f}"
        sizes = ["" if s is None else human(s) for s in (cost.memory, cost.cuda, cost.disk)]
        rows.append((state, hours, *sizes, cost.source, words))
    text = [f"all: {' '.join(common)}"] if common else []
    text += [*aligned(rows), *summary(runs, kept)]
    return text + troubles(runs)


def troubles(runs: Sequence[Planned]) -> list[str]:
    """Return what is wrong or missing, each once, with the first combination that has it."""
    found: dict[str, list[Planned]] = {}
    for one in runs:
        for fault in one.faults:
            found.setdefault(fault, []).append(one)
    return [
        f"{fault}  ({len(ones)} run(s), first {' '.join(ones[0].words) or 'the default'})"
        for fault, ones in found.items()
    ]


def summary(runs: Sequence[Planned], kept: Sequence[Planned]) -> list[str]:
    """Return the totals in a line."""
    same = sum(one.same is not None for one in runs)
    hours = [one.cost.hours for one in kept]
    text = f"{len(runs) - same} runs: {len(kept)} to run"
    if refused := sum(one.run is None for one in runs):
        text += f", {refused} refused"
    if same:
        text += f", {same} combinations mean the same run as another"
    known_hours = sum(h for h in hours if h is not None)
    if known_hours:
        text += f"; about {duration(3600 * known_hours)} of computing"
    if None in hours and kept:
        text += f"; nothing is known of {hours.count(None)} (--probe measures them)"
    disk = sum(one.cost.disk or 0 for one in kept)
    return [text + (f"; at most {human(disk)} of disk" if disk else "")]


def header(whole: DictConfig, kept: Sequence[Planned]) -> list[str]:
    """Return what sbatch would be asked for by `slurm`: an array of jobs for each kind of run."""
    launcher = OmegaConf.to_container(whole.hydra.launcher, resolve=False)
    assert isinstance(launcher, dict)
    if not str(launcher.get("_target_")).endswith("SlurmLauncher"):
        return []
    own = {str(k): v for k, v in launcher.items() if k in Slurm.__dataclass_fields__}
    arrays: dict[tuple[Any, ...], list[Run]] = {}
    for run in (one.run for one in kept if one.run is not None):
        trainer = run.config.trainer
        kind = (trainer.nodes, trainer.devices, trainer.accelerator, run.config.io.results)
        arrays.setdefault(kind, []).append(run)
    text: list[str] = []
    for runs in arrays.values():
        intent = runs[0].directory.parent / ".submit" / "0.json"  # submission takes an own number
        batch = script(runs[0], Slurm(**own), intent, len(runs))
        text += [line for line in batch.splitlines() if line.startswith("#SBATCH")]
    return text


def described(one: Planned, kept: bool) -> dict[str, Any]:
    """Return a line of the plan for JSON."""
    name = one.run.name if one.run is not None else None
    about = {"overrides": one.words, "run": name, "state": one.state, "same_as": one.same}
    return about | {"starts": kept, "faults": one.faults, **one.cost.plain()}


def save(kept: Sequence[Planned], name: str) -> None:
    """Freeze the configs of runs under a sweep's name; `retry` starts them."""
    for one in kept:
        if one.run is not None:
            with owned(one.run.directory):
                one.run.prepare()
            remember(Path(one.run.config.io.results), name, {one.run.name: one.words})
    print(f"saved {len(kept)} runs; `python -m segsweep retry {name}` starts them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m segsweep plan", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("overrides", nargs="*", help="the words of the command, as for training")
    parser.add_argument("-m", "--multirun", action="store_true", help="as there; implied")
    parser.add_argument("--config-dir", type=Path, help="as there: a folder of your own words")
    parser.add_argument("--probe", action="store_true", help="measure what nothing is known of")
    parser.add_argument("--fetch", action="store_true", help="download base weights into the cache")
    parser.add_argument("--max-hours", type=float, metavar="H", help="refuse what takes longer")
    parser.add_argument("--trim", action="store_true", help="keep the first runs that fit instead")
    parser.add_argument("--save", metavar="NAME", help="freeze what would run, for `retry NAME`")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser
