"""What a command line would run, what is missing for it, and what it would cost.

Every combination is composed and checked: keys and values, data, base weights. Nothing is started,
and nothing is written.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from segsweep.base.config import Config, plain
from segsweep.base.errors import Damaged, Unfit, UserError
from segsweep.base.explain import explained
from segsweep.base.terminal import aligned, duration, human, shared
from segsweep.data.base import trainable
from segsweep.metrics.ceiling import Ceiling, ceiling
from segsweep.model.files import locate, recognised
from segsweep.run.identity import LIVE, Run, State, state_of
from segsweep.sweeps.composer import Composer
from segsweep.sweeps.cost import Cost, estimate, finished_runs, probe
from segsweep.sweeps.names import directories
from segsweep.sweeps.options import Slurm
from segsweep.sweeps.slurm import alike, script
from segsweep.sweeps.status import UNREADABLE, jobs
from segsweep.sweeps.sweeper import Combination, composer, composing, left_out


@dataclass
class Planned:
    """One combination: its run if it can be composed, and all that is to be known of it."""

    words: Combination
    run: Run | None = None
    state: str = "refused"
    faults: list[str] = field(default_factory=list)
    unfit: str | None = None  # why its words cannot go together: no run of the sweep
    same: str | None = None  # words of the combination that means the same run
    cost: Cost = field(default_factory=Cost)
    ceiling: Ceiling | None = None

    @property
    def to_run(self) -> bool:
        """Whether this run would be started."""
        over = (UNREADABLE, State.DONE.value, *(state.value for state in LIVE))
        if self.run is None or self.same:
            return False
        return self.state not in over or (self.state == "done" and self.run.config.force)

    def described(self, starts: bool) -> dict[str, Any]:
        """Return a line of the plan for JSON."""
        name = self.run.name if self.run is not None else None
        identity = {"overrides": self.words, "run": name, "state": self.state, "same_as": self.same}
        limit = self.ceiling.value if self.ceiling else None
        about = {"starts": starts, "left_out": self.unfit, "faults": self.faults, "ceiling": limit}
        about |= {"licence": self.run.config.model.licence if self.run is not None else ""}
        return identity | about | asdict(self.cost)


def composed(overrides: Sequence[str], fetch: bool) -> tuple[DictConfig, list[Planned]]:
    """Return Hydra's own config, and every combination of a command line, composed and checked.

    `fetch` downloads base weights. What is wrong with one combination is kept with it, not raised.
    Those whose words cannot go together are left out, unless nothing else is asked for.
    Raises UserError for words that say no sweep.
    """
    with explained(), composing(overrides) as (hydra_config, combinations):
        compose = composer()
        plan = [_composed(words, compose) for words in combinations]
    if all(entry.unfit for entry in plan):
        plan = [Planned(entry.words, faults=[entry.unfit or ""]) for entry in plan]
    _check(plan, fetch)
    return hydra_config, plan


def _composed(words: Combination, compose: Composer) -> Planned:
    try:
        with explained():
            return Planned(words, Run(compose(words)))
    except Unfit as reason:
        return Planned(words, state="left out", unfit=str(reason))
    except UserError as error:
        return Planned(words, faults=[str(error)])


def _check(plan: Sequence[Planned], fetch: bool) -> None:
    """Find states, combinations that mean the same run, and missing data and weights."""
    queue = jobs([entry.run.directory for entry in plan if entry.run is not None])
    by_name: dict[str, Planned] = {}
    missing = _missing(fetch)
    for entry in plan:
        if entry.run is None:
            continue
        try:
            entry.state = state_of(entry.run.directory, queue).value
        except Damaged as damage:
            entry.state = UNREADABLE
            entry.faults.append(str(damage))
        earlier = by_name.setdefault(entry.run.name, entry)
        if earlier is not entry:
            entry.same = " ".join(earlier.words)
        elif entry.to_run:
            entry.faults += missing(entry.run.config)


def _missing(fetch: bool) -> Callable[[Config], list[str]]:
    """Return what says what a run would not find; each data set and file is looked for once."""
    faults: dict[str, list[str]] = {}

    def once(key: str, look: Callable[[], object]) -> list[str]:
        if key not in faults:
            try:
                look()
                faults[key] = []
            except UserError as error:
                faults[key] = [str(error)]
        return faults[key]

    def missing(config: Config) -> list[str]:
        weights = config.model.weights
        of_data = once(json.dumps(plain(config.data)), config.data.texts)
        if weights is None:
            return of_data
        return of_data + once(weights, lambda: recognised(locate(weights, download=fetch)))

    return missing


def price(plan: Sequence[Planned], measure: bool) -> None:
    """Estimate what is to be run; `measure` probes what no finished run is like."""
    folders = {entry.run.config.io.results for entry in plan if entry.run is not None}
    evidence = finished_runs([run for folder in folders for run in directories(Path(folder))])
    probed: dict[str, Cost] = {}
    for entry in plan:
        if entry.run is None or not entry.to_run or entry.faults:
            continue
        config = entry.run.config
        images = cache(lambda data=config.data: len(trainable(data)))
        entry.cost = estimate(config, images, evidence)
        if measure and entry.cost.hours is None:
            groups = (config.model, config.data, config.hparams, config.trainer)
            key = json.dumps([config.peft.name, *map(plain, groups)])  # ranks cost about the same
            if key not in probed:
                print(f"probing {' '.join(entry.words)}", file=sys.stderr)
                probed[key] = probe(config)
            entry.cost = probed[key]


def bound(plan: Sequence[Planned]) -> None:
    """Say what annotations would score at most, once for each model and data set that is prepared.

    Nothing is drawn or converted for it.
    """
    known: dict[str, Ceiling | None] = {}
    for entry in (entry for entry in plan if entry.to_run and not entry.faults):
        assert entry.run is not None
        config = entry.run.config
        key = json.dumps([config.model.limits, plain(config.data), plain(config.metrics)])
        try:
            if key not in known:
                known[key] = ceiling(config, title="ceiling") if config.data.prepared() else None
            entry.ceiling = known[key]
        except UserError as error:  # as of a label map that cannot be read
            entry.faults.append(str(error))


def ceilings(plan: Sequence[Planned]) -> list[str]:
    """Return a line for each model and data set whose annotations themselves would lose points."""
    lines: dict[str, None] = {}
    for entry in (entry for entry in plan if entry.ceiling and entry.ceiling.notable):
        assert entry.run is not None
        model, data = entry.run.config.model, entry.run.config.data
        lines[f"ceiling of model={model.name} data={data.name}: {entry.ceiling}"] = None
    return [*lines]


def licences(plan: Sequence[Planned]) -> list[str]:
    """Return a line for each model whose base weights have a licence that is known.

    Of weights that timm fetches timm alone knows it: only for these it is imported.
    """
    models = [entry.run.config.model for entry in plan if entry.run is not None]
    said = dict.fromkeys((model.name, model.licence) for model in models if model.licence)
    return [f"licence of the base weights of model={name}: {text}" for name, text in said]


def within(plan: Sequence[Planned], most: float | None, trim: bool) -> tuple[list[Planned], float]:
    """Return the runs that would be started, in order, and the hours that are known of them.

    `trim` leaves out, from the first one that exceeds `most` hours on, all that follow.
    """
    starting: list[Planned] = []
    total = 0.0
    for entry in (entry for entry in plan if entry.to_run):
        hours = entry.cost.hours or 0.0
        if trim and most is not None and total + hours > most:
            break
        starting.append(entry)
        total += hours
    return starting, total


def refuse(plan: Sequence[Planned], total: float, most: float) -> None:
    """Raise UserError when runs take more than `most` hours, or nobody knows how many."""
    unknown = [e for e in plan if e.to_run and e.cost.hours is None and not e.faults]
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


def lines(plan: Sequence[Planned], starting: Sequence[Planned]) -> list[str]:
    """Return the plan as text: its runs, the totals, and what is wrong or missing."""
    runs = [entry for entry in plan if not entry.unfit]
    common = shared([entry.words for entry in runs])
    rows: list[Sequence[str]] = [("", "hours", "memory", "GPU memory", "disk", "as", "")]
    for entry in runs:
        trimmed = entry.to_run and entry not in starting
        state = f"same as {entry.same}" if entry.same else "too much" if trimmed else entry.state
        cost = entry.cost if entry.to_run else Cost(source="")
        hours = "" if cost.hours is None else f"{cost.hours:.2f}"
        sizes = ["" if s is None else human(s) for s in (cost.memory, cost.cuda, cost.disk)]
        words = " ".join(word for word in entry.words if word not in common)
        rows.append((state, hours, *sizes, cost.source, words))
    first = [f"all: {' '.join(common)}"] if common else []
    said = [_summary(runs, starting), *unfitting(plan), *licences(runs), *ceilings(runs)]
    return [*first, *aligned(rows), *said, *_troubles(runs)]


def unfitting(plan: Sequence[Planned]) -> list[str]:
    """Return how many combinations are left out, and why."""
    return left_out([entry.unfit for entry in plan if entry.unfit], len(plan))


def _troubles(plan: Sequence[Planned]) -> list[str]:
    """Return what is wrong or missing, each once, with the first combination that has it."""
    by_fault: defaultdict[str, list[Planned]] = defaultdict(list)
    for entry in plan:
        for fault in entry.faults:
            by_fault[fault].append(entry)
    return [
        f"{fault}  ({len(entries)} run(s), first {' '.join(entries[0].words) or 'the default'})"
        for fault, entries in by_fault.items()
    ]


def _summary(plan: Sequence[Planned], starting: Sequence[Planned]) -> str:
    """Return the totals in a line."""
    same = sum(entry.same is not None for entry in plan)
    hours = [entry.cost.hours for entry in starting]
    text = f"{len(plan) - same} runs: {len(starting)} to run"
    if refused := sum(entry.run is None for entry in plan):
        text += f", {refused} refused"
    if same:
        text += f", {same} combinations mean the same run as another"
    if known_hours := sum(h for h in hours if h is not None):
        text += f"; about {duration(3600 * known_hours)} of computing"
    if None in hours:
        text += f"; nothing is known of {hours.count(None)} (--probe measures them)"
    disk = sum(entry.cost.disk or 0 for entry in starting)
    return text + (f"; at most {human(disk)} of disk" if disk else "")


def header(hydra_config: DictConfig, starting: Sequence[Planned]) -> list[str]:
    """Return what sbatch would be asked for by `slurm`: an array of jobs for each kind of run."""
    launcher = OmegaConf.to_container(hydra_config.hydra.launcher, resolve=False)
    assert isinstance(launcher, dict)
    if not str(launcher.get("_target_")).endswith("SlurmLauncher"):
        return []
    options = Slurm(**{str(k): v for k, v in launcher.items() if k in Slurm.__dataclass_fields__})
    text: list[str] = []
    for runs in alike([entry.run for entry in starting if entry.run is not None]):
        intent = runs[0].directory.parent / ".submit" / "0.json"  # submission takes its own number
        batch = script(runs[0], options, intent, len(runs))
        text += [line for line in batch.splitlines() if line.startswith("#SBATCH")]
    return text
