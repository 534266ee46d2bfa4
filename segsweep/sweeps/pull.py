"""Workers that pull: each claims a free run of a sweep, trains it, and asks for the next one.

There is no server. `freeze` writes the runs of a sweep into their folders; to claim one is to own
its folder (base/owner.py), so whatever starts equal processes on machines that see these folders
can drain a sweep: Kubernetes, PBS, a second laptop, SLURM beside its own jobs. No torch is
imported here: each run trains in a process of its own, whose crash ends that run alone.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.owner import BEAT, Beat, Busy, beat_of, owned, owner_of
from segsweep.base.signals import Stopped, leave, wish
from segsweep.run.attempts import given_up, killed
from segsweep.run.folder import ATTEMPTS
from segsweep.run.identity import Run, State, state_of
from segsweep.run.restore import frozen
from segsweep.sweeps.board import Board, last_words
from segsweep.sweeps.local import TICK, Process, cores, stopping
from segsweep.sweeps.names import chosen, remember, settings
from segsweep.sweeps.sweeper import Combination
from segsweep.sweeps.warm import Starter

POLL = 30.0  # seconds between two looks at runs that others train, more or less
LEASE = 15.0  # minutes without a sign of life after which an owner elsewhere counts as dead
LEAST = 4 * BEAT / 60  # minutes: less would take one late sign for death


def freeze(jobs: Iterable[tuple[Combination, Run]], name: str) -> int:
    """Write the configs of runs, and the name of their sweep, for workers and `retry` to find.

    What was tried before is tried anew; what somebody trains just now is left to them.
    Returns how many there are.

    Raises UserError for a name that is no file name.
    """
    named: dict[Path, dict[str, Combination]] = {}
    for words, run in jobs:
        try:
            with run.owning():
                run.prepare()
                run.delete(ATTEMPTS)
        except Busy:
            pass
        named.setdefault(run.directory.parent.parent, {})[run.name] = words
    for results, runs in named.items():
        remember(results, name, runs)
    return sum(map(len, named.values()))


@dataclass(frozen=True)
class Terms:
    """How long a worker stays, and what it concludes of runs and of other workers."""

    most: int | None = None  # runs that it trains
    until: float | None = None  # seconds since 1970, by its own clock, after which it begins none
    wait: bool = True  # for runs that others train, also where these show that they live
    retries: int = 1  # of a run that failed
    lease: float = LEASE


class Watch:
    """Owners on machines that cannot be asked, and since when they gave no new sign of life.

    Clocks of two machines are never compared: time is that of this process, and while it sleeps
    with its machine none goes by.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: dict[Path, tuple[Beat | None, float]] = {}
        self.living: set[Path] = set()  # whose owner gave one since this process looks

    def silent(self, directory: Path) -> Beat | None:
        """Return the last sign of life of an owner, if it is older than that; None otherwise."""
        beat, now = beat_of(directory), time.monotonic()
        last, since = self.seen.get(directory, (beat, now))
        if beat != last:
            since = now
            self.living.add(directory)
        self.seen[directory] = beat, since
        return beat if now - since > self.seconds else None


class Standing(Enum):
    """What a run of the sweep is to a worker."""

    DONE = "done"
    FREE = "free"
    OTHERS = "with others"
    FAILED = "failed for good"
    UNFIT = "not trained here"
    UNFROZEN = "not frozen (hydra/launcher=queue does that)"


WRONG = (Standing.FAILED, Standing.UNFIT, Standing.UNFROZEN)


