"""`hydra/sweeper=product`: composes every run of a sweep first, then launches what is not done."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from segsweep.config import Config, typed
from segsweep.errors import UserError
from segsweep.sweep.run import Run
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
        from hydra.core.plugins import Plugins

        self.compose = partial(typed_job, hydra_context, config)
        self.jobs: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Sequence[JobReturn]:
        """Compose and check all runs, skip the finished ones, launch the rest, name the failed."""
        todo = self.unfinished(expand(self.blocks, arguments))
        if not todo:
            return []
        results = self.jobs.launch(todo, initial_job_idx=0)
        ended = zip(todo, results, strict=True)
        failed = [" ".join(job) for job, r in ended if r.status != JobStatus.COMPLETED]
        if failed:
            raise UserError(
                f"{len(failed)} of {len(todo)} runs failed; the same command tries them again:\n  "
                + "\n  ".join(failed)
            )
        return results

    def unfinished(self, combinations: list[Combination]) -> list[Combination]:
        """Return the combinations that are still to be run; two that mean the same run once."""
        todo: dict[str, Combination] = {}
        done: set[str] = set()
        for combination in combinations:
            run = Run(self.compose(combination))
            if run.finished():
                done.add(run.name)
            else:
                todo.setdefault(run.name, combination)
        skipped = f", {len(done)} of them done already" if done else ""
        print(f"sweep: {len(done) + len(todo)} runs{skipped}")
        return list(todo.values())


def typed_job(context: HydraContext, config: DictConfig, overrides: Combination) -> Config:
    """Compose one job of a sweep into typed objects."""
    job = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        del job["hydra"]
    return typed(job)
