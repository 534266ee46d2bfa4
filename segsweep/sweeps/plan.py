"""What a command line would run, what is missing for it, and what it would cost.

Every combination is composed and checked: keys and values, data, base weights. Nothing is started,
and nothing is written. A run whose data or weights are not here is priced like any other, as far as
its config and the published size of its data tell; without its data it has no name yet.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from segsweep.base.config import Config, plain
from segsweep.base.errors import Damaged, Unfit, UserError
from segsweep.base.explain import explained
from segsweep.base.terminal import watched
from segsweep.data.base import DataSet, trainable
from segsweep.metrics.ceiling import Ceiling, ceiling
from segsweep.model.files import locate, recognised
from segsweep.run.identity import LIVE, Run, State, state_of
from segsweep.sweeps.composer import Composer
from segsweep.sweeps.cost import Cost, estimate, finished_runs, probe
from segsweep.sweeps.names import directories
from segsweep.sweeps.status import UNREADABLE, jobs
from segsweep.sweeps.sweeper import Combination, composer, composing

MISSING = "missing"
"""State of a run whose data or weights are not here, so that it has no name yet."""


@dataclass
class Planned:
    """One combination: its run if it can be composed, and all that is to be known of it."""

    words: Combination
    config: Config | None = None  # None if they say none
    run: Run | None = None  # None, too, where data that are part of its identity are missing
    state: str = "refused"
    faults: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # data and weights that are not here
    unfit: str | None = None  # why its words cannot go together: no run of the sweep
    same: str | None = None  # words of the combination that means the same run
    cost: Cost = field(default_factory=Cost)
    ceiling: Ceiling | None = None

    @property
    def to_run(self) -> bool:
        """Whether this run would be started."""
        over = (UNREADABLE, State.DONE.value, *(state.value for state in LIVE))
        if self.config is None or self.same:
            return False
        return self.state not in over or (self.state == "done" and self.config.force)

    def described(self, starts: bool) -> dict[str, Any]:
        """Return a line of the plan for JSON."""
        name = self.run.name if self.run is not None else None
        identity = {"overrides": self.words, "run": name, "state": self.state, "same_as": self.same}
        limit = self.ceiling.value if self.ceiling else None
        about = {"starts": starts, "left_out": self.unfit, "faults": self.faults, "ceiling": limit}
        about |= {"missing": self.missing, "images": self.images}
        about |= {"licence": self.config.model.licence if self.config is not None else ""}
        return identity | about | asdict(self.cost)

    @property
    def images(self) -> int | None:
        """How many images it would learn from in all its epochs, None if files alone tell it."""
        if self.config is None or (expected := self.config.data.expected()) is None:
            return None
        return expected * self.config.hparams.epochs


def composed(overrides: Sequence[str], fetch: bool) -> tuple[DictConfig, list[Planned]]:
    """Return Hydra's own config, and every combination of a command line, composed and checked.

    `fetch` downloads base weights. What is wrong with one combination is kept with it, not raised.
    Those whose words cannot go together are left out, unless nothing else is asked for.
    Raises UserError for words that say no sweep.
    """
    with explained(), composing(overrides) as (hydra_config, combinations):
        compose = composer()
        asked = watched(combinations, len(combinations), "composing")
        plan = [_composed(words, compose) for words in asked]
    if all(entry.unfit for entry in plan):
        plan = [Planned(entry.words, faults=[entry.unfit or ""]) for entry in plan]
    _check(plan, fetch)
    return hydra_config, plan


def _composed(words: Combination, compose: Composer) -> Planned:
    try:
        with explained():
            return Planned(words, compose(words))
    except Unfit as reason:
        return Planned(words, state="left out", unfit=str(reason))
    except UserError as error:
        return Planned(words, faults=[str(error)])


def _check(plan: Sequence[Planned], fetch: bool) -> None:
    """Find states, combinations that mean the same run, and missing data and weights."""
    missing = _missing(fetch)
    for entry in watched(plan, len(plan), "looking for runs"):
        _identify(entry)
    queue = jobs([entry.run.directory for entry in plan if entry.run is not None])
    first: dict[str, Planned] = {}
    for entry in plan:
        if entry.config is None:
            continue
        if entry.run is not None:
            try:
                entry.state = state_of(entry.run.directory, queue).value
            except Damaged as damage:
                entry.state = UNREADABLE
                entry.faults.append(str(damage))
        name = entry.run.name if entry.run is not None else json.dumps(plain(entry.config))
        earlier = first.setdefault(name, entry)
        if earlier is not entry:
            entry.same = " ".join(earlier.words)
        elif entry.to_run:
            reasons = [*entry.missing, *missing(entry.config)]
            entry.missing = list(dict.fromkeys(reasons))


def _identify(entry: Planned) -> None:
    """Find out which run it is; what cannot be read for it is missing."""
    if entry.config is None:
        return
    try:
        entry.run = Run(entry.config)
    except UserError as reason:
        entry.state, entry.missing = MISSING, [str(reason)]


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
    """Estimate what is to be run; `measure` probes what no finished run is like.

    Runs whose data are not here are priced by the published number of images.
    """
    folders = {entry.config.io.results for entry in plan if entry.config is not None}
    evidence = finished_runs([run for folder in folders for run in directories(Path(folder))])
    probed: dict[str, Cost] = {}
    for entry in plan:
        if entry.config is None or not entry.to_run:
            continue
        config, here = entry.config, entry.run is not None
        entry.cost = estimate(config, cache(partial(_learnt_from, config.data, here)), evidence)
        if measure and entry.cost.hours is None and not entry.missing:
            groups = (config.model, config.data, config.hparams, config.trainer)
            key = json.dumps([config.peft.name, *map(plain, groups)])  # ranks cost about the same
            if key not in probed:
                print(f"probing {' '.join(entry.words)}", file=sys.stderr)
                probed[key] = probe(config)
            entry.cost = probed[key]


def _learnt_from(data: DataSet, here: bool) -> int | None:
    return len(trainable(data)) if here else data.expected()


def bound(plan: Sequence[Planned]) -> None:
    """Say what annotations would score at most, once for each model and data set that is prepared.

    Nothing is drawn or converted for it.
    """
    known: dict[str, Ceiling | None] = {}
    for entry in (entry for entry in plan if entry.to_run and not entry.missing):
        assert entry.config is not None
        config = entry.config
        key = json.dumps([config.model.limits, plain(config.data), plain(config.metrics)])
        try:
            if key not in known:
                known[key] = ceiling(config, title="ceiling") if config.data.prepared() else None
            entry.ceiling = known[key]
        except UserError as error:  # as of a label map that cannot be read
            entry.missing.append(str(error))


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
    unknown = [e for e in plan if e.to_run and e.cost.hours is None]
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
