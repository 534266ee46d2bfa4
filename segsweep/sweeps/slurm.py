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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import NAME, read_json, sound, write_json, write_text
from segsweep.base.owner import Busy, owned
from segsweep.base.queue import HIDDEN, SUBMISSION, Queue, ask, queue, setting, this_user
from segsweep.base.words import FOLDERS
from segsweep.run.identity import LIVE, Run, State, git, now
from segsweep.run.shapes import ID, USER, job_of
from segsweep.sweeps.options import Slurm, refusal
from segsweep.sweeps.submitit_parts import batch_script, log_name

LOCKED = 300  # seconds to wait for another command that submits into the same folder
LOG = "log.txt"
INTENT = {"id": (ID, None), "runs": [NAME], "user?": USER, "launcher?": dict}
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
  case $(squeue --jobs=$job --format='segsweep|%T|%k') in
    *'segsweep|RUNNING|{comment}'*) ;;
    *'segsweep|STATE|'*) break ;;  # the header, and this job is not running: cancelled
    *) sleep 15; continue ;;
  esac
  echo "status $status: requeued"
  scontrol requeue $job && sleep 600
  break  # refused: this job may not
done
exit $status"""
TOGETHER = 60  # seconds from the end of a run's first task to that of the last


def submit(runs: Sequence[Run], options: Slurm, word: str = "slurm") -> dict[str, str]:
    """Submit the runs that are neither done nor live; return the job ids by name of run.

    Runs must lie in one results folder; `word` is that of the launcher, for `retry`. Raises
    UserError when SLURM does not answer, or refuses.
    """
    root = runs[0].directory.parent
    jobs: dict[str, str] = {}
    with _alone(root / ".submit"):
        live = queue()
        recover(root, live)
        unseen = _unseen(root, live)
        states = dict(sound(runs, lambda run: run.state(live)))
        todo = [r for r, state in states.items() if r.name not in unseen and wanted(r, state)]
        todo = [run for run, mine in sound(todo, _prepared) if mine]
        print(*hidden([run.directory for run in states], live), sep="", end="", flush=True)
        for group in alike(todo):
            for start in range(0, len(group), most := max_array_size()):
                jobs |= _submit(root, group[start : start + most], options, word)
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
    after = AFTER.format(
        folder=shlex.quote(str(folder)), retries=options.retries, comment=intent.stem
    )
    exports = [f"export OMP_NUM_THREADS={options.cpus_per_task}"]
    exports += [f'export {SUBMISSION}="{intent.stem} $SLURM_JOB_ID"']
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


def _submit(root: Path, runs: Sequence[Run], options: Slurm, word: str) -> dict[str, str]:
    """Submit runs as one array: the intent, then the deed, then what is remembered of it."""
    path = root / ".submit" / f"{uuid.uuid4().hex}.json"
    intent = {
        "id": None,
        "runs": [run.name for run in runs],
        "submitted": now(),
        "user": this_user(),
        "word": word,
        "launcher": asdict(options),
        "git": git(),
    }
    batch = path.with_suffix("") / "batch.sh"
    try:
        batch.parent.mkdir(parents=True)
        write_text(batch, script(runs[0], options, path, len(runs)))
        write_json(path, intent)
        answer = ask("sbatch", "--parsable", str(batch))
    except OSError:  # no room for it: nothing was submitted
        _forget(path)
        raise
    except UserError as error:
        _forget(path)
        raise refusal(error, options, runs[0].config.trainer) from error
    numbers = re.findall(r"^(\d+)(?:;\S*)?\s*$", answer, re.MULTILINE)  # beside what a site prints
    if not numbers:
        raise UserError(f"sbatch named no job: {answer.strip()!r}; `status` finds it in the queue")
    return _remember(path, intent, numbers[-1])


def _remember(path: Path, intent: dict[str, Any], number: str) -> dict[str, str]:
    """Write what is known of submitted runs; return their job ids."""
    names = intent["runs"]
    jobs = {n: f"{number}_{i}" if len(names) > 1 else number for i, n in enumerate(names)}
    for name, job in jobs.items():
        directory = path.parent.parent / name
        try:
            earlier = job_of(directory) or {}
        except Damaged:  # whoever asks for the state of this run is told
            continue
        again = earlier.get("comment") == path.stem
        kept = ("submitted", "user", "word", "launcher", "git")
        job_facts = {key: intent[key] for key in kept if key in intent}
        job_facts |= {"id": job, "comment": path.stem, "log": str(directory / LOG)}
        job_facts["attempts"] = earlier.get("attempts", 0) + (not again)
        write_json(directory / "job.json", job_facts)
        with contextlib.suppress(FileNotFoundError):
            (directory / LOG).unlink()
        (directory / LOG).symlink_to(_link(path, job))
    write_json(path, intent | {"id": number})
    return jobs


def recover(root: Path, live: Queue) -> None:
    """Remember the jobs of intents whose login process died after `sbatch`."""
    for path, intent in intents(root):
        number = live.submitted(path.stem, intent.get("user"))
        if intent["id"] is None and number:
            with contextlib.suppress(PermissionError):  # then its user remembers them
                _remember(path, intent, number)


def prune(root: Path, live: Queue) -> None:
    """Delete intents with nothing left to do, and move the logs of their runs to the runs.

    Only who owns `.submit` may: an intent without a job is one that is just being submitted.
    """
    for path, intent in intents(root):
        if live.may_have(path.stem, intent.get("user")):
            continue
        jobs = dict(sound([root / name for name in intent["runs"]], job_of))
        last = {run: job for run, job in jobs.items() if job and job.get("comment") == path.stem}
        over = all((directory / "record.json").exists() for directory in last)
        if over and len(jobs) == len(intent["runs"]):
            for directory, job in last.items():
                log, link = directory / LOG, _link(path, job["id"])
                if log.is_symlink() and log.readlink() == link:  # nothing else is moved
                    with contextlib.suppress(FileNotFoundError):
                        log.resolve().replace(log)
            _forget(path)


def _unseen(root: Path, live: Queue) -> set[str]:
    """Return the runs that somebody whose jobs are hidden may just have submitted."""
    open_ones = [(path, intent) for path, intent in intents(root) if intent["id"] is None]
    unseen = [i["runs"] for path, i in open_ones if live.may_have(path.stem, i.get("user"))]
    return {name for names in unseen for name in names}


def hidden(runs: Iterable[Path], live: Queue) -> list[str]:
    """Return a line for each user of whose jobs nothing can be known: their runs count as live."""
    theirs: dict[str, list[Path]] = {}
    for run in (run for run in runs if not (run / "record.json").exists()):
        job = job_of(run)
        if job and live.standing(job) is HIDDEN:
            theirs.setdefault(job["user"], []).append(run)
    return [
        f"{len(jobs)} runs are jobs of {user}, which cannot be seen from here, and count as "
        f"running: ask {user}; where they are gone, delete job.json (first {jobs[0]}/job.json)\n"
        for user, jobs in theirs.items()
    ]


def max_array_size() -> int:
    """Return how many jobs an array may have."""
    size = setting("MaxArraySize") or ""
    return int(size) if size.isdecimal() else 1000


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


def intents(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the intents of a folder of runs that can be read; the others are named."""
    cure = "if no job of its runs waits or runs, delete it"
    files = sorted((root / ".submit").glob("*.json"))
    found = sound(files, lambda path: read_json(path, INTENT, cure))
    return [(path, intent) for path, intent in found if intent is not None]


def _link(path: Path, job: str) -> Path:
    """Return where the log of a job lies, as seen from the folder of its run."""
    return Path("..", ".submit", path.stem, log_name(job))


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
