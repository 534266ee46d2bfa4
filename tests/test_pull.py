"""Workers that pull: one sweep drained by several that are killed, and each rule by itself."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.owner import LostOwnership, owned, owner_of
from segsweep.run import attempts
from segsweep.run.folder import ATTEMPTS
from segsweep.run.identity import Run, State, state_of
from segsweep.sweeps import pull
from segsweep.sweeps.names import chosen
from segsweep.sweeps.pull import Standing, Terms, Worker
from segsweep.verbs import plan, work
from tests.damage import damage
from tests.slurm.counted import PYTHON, marks

FROZEN = ["peft=frozen", "model.weights=null"]  # sleeps instead of being evaluated, no torch
START = """
import sys
from segsweep.sweeps import pull
pull.POLL = 0.3
sys.executable = sys.argv.pop(1)
from segsweep.__main__ import main
main()
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """What workers start their runs with: it counts them (tests/slurm/counted.py)."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    path.chmod(0o755)
    return path


def freeze(folder: Path, seeds: int = 1) -> list[Path]:
    """Freeze runs as the sweep `demo`."""
    words = [f"io.results={folder / 'results'}", *FROZEN]
    combinations = [[*words, f"seed={seed}"] for seed in range(seeds)]
    jobs = [(combination, Run(compose(combination))) for combination in combinations]
    assert pull.freeze(jobs, "demo") == seeds
    return [run.directory for _, run in jobs]


def waited(what: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def begin(
    folder: Path, python: Path, *words: str, seconds: float | str = 0.4
) -> subprocess.Popen[str]:
    """Start a worker whose runs take so many seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", START, str(python), "work", "--sweep", "demo", *words],
        cwd=folder,
        env=os.environ | {"COUNTED_SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(worker: subprocess.Popen[str]) -> list[int]:
    """The runs that a worker trains just now, at most one: what its own child has forked."""
    return [run for server in of_process(worker.pid) for run in of_process(server)]


def of_process(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it has ended
        paths = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for path in paths for child in path.read_text().split()]
    return []


def harm(worker: subprocess.Popen[str], rng: random.Random) -> None:
    """Kill a worker that trains, or its run, or both, as a machine does that dies."""
    end = time.monotonic() + 30
    while not (runs := children(worker)) and worker.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 1.5))  # while it starts, sleeps, or publishes
    kind = rng.choice(("worker", "run", "machine"))
    if kind != "run":
        worker.kill()
        worker.wait()
    for pid in runs if kind != "worker" else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_five_workers_killed_at_random_drain_a_sweep(tmp_path: Path, python: Path) -> None:
    runs = freeze(tmp_path, 8)
    rng = random.Random(0)
    more = ("--retries", "20")  # it is the machine that kills them
    workers = [begin(tmp_path, python, *more) for _ in range(5)]
    for _ in range(6):
        place = rng.randrange(len(workers))
        harm(workers[place], rng)
        if workers[place].poll() not in (None, 0):
            workers[place] = begin(tmp_path, python, *more)
    said = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 5, said
    assert {state_of(run) for run in runs} == {State.DONE}
    for run in runs:
        assert len(marks(run, "done")) == 1
        assert json.loads((run / "record.json").read_text())["status"] == "done"
        assert not [*run.glob(".*"), *run.glob("attempts.json")]


def test_a_run_that_fails_is_not_tried_for_ever(tmp_path: Path, python: Path) -> None:
    (run,) = freeze(tmp_path)
    workers = [begin(tmp_path, python, seconds="none") for _ in range(2)]
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1], said
    assert all("demo: 1 runs: 1 failed for good" in text for text in said)
    assert len(marks(run, "begun")) == 2  # by both together, or twice by one
    assert state_of(run) is State.FAILED
    freeze(tmp_path)  # the same command again: tried anew
    worker = begin(tmp_path, python, "--max-runs", "1", "--retries", "0", seconds="none")
    assert "1 failed for good; 1 begun here" in worker.communicate(timeout=120)[0]
    assert len(marks(run, "begun")) == 3


def test_a_run_that_is_killed_failed_and_the_worker_goes_on(tmp_path: Path, python: Path) -> None:
    runs = freeze(tmp_path, 2)
    worker = begin(tmp_path, python, "--retries", "0", seconds=3)
    victim = waited(lambda: next((run for run in runs if marks(run, "begun")), None))
    os.kill(owner_of(victim)["pid"], signal.SIGKILL)
    said = worker.communicate(timeout=120)[0]
    assert worker.returncode == 1
    assert "1 done, 1 failed for good" in said
    assert "Killed: its process was killed by SIGKILL; mostly for lack of memory" in said
    assert {run: state_of(run) is State.DONE for run in runs} == {r: r != victim for r in runs}


