"""Whole runs of the tiny model as real processes: end to end, killed, interrupted, broken."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
import torch

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.run.identity import Run
from segsweep.story import train
from tests.runs import STEPS, TINY, contents, curve, logged_steps, result, the_run

pytestmark = pytest.mark.slow
THREADS = str(torch.get_num_threads())  # as here: their number may change the last bits
ENV = os.environ | {"OMP_NUM_THREADS": THREADS, "WANDB_MODE": "offline"}


def start(*words: str, cwd: Path, **more) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segsweep", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=ENV, **pipes, **more)


def segsweep(*words: str, cwd: Path, **more) -> tuple[int, str]:
    process = start(*words, cwd=cwd, **more)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def here(*words: str, cwd: Path) -> None:
    """Train in this process, which has imported everything: what others began, it takes up."""
    with chdir(cwd):
        Run(compose(list(words))).once(train)


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    while process.poll() is None and logged_steps(folder) < step:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    code, said = segsweep(*TINY, cwd=folder)
    assert code == 0, said
    return folder


def test_a_run_leaves_a_self_describing_record(undisturbed):
    directory = the_run(undisturbed)
    record = json.loads((directory / "record.json").read_text())
    assert record["status"] == "done"
    assert directory.name == record["name"]
    assert record["name"].endswith(record["id"])
    assert record["config"]["peft"]["rank"] == 2
    assert record["config"]["peft"]["alpha"] == 2.0
    assert record["choices"]["peft"] == "lora"
    assert {"segm_AP", "segm_AP50", "bbox_AP"} <= record["metrics"].keys()
    assert record["metrics"]["segm_AP"]["unit"] == "%"
    assert [row["class"] for row in record["classes"]] == record["data"]["classes"]
    assert {"class", "segm_AP", "bbox_AP"} == record["classes"][0].keys()
    assert 0 < record["params"]["trainable"] < record["params"]["total"]
    trained = sum(group["parameters"] for group in record["optimizer"])
    assert trained == record["params"]["trainable"]
    assert record["memory"]["peak_rss_mib"] > 50
    assert {"setup", "train", "evaluate", "total"} <= record["seconds"].keys()
    assert record["data"]["images"] == {"train": 12, "val": 4}
    assert record["data"]["ceiling"]["value"] > 99.5  # large objects at native size
    assert record["versions"]["torch"]
    assert record["started"] <= record["ended"]
    assert record["error"] is None
    assert sorted(contents(directory)) == [
        "config.yaml", "delta.safetensors", "metrics.jsonl", "predictions.jsonl.gz", "record.json",
    ]  # fmt: skip


def test_the_curve_has_every_step_and_validation(undisturbed):
    lines = curve(undisturbed)
    assert [x["step"] for x in lines if "loss" in x] == list(range(1, STEPS + 1))
    assert [x["step"] for x in lines if "segm_AP" in x] == [3, 6, 9]


def test_the_same_command_again_trains_nothing(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in the_run(undisturbed).iterdir()}
    code, said = segsweep(*TINY, cwd=undisturbed)
    assert code == 0
    assert "done already" in said
    assert str(Path("results/runs") / the_run(undisturbed).name) in said
    assert {p: p.stat().st_mtime_ns for p in the_run(undisturbed).iterdir()} == before


@pytest.mark.parametrize("step", [1, 3, 5])  # the first, at a validation, behind it
def test_a_killed_run_ends_with_identical_bits(undisturbed, tmp_path, step):
    with start(*TINY, cwd=tmp_path) as process:
        wait_for_step(process, tmp_path, step)
        process.send_signal(signal.SIGKILL)
    assert not (the_run(tmp_path) / "record.json").exists()
    here(*TINY, cwd=tmp_path)
    assert result(tmp_path) == result(undisturbed)
    assert curve(tmp_path) == curve(undisturbed)


def test_a_checkpoint_that_cannot_be_used_is_named_with_its_cure(tmp_path):
    with start(*TINY, cwd=tmp_path) as process:
        while process.poll() is None and not list(tmp_path.glob("results/runs/*/last.ckpt")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    last = the_run(tmp_path) / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    del checkpoint["callbacks"]["Best"]["weights"]  # earlier versions kept them in a file
    torch.save(checkpoint, last)
    with pytest.raises(UserError, match=r"last\.ckpt is of an earlier version; delete it"):
        here(*TINY, cwd=tmp_path)
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    with pytest.raises(UserError, match=r"last\.ckpt: damaged(.|\n)*delete it"):
        here(*TINY, cwd=tmp_path)


def test_workers_change_nothing(undisturbed, tmp_path):
    code, said = segsweep(*TINY, "io.workers=2", cwd=tmp_path)
    assert code == 0, said
    assert result(tmp_path) == result(undisturbed)
    assert the_run(tmp_path).name == the_run(undisturbed).name


def test_ctrl_c_stops_cleanly_and_the_run_goes_on(undisturbed, tmp_path):
    with start(*TINY, cwd=tmp_path) as process:
        wait_for_step(process, tmp_path, 4)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "Traceback" not in said
    assert "interrupted" in said
    failure = json.loads((the_run(tmp_path) / "failed.json").read_text())
    assert failure["status"] == "interrupted"
    assert logged_steps(tmp_path) < STEPS
    here(*TINY, cwd=tmp_path)
    assert result(tmp_path) == result(undisturbed)
    assert not (the_run(tmp_path) / "failed.json").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_every_process_stops_between_two_batches(undisturbed, tmp_path, signum):
    """As SLURM sends it; the processes that load data must not die of it."""
    words = [*TINY, "io.workers=2", "io.save_every=1000"]
    with start(*words, cwd=tmp_path, start_new_session=True) as process:
        wait_for_step(process, tmp_path, 4)
        os.killpg(process.pid, signum)
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signum
    assert "stopping after this step" in said
    assert "Traceback" not in said
    assert (the_run(tmp_path) / "last.ckpt").exists()
    stopped = logged_steps(tmp_path)
    here(*TINY, cwd=tmp_path)
    assert 3 < stopped < STEPS
    assert result(tmp_path) == result(undisturbed)
    assert curve(tmp_path) == curve(undisturbed)


def test_one_failing_run_stops_no_other_and_is_named(tmp_path):
    words = ["-m", *TINY, "hparams.epochs=1", "peft.targets=[deformable],[nothing.at.all]"]
    code, said = segsweep(*words, cwd=tmp_path)
    assert code != 0
    assert "1 of 2 runs failed" in said
    assert "nothing.at.all" in said
    states = sorted(
        "done" if (d / "record.json").exists() else "failed" if (d / "failed.json").exists() else ""
        for d in (tmp_path / "results" / "runs").iterdir()
    )
    assert states == ["done", "failed"]
    again = segsweep(*words, cwd=tmp_path)[1]
    assert "1 of them done already" in again


def test_a_full_disk_while_saving_is_said_and_recorded(tmp_path):
    def little_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    code, said = segsweep(*TINY, cwd=tmp_path, preexec_fn=little_room)
    assert code != 0
    assert "cannot be written" in said
    failure = json.loads((the_run(tmp_path) / "failed.json").read_text())
    assert failure["status"] == "failed"
    left = {p.name for p in the_run(tmp_path).iterdir()}
    assert not [name for name in left if name.endswith(".tmp")]


def test_the_frozen_base_is_evaluated_without_training(tmp_path):
    here("peft=frozen", "data.val=4", "model.weights=null", cwd=tmp_path)
    record = json.loads((the_run(tmp_path) / "record.json").read_text())
    assert record["params"]["trainable"] == 0
    assert record["best"] is None
    assert record["optimizer"] == []


def test_two_processes_train_one_run(tmp_path):
    words = [*TINY, "trainer.accelerator=cpu", "trainer.devices=2", "hparams.micro_batch=1"]
    code, said = segsweep(*words, cwd=tmp_path)
    assert code == 0, said
    record = json.loads((the_run(tmp_path) / "record.json").read_text())
    assert record["best"]["step"] in (3, 6, 9)


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_loggers_are_views_that_change_no_identity(undisturbed, tmp_path, logger):
    code, said = segsweep(*TINY, f"logger={logger}", cwd=tmp_path)
    assert code == 0, said
    assert the_run(tmp_path).name == the_run(undisturbed).name
    assert result(tmp_path)[0] == result(undisturbed)[0]
    assert (the_run(tmp_path) / logger).is_dir()
