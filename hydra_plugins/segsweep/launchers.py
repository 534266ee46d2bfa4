"""`hydra/launcher=local`, `slurm` and `queue`: every run once, from its frozen config.

The first two start `python -m segsweep work` on run directories, and nothing that is done or under
way; `queue` leaves that to workers, whoever starts them.
Hydra's own launchers (`basic`, `submitit_slurm` ...) train in their jobs, and skip what is done.
"""

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from segsweep.base.errors import UserError
from segsweep.base.hydra_parts import job_return, open_dicts, sweep_config
from segsweep.base.queue import queue
from segsweep.run.identity import LIVE, Run, State
from segsweep.story import all_ready
from segsweep.sweeps.board import Board, last_words
from segsweep.sweeps.composer import Composer
from segsweep.sweeps.local import Local, state_or_failed, train_all
from segsweep.sweeps.options import Slurm
from segsweep.sweeps.pull import freeze
from segsweep.sweeps.slurm import submit
from segsweep.sweeps.sweeper import Combination

POLL = 5.0  # seconds between two looks at the queue
Job = tuple[Combination, Run]


@dataclass
class LocalConf(Local):
    """The keys of `hydra/launcher=local`."""

    _target_: str = "hydra_plugins.segsweep.launchers.LocalLauncher"


@dataclass
class SlurmConf(Slurm):
    """The keys of `hydra/launcher=slurm`."""

    _target_: str = "hydra_plugins.segsweep.launchers.SlurmLauncher"
    wait: bool = False  # stay until all runs have ended


@dataclass
class Nothing:
    """No options: how runs are trained is said to the workers."""


@dataclass
class QueueConf(Nothing):
    """The keys of `hydra/launcher=queue`."""

    _target_: str = "hydra_plugins.segsweep.launchers.QueueLauncher"


for name, conf in (("local", LocalConf), ("slurm", SlurmConf), ("queue", QueueConf)):
    node = OmegaConf.structured(conf)
    open_dicts(node)
    ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="segsweep")


def composer(context: HydraContext, config: DictConfig) -> Composer:
    """Return what composes the jobs of a sweep into typed objects."""
    return Composer(partial(sweep_config, context, config))


class RunLauncher(Launcher):
    """Launches runs rather than functions; a sweeper that has composed them hands them over."""

    kind: type  # of the options
    options: Any
    word: str  # of hydra/launcher

    def __init__(self, **given: Any) -> None:
        self.given = given

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what composes one job; check the options, whose mistakes are the user's."""
        self.compose = composer(hydra_context, config)
        self.word = config.hydra.runtime.choices["hydra/launcher"]
        self.options = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(self.kind), self.given)
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Compose jobs into runs and start them."""
        return self.start([(list(o), Run(self.compose(list(o)))) for o in job_overrides])

    @abstractmethod
    def start(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Start runs that are not under way; return what came of them."""


class LocalLauncher(RunLauncher):
    """Trains on this machine, several runs at once."""

    kind = Local

    def start(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Train all, come back when the last one has ended."""
        labels = {run: " ".join(words) for words, run in jobs if not run.finished()}
        all_ready(run.config for run in labels)
        ended = train_all(labels, self.options)
        return [returned(job, ended.get(job[1], State.DONE)) for job in jobs]


class SlurmLauncher(RunLauncher):
    """Submits to SLURM, and leaves unless told to wait."""

    kind = Slurm

    def __init__(self, wait: bool = False, **given: Any) -> None:
        super().__init__(**given)
        self.wait = wait

    def start(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Submit what is neither done nor in the queue."""
        submitted = submit([run for _, run in jobs], self.options, self.word)
        for words, run in jobs:
            if run.name in submitted:
                print(f"  job {submitted[run.name]:9} {run.name}  {' '.join(words)}")
        print(
            f"submitted {len(submitted)} of {len(jobs)} runs, the others wait or run already; "
            "`python -m segsweep status` shows them"
        )
        states = watch(jobs) if self.wait else {}
        return [returned(job, states.get(job[1], State.PENDING)) for job in jobs]


class QueueLauncher(RunLauncher):
    """Freezes runs for workers (`work --sweep NAME`), and leaves."""

    kind = Nothing

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the name of the sweep, by which workers ask."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.name: str | None = config.hydra.runtime.choices.get("sweep")
        said = [word.lstrip("+") for word in config.hydra.overrides.task]
        if not (self.name or config.io.sweep or any(w.startswith("io.sweep=") for w in said)):
            raise UserError(
                "hydra/launcher=queue: workers ask for a sweep by its name; add io.sweep=NAME"
            )

    def start(self, jobs: Sequence[Job]) -> list[JobReturn]:
        """Freeze what is not done; print the line that workers need."""
        sweeps: dict[tuple[str, str], list[Job]] = {}
        for job in jobs:
            io = job[1].config.io
            sweeps.setdefault((io.sweep or self.name or "", io.results), []).append(job)
        for (name, results), group in sweeps.items():
            where = f" --results {results}" if results != "results" else ""
            print(f"frozen: {freeze(group, name)} runs; any number of workers train them:")
            print(f"  python -m segsweep work --sweep {name}{where}")
        return [returned(job, State.PENDING) for job in jobs]


def watch(jobs: Sequence[Job]) -> dict[Run, State]:
    """Wait until no run waits or runs; the controller may be away for a while."""
    states: dict[Run, State] = {}
    with Board({run.directory: " ".join(words) for words, run in jobs}) as board:
        while len(states) < len(jobs):
            time.sleep(POLL)
            try:
                live = queue()
            except UserError as error:
                board.console.print(f"{error}; asking again")
                continue
            for _, run in jobs:
                state = state_or_failed(run, live)
                if state is State.RUNNING:
                    board.begin(run.directory)
                elif state not in LIVE:
                    states[run] = state
                    board.end(run.directory, state)
            board.tick()
    return states


def returned(job: Job, state: State) -> JobReturn:
    """Return a run's end in Hydra's words; what goes on elsewhere counts as launched."""
    words, run = job
    if state in (State.DONE, *LIVE):
        return job_return(words, None)
    return job_return(words, UserError(f"{state.value}: {last_words(run.directory)}"))