def test_told_to_stop_a_worker_leaves_its_run_to_others(tmp_path: Path, python: Path) -> None:
    (run,) = freeze(tmp_path)
    first = begin(tmp_path, python, seconds=60)
    waited(lambda: marks(run, "begun"))
    second = begin(tmp_path, python, seconds=0.1)
    first.terminate()
    assert first.wait(timeout=60) == 128 + signal.SIGTERM
    assert "1 runs: 1 done; 1 begun here" in second.communicate(timeout=120)[0]
    assert (len(marks(run, "begun")), len(marks(run, "done"))) == (2, 1)


def worker(results: Path, **terms: Any) -> Worker:
    return Worker(results, "demo", Terms(**terms))


@contextlib.contextmanager
def owned_elsewhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Own a run as a process of another machine does."""
    with contextlib.ExitStack() as stack:
        with monkeypatch.context() as there:
            there.setattr("socket.gethostname", lambda: "elsewhere")
            ownership = stack.enter_context(owned(directory))
        yield ownership


def test_an_owner_elsewhere_is_dead_when_its_signs_of_life_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = freeze(tmp_path)
    observer = worker(tmp_path / "results", lease=0.2 / 60)
    with owned_elsewhere(run, monkeypatch) as zombie:
        for clock in (0, 1, 2**31):  # signs of life, whatever the clock there says
            os.utime(zombie.path, (clock, clock))
            assert observer.standing(run) is Standing.OTHERS
            time.sleep(0.15)
            assert observer.standing(run) is Standing.OTHERS
        time.sleep(0.3)
        assert observer.free() == run
        assert "no sign of life of process" in capsys.readouterr().out
        with pytest.raises(LostOwnership):
            zombie.check()


def test_who_does_not_wait_leaves_when_the_others_are_known_to_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "POLL", 0.01)
    first, second = freeze(tmp_path, 2)
    here, patient = worker(tmp_path / "results", wait=False), worker(tmp_path / "results")
    with owned_elsewhere(first, monkeypatch) as one, owned_elsewhere(second, monkeypatch) as two:
        for ownership in (one, two):
            assert here.free() is None
            assert here.idle()
            os.utime(ownership.path, (0, 0))
        assert here.free() is patient.free() is None
        assert not here.idle()
        assert patient.idle()


def test_an_owner_here_is_asked_however_silent_it_is(tmp_path: Path) -> None:
    (run,) = freeze(tmp_path)
    observer = worker(tmp_path / "results", lease=0.0)
    with owned(run):
        assert [observer.standing(run) for _ in range(3)] == [Standing.OTHERS] * 3
        assert observer.free() is None
    assert observer.free() == run


def test_what_failed_here_is_left_to_others_first(tmp_path: Path) -> None:
    first, second = freeze(tmp_path, 2)
    here = worker(tmp_path / "results")
    here.place = 0.0
    assert here.free() == first
    here.tried[first] += 1
    assert here.free() == second
    here.tried[second] += 1
    assert here.free() is None
    assert here.free() == first
    here.tried[first] += 1
    assert here.standing(first) is Standing.UNFIT
    alone = worker(tmp_path / "results", wait=False)
    alone.tried.update([first, second])
    assert alone.free() in (first, second)


def test_a_machine_that_dies_counts_until_it_gets_further(tmp_path: Path) -> None:
    run = Run(compose([f"io.results={tmp_path}", *FROZEN]))
    run.directory.mkdir(parents=True)
    for number in range(1, 2 * attempts.SILENT):
        (run.directory / "last.ckpt").write_text("")
        os.utime(run.directory / "last.ckpt", (0, number // 3))  # every third gets further
        attempts.begin(run)
        assert not attempts.given_up(run.directory, 0)
    for number in range(1, attempts.SILENT):
        assert not attempts.given_up(run.directory, 0), number
        attempts.begin(run)
    assert "got no further" in attempts.given_up(run.directory, 0)
    attempts.end(run, failed=False)  # told to stop
    assert not attempts.given_up(run.directory, 0)
    (run.directory / ATTEMPTS).write_text("[1]")
    attempts.end(run, failed=True)
    assert attempts.given_up(run.directory, 0) == "failed 1 times"
    assert not attempts.given_up(run.directory, 1)


def test_of_processes_that_train_together_the_first_one_counts(tmp_path: Path, monkeypatch) -> None:
    run = Run(compose([f"io.results={tmp_path}", *FROZEN, "trainer.devices=2"]))
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    with run.owning():  # by the first one
        monkeypatch.setenv("LOCAL_RANK", "1")
        second = Run(run.config)
        assert attempts.counted(lambda run: {"seed": run.config.seed})(second) == {"seed": 0}
        assert not (run.directory / ATTEMPTS).exists()


def test_what_no_worker_can_train_is_named(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    here, there, nodes = freeze(tmp_path, 3)
    (here / "config.yaml").unlink()
    text = (there / "config.yaml").read_text()
    (there / "config.yaml").write_text(text.replace("seed: 1", "seed: 7"))  # another run now
    jobs = [(FROZEN, Run(compose([f"io.results={results}", *FROZEN, "trainer.nodes=2"])))]
    pull.freeze(jobs, "demo")
    shutil.rmtree(nodes)
    assert work.main(["--sweep", "demo", "--results", str(results), "--no-wait"]) == 1
    said = capsys.readouterr().out
    assert "names the run" in said
    assert "needs hydra/launcher=slurm" in said
    assert "2 not trained here, 2 not frozen" in said


def test_damaged_runs_are_named_and_others_trained(tmp_path: Path, monkeypatch) -> None:
    results, rng, begun = tmp_path / "results", random.Random(0), []
    good, bad = freeze(tmp_path, 2)
    with Run(compose([f"io.results={results}", *FROZEN, "seed=1"])).owning() as mine:
        run = Run(compose([f"io.results={results}", *FROZEN, "seed=1"]))
        run.ownership = mine
        attempts.begin(run)
        run.publish_failure(run.head(), ValueError("no"))
    whole = shutil.copytree(bad, tmp_path / "whole")

    def refuse(run: Run, *_: object) -> None:
        begun.append(run.directory)
        raise UserError("not here")

    monkeypatch.setattr(pull, "Process", refuse)
    for _ in range(20):
        shutil.rmtree(bad)
        shutil.copytree(whole, bad)
        damage(rng.choice(sorted(bad.iterdir())), rng)
        here = worker(results, wait=False, retries=0)
        begun.clear()
        here.drain()
        assert good in begun
        assert [path.name for path in bad.iterdir() if path.suffix == ".tmp"] == []


def test_a_worker_begins_no_more_than_it_is_told(tmp_path: Path) -> None:
    freeze(tmp_path)
    here = worker(tmp_path / "results", most=1, until=time.time() + 60)
    assert here.limit() == ""
    here.begun += 1
    assert "--max-runs=1" in here.limit()
    assert "--until" in worker(tmp_path / "results", until=time.time() - 1).limit()


@pytest.mark.parametrize(
    ("text", "hours"),
    [("+11h", 11), ("+90m", 1.5), ("+0.5h", 0.5), ("{:%H:%M}", 2), ("{:%Y-%m-%dT%H:%M:%S}", 2)],
)
def test_moments(text: str, hours: float) -> None:
    then = datetime.now() + timedelta(hours=2)
    assert work.moment(text.format(then)) == pytest.approx(time.time() + 3600 * hours, abs=61)


def test_a_time_of_day_that_is_over_means_tomorrow() -> None:
    hour_ago = datetime.now() - timedelta(hours=1)
    assert work.moment(f"{hour_ago:%H:%M}") == pytest.approx(time.time() + 23 * 3600, abs=3700)


@pytest.mark.parametrize(
    "words",
    [["--max-runs", "0"], ["--until", "2020-01-01"], ["--until", "noon"], ["--until", "25:00"],
     ["--retries", "-1"], ["--lease", "1"], ["--lease", "nan"]],
)  # fmt: skip
def test_terms_that_cannot_be_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match=f"argument {words[0]}: "):
        work.main(["--sweep", "demo", *words])


def test_a_worker_needs_one_run_or_a_sweep(tmp_path: Path) -> None:
    for words in ([], [str(tmp_path), "--sweep", "demo"]):
        with pytest.raises(UserError, match="name a run directory, or a sweep"):
            work.main(words)
    with pytest.raises(UserError, match="nowhere: neither a sweep"):
        work.main(["--sweep", "nowhere", "--results", str(tmp_path)])


def test_the_launcher_freezes_and_leaves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "segsweep", "-m", "hydra/launcher=queue", *FROZEN, "seed=0,1"]
    options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True}
    refused = subprocess.run(command, **options, timeout=120)
    assert refused.returncode == 2
    assert "add io.sweep=NAME" in refused.stderr
    assert not (tmp_path / "results").exists()
    done = subprocess.run([*command, "io.sweep=demo"], **options, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "python -m segsweep work --sweep demo\n" in done.stdout
    results = tmp_path / "results"
    assert [state_of(run) for run in chosen(results, ["demo"])] == [State.NEW] * 2
    assert worker(results).free() in chosen(results, ["demo"])


def test_what_is_planned_and_kept_is_drained_too(tmp_path: Path, capsys) -> None:
    words = [f"io.results={tmp_path}", "data.train=4", "data.val=2", *FROZEN]
    assert plan.main(["-m", *words, "seed=0,1", "--save", "demo"]) == 0
    assert worker(tmp_path).free() in chosen(tmp_path, ["demo"])