class Worker:
    """One of any number of processes that drain a sweep."""

    def __init__(self, results: Path, sweep: str, terms: Terms) -> None:
        self.results, self.sweep, self.terms = results, sweep, terms
        self.watch = Watch(60 * terms.lease)
        self.place = random.random()  # workers that start together begin at different runs
        self.begun = 0
        self.tried: Counter[Path] = Counter()  # of runs that did not end well here
        self.offered: set[Path] = set()  # of these, those that nobody else took for a while
        self.standings: dict[Path, Standing] = {}
        self.labels: dict[Path, str] = {}
        self.board = Board(self.labels)
        self.said = ""

    def drain(self) -> int:
        """Train free runs until none is left, or the terms say so; 1 if something is wrong."""
        try:
            with (
                wish.listening(), self.board, Starter(cores()) as starter, stopping() as processes
            ):  # fmt: skip
                wish.trained = True  # a time limit between two runs cuts nothing short
                while not (limit := self.limit()):
                    if (directory := self.free()) is not None:
                        self.train(directory, processes, starter)
                    elif not self.idle():
                        break
                self.standings = {run: self.standing(run) for run in self.members()}
        except Stopped as stopped:
            leave(stopped)
            raise
        counts = Counter(self.standings.values())
        said = ", ".join(f"{counts[found]} {found.value}" for found in Standing if counts[found])
        print(f"{self.sweep}: {len(self.standings)} runs: {said}; {self.begun} begun here{limit}")
        return int(any(counts[found] for found in WRONG))

    def limit(self) -> str:
        """Say why no further run is begun, nothing while one may be."""
        if self.terms.most is not None and self.begun >= self.terms.most:
            return f", --max-runs={self.terms.most}"
        if self.terms.until is not None and time.time() >= self.terms.until:
            return ", the time of --until has come"
        return ""

    def members(self) -> list[Path]:
        """Return the runs of the sweep, which may have grown, from this worker's place on."""
        runs = chosen(self.results, [self.sweep])
        words = settings(self.results)
        self.labels |= {run: words.get(run.name, "") for run in runs}
        first = int(self.place * len(runs))
        return runs[first:] + runs[:first]

    def free(self) -> Path | None:
        """Return a free run; one that ended badly here is left to other workers for a while."""
        self.standings.clear()
        again: list[Path] = []
        for directory in self.members():
            standing = self.standing(directory)
            if standing is Standing.FREE and not self.tried[directory]:
                return directory
            again += [directory] if standing is Standing.FREE else []
            self.standings[directory] = standing
        offered, self.offered = self.offered, set(again)
        return next((run for run in again if run in offered or not self.terms.wait), None)

    def standing(self, directory: Path) -> Standing:
        """Return what a run is to this worker; an owner elsewhere that fell silent is replaced.

        The queue of SLURM is not asked: a job that waits has no claim yet, and finds the run owned
        or done when it starts; one that runs owns it.
        """
        if self.board.ended.get(directory) is State.DONE:
            return Standing.DONE
        try:
            state = state_of(directory)
        except UserError as error:
            self.note("damaged", directory, str(error))
            return Standing.UNFIT
        if state is State.DONE:
            self.board.ended[directory] = state
            return Standing.DONE
        if state is State.RUNNING and not self.replaced(directory):
            return Standing.OTHERS
        if given_up(directory, self.terms.retries):
            return Standing.FAILED
        if self.tried[directory] > self.terms.retries:
            return Standing.UNFIT
        return Standing.FREE if (directory / "config.yaml").is_file() else Standing.UNFROZEN

    def replaced(self, directory: Path) -> bool:
        """Take a run away from an owner elsewhere that fell silent; say whether it is free now."""
        if (beat := self.watch.silent(directory)) is None:
            return False
        owner = owner_of(directory) or {}
        try:
            with owned(directory, beat):
                pass
        except Busy:
            return False
        who = f"process {owner.get('pid')} on {owner.get('host')}"
        self.board.say("taken over", directory, f"no sign of life of {who}")
        return True

    def train(self, directory: Path, processes: dict[Run, Process], starter: Starter) -> None:
        """Train a run in a process of its own, unless somebody else is faster."""
        try:
            run = frozen(directory)
            if run.config.trainer.nodes > 1:
                raise UserError("trainer.nodes > 1 needs hydra/launcher=slurm")
            process = processes[run] = Process(run, ["cpu"], starter)
            if process.fault:
                raise UserError(process.fault)
        except UserError as error:
            self.tried[directory] += 1
            self.note("left", directory, str(error))
            return
        if not process.busy:
            self.board.begin(directory)
        while not process.over():
            self.board.tick()
            time.sleep(TICK)
        del processes[run]
        self.board.running.discard(directory)
        self.ended(run, process)

    def ended(self, run: Run, process: Process) -> None:
        """Conclude from the run's files, and the exit status, how its process ended."""
        if process.busy:  # somebody else was faster
            return
        self.begun += process.began
        if process.began and process.status is not None and process.status < 0:
            killed(run, -process.status)
        if (state := run.state()) is State.DONE:
            self.board.end(run.directory, state)
        else:
            self.tried[run.directory] += 1
            word = state.value if process.began else "left"
            self.note(word, run.directory, last_words(run.directory))

    def note(self, word: str, directory: Path, reason: str) -> None:
        """Say what is wrong with a run, the same once."""
        if (text := f"{word} {directory} {reason}") != self.said:
            self.said = text
            self.board.say(word, directory, reason)

    def idle(self) -> bool:
        """Wait for runs that may become free; False where there are none, or none is waited for."""
        others = {run for run, found in self.standings.items() if found is Standing.OTHERS}
        waits = self.terms.wait
        hopes = len(others) + len(self.offered) if waits else len(others - self.watch.living)
        if not hopes:
            return False
        if (text := f"waiting for {hopes} runs that others train, or may try again") != self.said:
            self.said = text
            self.board.console.print(text)
        time.sleep(POLL * random.uniform(0.75, 1.25))
        return True
