"""Runs as SLURM jobs: who is submitted, how, and what is remembered of it.

    results/runs/.submit/<uuid>.json   an intent: the runs of one array, its id once sbatch answered
    results/runs/.submit/<uuid>/       the batch script, and the logs of its jobs
    results/runs/<run>/job.json        the job a run was last submitted as
    results/runs/<run>/log.txt         a link to the job's log; the file itself when all are done

An intent is written before `sbatch`, and its uuid is the comment of the jobs: when the login
process dies in between, the next one finds them in the queue. A job needs nothing that is written
after `sbatch`, and nobody who stays: told of its time limit, or failed with a retry left, it is
requeued by its own batch script (`AFTER`). submitit writes that script. No torch is imported here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.files import read_json, write_json
from segsweep.base.owner import Busy, owned
from segsweep.base.queue import Queue, ask, queue
from segsweep.base.words import FOLDERS
from segsweep.run.identity import LIVE, Run, State, git, now
from segsweep.sweep.submitit_parts import batch_script, log_name

LOCKED = 300  # seconds to wait for another command that submits into the same folder
LOG = "log.txt"
SAME = ("partition", "account", "qos", "constraint", "time", "cpus_per_task", "gres",
        "array_parallelism")  # options that submitit names as we do  # fmt: skip
AFTER = """\
status=$?
case $status in
  0|2|130) exit $status ;;  # done; a mistake that no retry mends; Ctrl-C
  140) ;;                   # the time limit is near, the checkpoint is written: go on
  143) sleep 60 ;&          # told to end before it listened: by now SLURM has done what it meant
  *) failed={folder}/$SLURM_JOB_ID.failed
     echo $status >>$failed
     [ $(wc -l <$failed) -le {retries} ] || exit $status ;;
esac
# the task's own id: the number of an array's last job is the array's, too, and means all of them
job=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}${{SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}}
for try in {{1..120}}; do  # the controller may be away
  state=$(squeue --noheader --jobs=$job --format=%T) || {{ sleep 15; continue; }}
  [ "$state" = RUNNING ] || break  # cancelled
  echo "status $status: requeued"
  scontrol requeue $job && sleep 600
  break  # refused: this job may not
