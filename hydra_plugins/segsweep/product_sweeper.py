"""`hydra/sweeper=product`: composes every run of a sweep first, then launches what is not done."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.segsweep.launchers import Job, RunLauncher, composer
from segsweep.base.errors import Damaged, UserError
from segsweep.base.hydra_parts import chosen_launcher, failure
from segsweep.run.identity import Run
from segsweep.sweeps.names import remember_launch
from segsweep.sweeps.sweeper import Combination, expand, fitting


@dataclass
class ProductSweeperConf:
    """The sweeper's keys: named blocks of override lines (see segsweep/sweeps/sweeper.py)."""

    _target_: str = "hydra_plugins.segsweep.product_sweeper.ProductSweeper"
    blocks: dict[str, list[Any]] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="product", node=ProductSweeperConf, provider="segsweep"
)


class ProductSweeper(Sweeper):
    """Sweeps over a product of blocks times what the command line sweeps over."""

    def __init__(self, blocks: dict[str, list[Any]]) -> None:
        super().__init__()
        self.blocks = blocks

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher, and what composes one job."""
        self.compose = composer(hydra_context, config)
        self.name: str | None = config.hydra.runtime.choices.get("sweep")
        self.jobs: Launcher = chosen_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Compose and check all runs, skip the finished ones, launch the rest, name the failed."""
        todo, damaged = self.unfinished(expand(self.blocks, arguments))
        results = self.launched(todo) if todo else []
        ended = zip((words for words, _ in todo), map(failure, results), strict=True)
        failed = [*damaged, *((words, error) for words, error in ended if error is not None)]
        if failed:
            number = len(todo) + len(damaged)
            raise UserError(
                f"{len(failed)} of {number} runs failed; the same command tries them again:\n  "
                + "\n  ".join(f"{' '.join(words)}\n    {error}" for words, error in failed)
            )
        return results

    def launched(self, todo: list[Job]) -> Sequence[JobReturn]:
        """Launch runs, and say how to read of them; return what came of each."""
        if isinstance(self.jobs, RunLauncher):
            results: Sequence[JobReturn] = self.jobs.start(todo)
        else:
            results = self.jobs.launch([words for words, _ in todo], initial_job_idx=0)
        io = todo[0][1].config.io
        where = f" --results {io.results}" if io.results != "results" else ""
        print(f"report: python -m segsweep report {io.sweep or self.name or ''}".rstrip() + where)
        return results

    def unfinished(
        self, combinations: list[Combination]
    ) -> tuple[list[Job], list[tuple[Combination, Any]]]:
        """Return the runs that are still to be run, and those whose files cannot be read.

        Two combinations that mean one run are one; those that cannot be are no runs of the sweep.
        """
        todo: dict[str, Job] = {}
        damaged: dict[str, tuple[Combination, Any]] = {}
        done: set[str] = set()
        jobs: list[Job] = []
        composed = fitting(combinations, lambda words: Run(self.compose(words)))
        for combination, run in composed:
            jobs.append((combination, run))
            try:
                if run.finished():
                    done.add(run.name)
                else:
                    todo.setdefault(run.name, (combination, run))
            except Damaged as damage:
                damaged.setdefault(run.name, (combination, damage))
        remember_launch(jobs, self.name)
        skipped = f", {len(done)} of them done already" if done else ""
        print(f"sweep: {len(done) + len(todo) + len(damaged)} runs{skipped}")
        return list(todo.values()), list(damaged.values())
