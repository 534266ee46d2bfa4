"""What every run does, computed from its files and the queue when asked."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import read_bytes, tail
from segsweep.base.owner import owner_of
from segsweep.base.queue import HIDDEN, Queue, queue, this_user
from segsweep.base.terminal import aligned, duration, printable, shared
from segsweep.run.identity import State, state_of
from segsweep.run.shapes import curve, failure_of, job_of, reason, record_of
from segsweep.sweeps.names import chosen, settings
from segsweep.sweeps.slurm import intents, recover

TAILS = (1 << 13, 1 << 18)  # bytes at the end of a curve in which its last lines are looked for
EPOCHS = re.compile(rb"^hparams:\n(?:[ \t]+.*\n)*?[ \t]+epochs: (\d{1,9})\b", re.MULTILINE)
KEY = re.compile(rb"^metrics:\n(?:[ \t]+.*\n)*?[ \t]+key: (\w+)", re.MULTILINE)
LOGGED = ("step", "epoch", "time")  # what every line of a curve begins with
UNREADABLE = "unreadable"
URGENT = ("failed", "lost", UNREADABLE, "interrupted", "running", "pending", "new", "done")
SCREEN, FEW = 40, 8  # runs that are shown one by one; of each state when there are more
SILENT = 900  # seconds without a line of the curve that are worth a word


@dataclass(frozen=True)
class Status:
    """What the files of a run say now; None is what they do not say.

    Epoch and step are those of the last line of the curve, of a finished run those of its best;
    `ends` is the estimated end of a running one (seconds since 1970), `seconds` what it took,
    `setting` the words that made it, known of the runs of a sweep.
    """

    run: str
    state: str
    epoch: float | None = None
    epochs: int | None = None
    step: int | None = None
    metric: str | None = None
    value: float | None = None
    note: str = ""
    ends: float | None = field(default=None, compare=False)
    seconds: float | None = field(default=None, compare=False)
    setting: str = field(default="", compare=False)


def survey(results: Path, words: Sequence[str]) -> tuple[list[Status], list[str]]:
    """Return the status of the chosen runs, and what to tell if the queue does not answer."""
    runs, warning, now = chosen(results, words), [], None
    try:
        now = jobs(runs)
    except UserError as error:
        said = printable(str(error).splitlines()[0])
        warning = [f"states of submitted runs are by their files alone: {said}"]
    made_by = settings(results)
    return [replace(status(r, now), setting=made_by.get(r.name, "")) for r in runs], warning


def jobs(runs: Sequence[Path]) -> Queue | None:
    """Return the queue, asked once, if one of these runs may be in it.

    Also finds the jobs of a command that died while it submitted them.

    Raises UserError when the queue must be asked and does not answer.
    """
    folders = {run.parent for run in runs}
    unanswered = [f for f in folders if any(i["id"] is None for _, i in intents(f))]
    submitted = (r for r in runs if (r / "job.json").exists() and not (r / "record.json").exists())
    if not unanswered and next(submitted, None) is None:
        return None
    live = queue()
    for folder in unanswered:
        recover(folder, live)
    return live


def status(directory: Path, now: Queue | None = None) -> Status:
    """Compute what the files of one run say. A damaged file makes its state unreadable."""
    try:
        state = state_of(directory, now)
        fields = _record(directory) if state is State.DONE else _curve(directory, state)
        notes = _note(directory, state, now), fields.pop("silence", "")
        return Status(directory.name, state.value, note=", ".join(filter(None, notes)), **fields)
    except Damaged as damage:
        note = str(damage).removeprefix(f"{directory}/")
        return Status(directory.name, UNREADABLE, note=note)


def lines(runs: Sequence[Status], everything: bool = True) -> Iterator[str]:
    """Return aligned lines for a terminal, what needs a look first, the totals last."""
    by_state = {state: [run for run in runs if run.state == state] for state in URGENT}
    few = len(runs) if everything or len(runs) <= SCREEN else FEW
    selected = [run for group in by_state.values() for run in group[:few]]
    common = shared([run.setting.split() for run in runs if run.setting])
    cells = [(r.state, r.run, _progress(r), _metric(r), _setting(r, common), _left(r), r.note)
             for r in selected]  # fmt: skip
    for place, (line, run) in enumerate(zip(aligned(cells), selected, strict=True), start=1):
        yield line
        hidden = len(by_state[run.state]) - few
        if hidden > 0 and (place == len(selected) or selected[place].state != run.state):
            yield f"... {hidden} more {run.state} (--state {run.state} shows them)"
    totals = Counter(run.state for run in runs)
    counts = ", ".join(f"{totals[state]} {state}" for state in reversed(URGENT) if totals[state])
    yield f"{len(runs)} runs: {counts or 'none in such a state'}"
    yield from _work_left(runs)


def _work_left(runs: Sequence[Status]) -> Iterator[str]:
    """Say how long what is left will take, as far as finished runs tell."""
    now, took = time.time(), [run.seconds for run in runs if run.seconds]
    ends = [run.ends for run in runs if run.ends]
    to_go = sum(run.state in ("pending", "new", "interrupted", "lost") for run in runs)
    late = max(ends, default=now) - now
    parts = [f"those that run end within {duration(late)}"] if late > 0 else []
    if to_go and took:
        few, most = duration(min(took)), duration(max(took))
        span = few if few == most else f"{few} to {most}"
        parts.append(f"{to_go} to go; finished runs took {span}")
    if parts:
        yield "; ".join(parts)


def _record(directory: Path) -> dict[str, Any]:
    """Return when a finished run was best, and its key metric then."""
    record = record_of(directory)
    if record is None:  # deleted just now
        return {}
    best = record.get("best") or {}
    fields = {"epochs": (record["config"].get("hparams") or {}).get("epochs")}
    fields |= {"epoch": best.get("epoch"), "step": best.get("step")}
    fields |= {"seconds": record.get("seconds", {}).get("total")}
    metrics = {name: metric["value"] for name, metric in record.get("metrics", {}).items()}
    return fields | _decisive(metrics, (record["config"].get("metrics") or {}).get("key"))


def _decisive(metrics: dict[str, Any], key: str | None) -> dict[str, Any]:
    """Return the metric that decides about a run; the first runs did not say which."""
    name = key if key in metrics else next(iter(metrics), None)
    return {} if name is None else {"metric": name, "value": metrics[name]}


def _curve(directory: Path, state: State) -> dict[str, Any]:
    """Return progress and last key metric of an unfinished run from the end of its curve."""
    epochs = _frozen(directory, EPOCHS)
    fields: dict[str, Any] = {"epochs": int(epochs) if epochs else None}
    for size in TAILS:
        texts = tail(directory / "metrics.jsonl", size, whole=True)
        if texts and "step" not in fields and (last := next(curve(reversed(texts)), None)):
            fields |= {"step": last["step"], "epoch": last["epoch"]}
            fields |= _pace(directory, texts, fields["epochs"]) if state is State.RUNNING else {}
        # lines of training steps carry a learning rate, those of validations metrics
        for line in curve(text for text in reversed(texts) if b'"lr":' not in text):
            metrics = {k: value for k, value in line.items() if k not in LOGGED}
            return fields | _decisive(metrics, _frozen(directory, KEY))
    return fields


def _pace(directory: Path, texts: list[bytes], epochs: int | None) -> dict[str, Any]:
    """Estimate the end of a running run from the lines of the process that runs it now."""
    started = (owner_of(directory) or {}).get("started", 0.0)
    lines = [line for line in curve(texts) if line["time"] >= started]
    gained = lines[-1]["epoch"] - lines[0]["epoch"] if lines else 0.0
    if not gained or not epochs:
        return {}
    took = (lines[-1]["time"] - lines[0]["time"]) / gained
    silence = time.time() - lines[-1]["time"]
    silent = {"silence": f"silent for {duration(silence)}"} if silence > SILENT else {}
    return silent | {"ends": lines[-1]["time"] + took * (epochs - lines[-1]["epoch"])}


def _frozen(directory: Path, key: re.Pattern[bytes]) -> str | None:
    """Return a value of the frozen config; a regular expression is 100 times a parser."""
    matched = key.search(read_bytes(directory / "config.yaml") or b"")
    return matched[1].decode() if matched else None


def _note(directory: Path, state: State, now: Queue | None) -> str:
    """Return who runs it, or why it ended."""
    job = job_of(directory)
    named = _job(job, now) if job else ""
    if state is State.RUNNING:
        owner = owner_of(directory) or {}
        who = named or f"process {owner.get('pid')}"
        return f"{who} on {owner['host']}" if owner else who
    if state is State.FAILED:
        return reason(failure_of(directory) or {}) or "failed"
    if state is State.PENDING and job:
        return named
    if state is State.LOST and job:
        last = [line.decode(errors="replace") for line in tail(directory / "log.txt", 1 << 12)[-1:]]
        return ": ".join([f"{named} is gone", *last])
    if state in (State.INTERRUPTED, State.NEW) and job and job.get("cancelled"):
        return "cancelled"
    return ""


def _job(job: dict[str, Any], now: Queue | None) -> str:
    """Return the number of a job, and whose it is where it is somebody else's."""
    user = job.get("user") or this_user()
    named = f"job {job['id']}" if user == this_user() else f"{user}'s job {job['id']}"
    unseen = now is not None and now.standing(job) is HIDDEN
    return f"{named}, which cannot be seen from here" if unseen else named


def _progress(run: Status) -> str:
    if run.epoch is None:
        return "-"
    best = "best epoch" if run.state == State.DONE.value else "epoch"
    return f"{best} {run.epoch:g}" + (f" of {run.epochs}" if run.epochs else "")


def _metric(run: Status) -> str:
    return f"{run.metric} {run.value:.2f}" if run.metric and run.value is not None else "-"


def _setting(run: Status, common: Sequence[str]) -> str:
    return " ".join(word for word in run.setting.split() if word not in common)


def _left(run: Status) -> str:
    if not run.ends:
        return ""
    seconds = run.ends - time.time()
    return f"{duration(seconds)} left" if seconds > 0 else "ending"