done
exit $status"""
TOGETHER = 60  # seconds from the end of a run's first task to that of the last


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
        """Refuse values that could only fail in the queue."""
        if not 0 < 2 * self.signal_delay <= 60 * self.time:
            raise UserError(
                f"hydra.launcher.signal_delay={self.signal_delay}: must be more than 0 and at most "
                f"half of the time limit, hydra.launcher.time={self.time} minutes"
            )
        for key, minimum in (("cpus_per_task", 1), ("array_parallelism", 1), ("retries", 0)):
            if getattr(self, key) < minimum:
                raise UserError(f"hydra.launcher.{key}={getattr(self, key)}: at least {minimum}")


def submit(runs: Sequence[Run], options: Slurm) -> dict[str, str]:
    """Submit the runs that are neither done nor live; return the job ids by name of run.

    Runs must lie in one results folder. Raises UserError when SLURM does not answer, or refuses.
    """
    root = runs[0].directory.parent
    jobs: dict[str, str] = {}
    with _alone(root / ".submit"):
        live = queue()
        recover(root, live)
        todo = [run for run in runs if wanted(run, run.state(live)) and _prepared(run)]
        for group in alike(todo):
            for start in range(0, len(group), most := max_array_size()):
                jobs |= _submit(root, group[start : start + most], options)
        prune(root, live)
    return jobs


def wanted(run: Run, state: State) -> bool:
    """Say whether a run in this state is to be submitted."""
    return state not in LIVE and (state is not State.DONE or run.config.force)


def script(run: Run, options: Slurm, intent: Path, count: int = 1) -> str:
    """Return the batch script of `count` runs that ask for the same as this one."""
    trainer, folder = run.config.trainer, intent.with_suffix("").absolute()
    parameters = {key: getattr(options, key) for key in SAME if getattr(options, key) is not None}
    gpus = options.gpus_per_node
    if gpus is None and options.gres is None and trainer.accelerator.name == "gpu":
        gpus = trainer.devices
    after = AFTER.format(folder=shlex.quote(str(folder)), retries=options.retries)
    exports = [f"export OMP_NUM_THREADS={options.cpus_per_task}"]
    if FOLDERS in os.environ:  # also where a site does not hand the environment on
        exports.append(f"export {FOLDERS}={shlex.quote(os.environ[FOLDERS])}")
    return batch_script(
        folder,
        options.python,
        f"-u -m segsweep work {shlex.quote(str(intent.absolute()))}",
        intent.stem,
        count,
        **parameters,
        job_name="segsweep",
        comment=intent.stem,
        nodes=trainer.nodes,
        ntasks_per_node=trainer.devices,
        gpus_per_node=gpus,
        signal_delay_s=options.signal_delay,
        stderr_to_stdout=True,
        setup=[*exports, *options.setup],
        srun_args=[
            f"--cpus-per-task={options.cpus_per_task}",
            f"--wait={TOGETHER}",
            "--open-mode=append",
        ],
        teardown=after.splitlines(),
        wckey=None,
        additional_parameters={
            "requeue" if options.requeue else "no-requeue": True,
            **({"mem": options.mem} if options.mem else {}),
            **options.sbatch,
        },
    )


def _submit(root: Path, runs: Sequence[Run], options: Slurm) -> dict[str, str]:
    """Submit runs as one array: the intent, then the deed, then what is remembered of it."""
    path = root / ".submit" / f"{uuid.uuid4().hex}.json"
    intent = {
        "id": None,
        "runs": [run.name for run in runs],
        "submitted": now(),
        "launcher": asdict(options),
        "git": git(),
    }
    batch = path.with_suffix("") / "batch.sh"
    batch.parent.mkdir(parents=True)
    batch.write_text(script(runs[0], options, path, len(runs)))
    write_json(path, intent)
    try:
        answer = ask("sbatch", "--parsable", str(batch))
    except UserError:
        _forget(path)
        raise
    return _remember(path, intent, answer.split(";")[0].strip())


def _remember(path: Path, intent: dict[str, Any], number: str) -> dict[str, str]:
    """Write what is known of submitted runs; return their job ids."""
    names = intent["runs"]
    jobs = {n: f"{number}_{i}" if len(names) > 1 else number for i, n in enumerate(names)}
    for name, job in jobs.items():
        directory = path.parent.parent / name
        earlier = read_json(directory / "job.json") or {"attempts": 0}
        again = earlier.get("comment") == path.stem
        job_facts = {key: intent[key] for key in ("submitted", "launcher", "git")}
        job_facts |= {"id": job, "comment": path.stem, "log": str(directory / LOG)}
        job_facts["attempts"] = earlier["attempts"] + (not again)
        write_json(directory / "job.json", job_facts)
        with contextlib.suppress(FileNotFoundError):
            (directory / LOG).unlink()
        (directory / LOG).symlink_to(Path("..", ".submit", path.stem, log_name(job)))
    write_json(path, intent | {"id": number})
    return jobs


def recover(root: Path, live: Queue) -> None:
    """Remember the jobs of intents whose login process died after `sbatch`."""
    jobs = {queued.comment: job.split("_")[0] for job, queued in live.items()}
    for path in _intents(root):
        intent = read_json(path)
        if intent is not None and intent["id"] is None and path.stem in jobs:
            _remember(path, intent, jobs[path.stem])


def prune(root: Path, live: Queue) -> None:
    """Delete intents with nothing left to do, and move the logs of their runs to the runs.

    Only who owns `.submit` may: an intent without a job is one that is just being submitted.
    """
    busy = {queued.comment for queued in live.values()}
    for path in _intents(root):
        intent = read_json(path)
        if intent is None or path.stem in busy:
            continue
        jobs = {root / name: read_json(root / name / "job.json") for name in intent["runs"]}
        last = [run for run, job in jobs.items() if job and job.get("comment") == path.stem]
        if all((directory / "record.json").exists() for directory in last):
            for directory in last:
                log = directory / LOG
                with contextlib.suppress(FileNotFoundError):
                    log.resolve().replace(log)
            _forget(path)


def max_array_size() -> int:
    """Return how many jobs an array may have."""
    matched = re.search(
        r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE
    )
    return int(matched[1]) if matched else 1000


def alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Return runs grouped by folder and what they ask for: the jobs of an array are alike."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        trainer, folder = run.config.trainer, run.directory.parent
        kind = (trainer.nodes, trainer.devices, trainer.accelerator, folder)
        groups.setdefault(kind, []).append(run)
    return list(groups.values())


def _prepared(run: Run) -> bool:
    """Freeze a run's config; False when somebody trains it just now."""
    try:
        run.prepare()
    except Busy:
        return False
    return True


def _intents(root: Path) -> list[Path]:
    return sorted((root / ".submit").glob("*.json"))


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Own the folder of submissions while inside; wait for another command that does."""
    end = time.monotonic() + LOCKED
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(owned(folder))
                break
            except Busy:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)
        yield
