"""Jobs that are not ours: another user's in the same folder, a stranger's with our number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.conftest import Cluster
from tests.slurm.counted import LAUNCHER, marks

SLEEPING = ["-m", *LAUNCHER, "hydra.launcher.cpus_per_task=1", "peft=frozen", "model.weights=null"]
HELD = [*SLEEPING, "hydra.launcher.sbatch={hold: true}"]
NOBODY = 65534
ELSEWHERE = [
    "unshare", "--uts", "sh", "-c",
    'hostname elsewhere; exec setpriv --reuid=$0 --regid=$0 --clear-groups "$@"', str(NOBODY),
]  # fmt: skip


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may write to."""
    folder = Path(tempfile.mkdtemp(prefix="shared"))
    folder.chmod(0o777)
    before = os.umask(0)
    yield folder
    os.umask(before)
    shutil.rmtree(folder)


def nobody(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command as another user, on a machine of another name."""
    return subprocess.run(
        [*ELSEWHERE, sys.executable, "-m", "segsweep", *words],
        cwd=folder,
        env=os.environ | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_two_users_in_one_folder_do_no_run_twice(
    cluster: Cluster, shared: Path, monkeypatch
) -> None:
    """One of their jobs waits, one runs; a machine of the same name could see its process."""
    if nobody(shared, "status").returncode:
        pytest.skip("needs root, who may become another user, and that user must see this Python")
    monkeypatch.setenv("COUNTED_SECONDS", "25")
    assert cluster.segsweep(*SLEEPING, "seed=0", cwd=shared).returncode == 0
    assert cluster.segsweep(*HELD, "seed=1", cwd=shared).returncode == 0
    runs = sorted((shared / "results" / "runs").glob("[!.]*"))
    cluster.wait(lambda: any(marks(run, "begun") for run in runs))
    before = cluster.queue()
    said = nobody(shared, *SLEEPING, "seed=0,1")
    assert "submitted 0 of 2" in said.stdout, said.stderr
    assert cluster.queue().keys() == before.keys()
    states = json.loads(nobody(shared, "status", "--json").stdout)
    assert {one["state"] for one in states} == {"running", "pending"}
    assert all("root's job" in one["note"] for one in states)
    said = nobody(shared, "cancel", "--all")
    assert said.stdout.count("only root can cancel it") == 2, said.stderr
    (running,) = (run for run in runs if marks(run, "begun"))
    said = nobody(shared, "work", str(running))
    assert "(root's job " in said.stderr, said.stdout
    assert "2 jobs cancelled" in cluster.segsweep("cancel", "--all", cwd=shared).stdout
    cluster.wait_empty()
    assert len(marks(running, "begun")) == 1
    said = nobody(shared, *HELD, "seed=0,1")  # what is over is anybody's
    assert "submitted 2 of 2" in said.stdout, said.stderr


def test_a_number_that_the_controller_gives_again_is_another_job(
    cluster: Cluster, tmp_path: Path
) -> None:
    assert cluster.segsweep(*HELD, cwd=tmp_path).returncode == 0
    ((number, _),) = cluster.queue().items()
    conf = cluster.directory / "slurm.conf"
    cluster.control("ctld-down")
    shutil.rmtree(cluster.directory / "state")
    (cluster.directory / "state").mkdir()
    before = conf.read_text()
    conf.write_text(f"{before}FirstJobId={number}\n")
    cluster.control("ctld-up")
    conf.write_text(before)
    assert not cluster.queue()
    subprocess.run(["sbatch", "--hold", "--wrap=true"], check=True, capture_output=True)
    assert cluster.queue().keys() == {number}
    said = cluster.segsweep("status", cwd=tmp_path).stdout
    assert "1 lost" in said, said
    said = cluster.segsweep("cancel", "--all", cwd=tmp_path).stdout
    assert "0 jobs cancelled" in said, said
    assert cluster.queue().keys() == {number}
    assert "submitted 1 of 1" in cluster.segsweep(*HELD, cwd=tmp_path).stdout
    assert len(cluster.queue()) == 2
