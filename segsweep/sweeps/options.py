"""What jobs ask SLURM for: the keys of `hydra/launcher=slurm`, and the one that sbatch refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from segsweep.base.config import Trainer
from segsweep.base.errors import UserError

PLAIN = re.compile(r"[\w.,:=/@+*&|()\[\]-]+")  # one line, nothing that a shell would split
STRINGS = ("partition", "account", "qos", "constraint", "mem", "gres")
SHELL = ("python", "setup", "sbatch")  # options that run what they say, or can
SIZES = ("trainer.nodes", "trainer.devices", "cpus_per_task")
DEVICES = ("gres", "gpus_per_node", "trainer.devices")
REFUSALS = (  # what sbatch says, and the options that it may be about; the first that fits
    (r"time.?limit|--time", ("time",)),
    (r"policy", ("account", "qos", "time", "mem", *SIZES)),
    (r"account", ("account", "partition")),
    (r"qos", ("qos",)),
    (r"memory|--mem", ("mem",)),
    (r"feature|constraint", ("constraint",)),
    (r"gres|generic resource|tres\b|gpu", DEVICES),
    (r"node count|--nodes", ("trainer.nodes",)),
    (r"processors|cpu", SIZES),
    (r"partition configuration|node configuration",
     ("partition", "time", "mem", "constraint", *DEVICES, *SIZES)),
    (r"partition|denied", ("partition",)),
)  # fmt: skip
OFFERS = "`sinfo -o '%P %l %c %m %G %f'` shows limits, cores, memory, GPUs and features"
ACCOUNTS = "`sacctmgr show associations user=$USER format=account,partition,qos` shows yours"


@dataclass
class Slurm:
    """What jobs ask for. Nodes and tasks follow from `trainer.nodes` and `trainer.devices`."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: int = 240  # minutes; a run that needs longer is requeued and goes on
    cpus_per_task: int = 4
    mem: str | None = None  # of a node: 16G
    gpus_per_node: int | None = None  # default: trainer.devices where trainer.accelerator=gpu
    gres: str | None = None
    array_parallelism: int = 256  # jobs of an array that may run at once
    signal_delay: int = 120  # seconds before the time limit: a batch, a validation, a checkpoint
    requeue: bool = True  # when preempted, when a node dies, at the time limit, for a retry
    retries: int = 1  # of a run that failed or was killed
    python: str | None = None  # command instead of this Python: a container call
    setup: list[str] = field(default_factory=list)  # shell lines before it
    sbatch: dict[str, Any] = field(default_factory=dict)  # any other option of sbatch

    def __post_init__(self) -> None:
        """Refuse values that could only fail in the queue, or would not stay in their line."""
        if not 0 < 2 * self.signal_delay <= 60 * self.time:
            raise UserError(
                f"hydra.launcher.signal_delay={self.signal_delay}: must be more than 0 and at most "
                f"half of the time limit, hydra.launcher.time={self.time} minutes"
            )
        for key, minimum in (("cpus_per_task", 1), ("array_parallelism", 1), ("retries", 0)):
            if getattr(self, key) < minimum:
                raise UserError(f"hydra.launcher.{key}={getattr(self, key)}: at least {minimum}")
        for key in STRINGS:
            value = getattr(self, key)
            if value is not None and not PLAIN.fullmatch(value):
                raise UserError(
                    f"hydra.launcher.{key}={value!r}: one word of letters, digits and signs; "
                    "further options belong into hydra.launcher.sbatch"
                )


def refusal(error: UserError, options: Slurm, trainer: Trainer) -> UserError:
    """Return what sbatch refused in terms of our keys: those that it may be about, with values.

    Anything else that went wrong is returned as it is.
    """
    reason = re.sub(r"sbatch(: error| failed)?: |Batch job submission failed: ", "", str(error))
    spoken = reason.lower()
    named = [key for key in options.sbatch if key.replace("_", "-").rstrip("s").lower() in spoken]
    asked = [f"hydra.launcher.sbatch.{key}={options.sbatch[key]}" for key in named]
    if not asked:
        keys = next((keys for words, keys in REFUSALS if re.search(words, spoken)), ())
        values = {key: _value(key, options, trainer) for key in keys}
        given = [key for key in keys if values[key] is not None] or keys
        asked = ["null" if values[key] is None else str(values[key]) for key in given]
        asked = [f"{_full(key)}={value}" for key, value in zip(given, asked, strict=True)]
    if not asked:
        return error
    cure = ACCOUNTS if "account" in spoken or "qos" in spoken else OFFERS
    return UserError(f"sbatch refused {', '.join(asked)}: {reason}\n{cure}")


def _full(key: str) -> str:
    return key if "." in key else f"hydra.launcher.{key}"


def _value(key: str, options: Slurm, trainer: Trainer) -> Any:
    owner: Any = trainer if key.startswith("trainer.") else options
    return getattr(owner, key.rpartition(".")[2])
