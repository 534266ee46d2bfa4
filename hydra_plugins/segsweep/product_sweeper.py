"""`hydra/sweeper=product`: composes every run of a sweep first, then launches what is not done."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.segsweep.launchers import Job, RunLauncher, typed_job
from segsweep.base.errors import UserError
from segsweep.base.hydra_parts import chosen_launcher, failure
from segsweep.run.identity import Run
from segsweep.sweep.names import remember
from segsweep.sweep.sweeper import Combination, expand


@dataclass
class ProductSweeperConf:
    """The sweeper's keys: named blocks of override lines (see segsweep/sweep/sweeper.py)."""

    _target_: str = "hydra_plugins.segsweep.product_sweeper.ProductSweeper"
    blocks: dict[str, list[str]] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="product", node=ProductSweeperConf, provider="segsweep"
)


class ProductSweeper(Sweeper):
    """Sweeps over a product of blocks times what the command line sweeps over."""

    def __init__(self, blocks: dict[str, list[str]]) -> None:
        super().__init__()
        self.blocks = blocks

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher, and what composes one job."""
        self.compose = partial(typed_job, hydra_context, config)
        self.name: str | None = config.hydra.runtime.choices.get("sweep")
        self.jobs: Launcher = chosen_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Compose and check all runs, skip the finished ones, launch the rest, name the failed."""
        todo = self.unfinished(expand(self.blocks, arguments))
        if not todo:
            return []
        if isinstance(self.jobs, RunLauncher):
            results: Sequence[JobReturn] = self.jobs.start(todo)
        else:
            results = self.jobs.launch([words for words, _ in todo], initial_job_idx=0)
        failed = [
            f"{' '.join(words)}\n    {error}"
            for (words, _), result in zip(todo, results, strict=True)
            if (error := failure(result)) is not None
        ]
        io = todo[0][1].config.io
        where = f" --results {io.results}" if io.results != "results" else ""
        print(f"report: python -m segsweep report {io.sweep or self.name or ''}".rstrip() + where)
        if failed:
            raise UserError(
                f"{len(failed)} of {len(todo)} runs failed; the same command tries them again:\n  "
                + "\n  ".join(failed)
            )
        return results

    def unfinished(self, combinations: list[Combination]) -> list[Job]:
        """Return the runs that are still to be run; two combinations that mean one run once."""
        todo: dict[str, Job] = {}
        done: set[str] = set()
        named: dict[tuple[str, str | None], dict[str, Combination]] = {}
        for combination in combinations:
            run = Run(self.compose(combination))
            io = run.config.io
            named.setdefault((io.results, io.sweep or self.name), {})[run.name] = combination
            if run.finished():
                done.add(run.name)
            else:
                todo.setdefault(run.name, (combination, run))
        for (results, name), runs in named.items():
            if name:
                remember(Path(results), name, runs)
        skipped = f", {len(done)} of them done already" if done else ""
        print(f"sweep: {len(done) + len(todo)} runs{skipped}")
        return list(todo.values())
