"""Which runs can form a pack: those that see the same batches through the same base.

Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from segsweep.base.config import Config, identity
from segsweep.run.identity import Run


def alike(config: Config) -> str:
    """Return what the runs of a pack have in common, as text: base, data, their order, device."""
    hparams, trainer = config.hparams, config.trainer
    batches = [config.seed, hparams.batch_size, hparams.micro_batch]
    device = [trainer.accelerator.name, trainer.precision.name, trainer.devices, trainer.nodes]
    same = [identity(config.model), identity(config.data), *batches, *device]
    return json.dumps(same, sort_keys=True)


def packs(runs: Iterable[Run], size: int) -> list[list[Run]]:
    """Join runs that are alike, at most `size` of them; one of several devices stays alone."""
    joined: list[list[Run]] = []
    filling: dict[str, list[Run]] = {}
    for run in runs:
        trainer = run.config.trainer
        alone = size == 1 or trainer.devices * trainer.nodes > 1
        key = run.name if alone else alike(run.config)
        if key not in filling or len(filling[key]) == size:
            filling[key] = []
            joined.append(filling[key])
        filling[key].append(run)
    return joined
