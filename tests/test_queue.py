"""What SLURM says is not believed blindly: banners, silence, other users, ids that begin again."""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
import subprocess
from pathlib import Path

import pytest

from segsweep.base.config import Trainer, compose
from segsweep.base.errors import Damaged, UserError
from segsweep.base.owner import owned, owner_of
from segsweep.base.process import is_live
from segsweep.base.queue import SUBMISSION, queue, this_submission
from segsweep.run.identity import Run, State, state_of
from segsweep.sweeps.control import cancel as end
from segsweep.sweeps.options import Slurm, refusal
from segsweep.sweeps.slurm import recover, script, submit
from segsweep.verbs import cancel, retry, status
from tests.sites import Site

ME, OTHER = str(os.getuid()), "daemon"
OTHERS_UID = str(pwd.getpwnam(OTHER).pw_uid)


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path_factory.mktemp("site"), monkeypatch)
    made.knows(says={"sbatch": "7\n", "scontrol": "MaxArraySize = 1001\nPrivateData = none\n"})
    return made


def submitted(site: Site, results: Path, user: str | None = None, state: str = "PENDING") -> Run:
    """Submit a run as job 7, which waits or runs; of somebody else, as if they had."""
    run = Run(compose([f"io.results={results}", "trainer.accelerator=cpu"]))
    assert submit([run], Slurm()) == {run.name: "7"}
    path = run.directory / "job.json"
    job = json.loads(path.read_text())
    path.write_text(json.dumps(job | {"user": user or job.get("user")}))
    site.knows(jobs=[("7", state, job["comment"], OTHERS_UID if user else ME)])
    return run


@pytest.mark.parametrize("around", [b"Welcome to the cluster!\n", b"M\xe9lusine | 2 jobs | \xff\n"])
def test_what_a_site_prints_around_its_answer_is_no_job(site: Site, around: bytes) -> None:
    site.knows(jobs=[("7_1", "RUNNING", "a|b", ME)], banner=around.hex())
    found = queue().find("7_1", "a|b")
    assert found is not None
    assert found.state == "RUNNING"
    assert list(queue().of(None)) == ["7_1"]


def test_silence_is_no_empty_queue(site: Site) -> None:
    site.knows(jobs=[("7", "RUNNING", "u", ME)])
    site.keeps_silent(1)
    assert queue().find("7", "u")
    site.keeps_silent(99)
    with pytest.raises(UserError, match="squeue ended well but printed no list"):
        queue()


def test_where_squeue_lists_nothing_accounting_is_heard(site: Site, tmp_path: Path) -> None:
    run = submitted(site, tmp_path)
    site.knows(jobs=[], fails={"sacct": "Slurm accounting storage is disabled"})
    assert state_of(run.directory, queue()) is State.LOST
    says = {"sacct": "site news\n7|RUNNING|\n8|COMPLETED|\n"}
    site.knows(fails={}, says=site.facts["says"] | says)
    assert state_of(run.directory, queue()) is State.RUNNING
    assert not queue().find("8", None)
    assert end([run.directory], queue(), False)[0] == 0  # accounting says not whose it is
    assert not site.calls("scancel")
    site.knows(jobs=[("9", "RUNNING", "", ME)])  # squeue is all there, and decides
    assert state_of(run.directory, queue()) is State.LOST


@pytest.mark.parametrize(
    ("private", "user", "shown"),
    [("none", OTHER, True), ("none", OTHER, False), ("accounts,jobs", OTHER, False),
     ("none", "no such user", False)],
)  # fmt: skip
def test_jobs_of_other_users_are_asked_for_and_hidden_ones_count_as_living(
    site: Site, tmp_path: Path, capsys, private: str, user: str, shown: bool
) -> None:
    run = submitted(site, tmp_path, user)
    says = site.facts["says"] | {"scontrol": f"PrivateData   = {private}\n"}
    site.knows(says=says, jobs=site.facts["jobs"] if shown else [])
    hidden = private != "none" or user != OTHER
    gone = not shown and not hidden
    expected = State.RUNNING if hidden else State.LOST if gone else State.PENDING
    assert state_of(run.directory, queue()) is expected
    assert len(submit([run], Slurm())) == gone
    told = capsys.readouterr().out
    assert (f"1 runs are jobs of {user}, which cannot be seen" in told) == hidden
    if not gone:
        assert cancel.main([run.name, "--results", str(tmp_path)]) == 1
        assert f"job 7 is {user}'s: only {user} can cancel it" in capsys.readouterr().out
        assert not site.calls("scancel")
        assert retry.main([run.name, "--results", str(tmp_path)]) == 0
        assert "1 runs, 0 of them to start again" in capsys.readouterr().out
        status.main(["--results", str(tmp_path)])
        note = f"{user}'s job 7" + (", which cannot be seen from here" if hidden else "")
        assert note in capsys.readouterr().out


def test_a_user_that_is_an_option_is_none(site: Site, tmp_path: Path) -> None:
    run = submitted(site, tmp_path, "--me")
    with pytest.raises(Damaged, match="user is '--me'"):
        state_of(run.directory, queue())


def test_what_somebody_else_may_just_have_submitted_is_left_alone(
    site: Site, tmp_path: Path
) -> None:
    """Their command died between `sbatch` and noting the number, or has not come to it yet."""
    run = submitted(site, tmp_path)
    (intent,) = run.directory.parent.glob(".submit/*.json")
    content = json.loads(intent.read_text())
    intent.write_text(json.dumps(content | {"id": None, "user": OTHER}))
    (run.directory / "job.json").unlink()
    site.knows(jobs=[], says={"sbatch": "8\n", "scontrol": "PrivateData = jobs\n"})
    assert submit([run], Slurm()) == {}
    site.knows(says={"sbatch": "8\n", "scontrol": "PrivateData = none\n"})
    site.knows(jobs=[("7", "PENDING", intent.stem, OTHERS_UID)])
    assert submit([run], Slurm()) == {}
    assert json.loads((run.directory / "job.json").read_text())["user"] == OTHER
    site.knows(jobs=[])
    assert submit([run], Slurm()) == {run.name: "8"}


def test_an_owner_of_another_user_and_host_lives_while_its_job_does(
    site: Site, tmp_path: Path, monkeypatch
) -> None:
    """Its file is what a job of theirs writes, on a node of theirs."""
    with monkeypatch.context() as patch:
        patch.setattr("segsweep.base.process.this_user", lambda: OTHER)
        patch.setattr("socket.gethostname", lambda: "n1")
        patch.setenv("SLURM_JOB_ID", "7")
        patch.setenv(SUBMISSION, "u 7")
        with owned(tmp_path):
            theirs = owner_of(tmp_path)
    assert theirs is not None
    site.knows(jobs=[("7", "RUNNING", "u", OTHERS_UID)])
    assert is_live(theirs, queue())
    site.knows(jobs=[("7", "RUNNING", "another", OTHERS_UID)])
    assert not is_live(theirs, queue())
    (tmp_path / "owner.1").write_text(json.dumps(theirs))  # it did not let go
    site.knows(jobs=[("7", "RUNNING", "u", OTHERS_UID)])
    with pytest.raises(UserError, match=rf"n1 \({OTHER}'s job 7: ask {OTHER}\)"), owned(tmp_path):
        pass


def test_a_job_within_a_job_has_not_its_submission(monkeypatch) -> None:
    monkeypatch.setenv(SUBMISSION, "u 7")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert this_submission() == "u"
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert this_submission() is None


@pytest.mark.parametrize("pid", [-1, 0, 2**70, "1", None])
def test_what_is_no_process_does_not_live(pid) -> None:
    """To `kill`, 0 and -1 mean many processes."""
    owner = {"host": socket.gethostname(), "pid": pid, "started_ticks": None, "job": None}
    assert not is_live(owner)


def test_a_process_that_does_not_show_itself_counts_as_living(tmp_path: Path, monkeypatch) -> None:
    """Linux can hide the processes of other users from /proc (hidepid)."""
    monkeypatch.setattr("segsweep.base.process.Path", lambda _: tmp_path / "hidden")
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started_ticks": "1", "job": None}
    assert is_live(owner)
    assert not is_live(owner | {"pid": 2**22 + 1})


def test_an_id_that_began_again_is_another_job(site: Site, tmp_path: Path, capsys) -> None:
    run = submitted(site, tmp_path, state="RUNNING")
    before = queue()
    assert state_of(run.directory, before) is State.RUNNING
    site.knows(jobs=[("7", "RUNNING", "of somebody's thesis", ME)])
    assert state_of(run.directory, queue()) is State.LOST
    assert cancel.main(["--all", "--results", str(tmp_path)]) == 0
    assert end([run.directory], before, False)[0] == 0  # it was ours when it was looked at
    assert not site.calls("scancel")


def test_what_sbatch_prints_around_the_number_is_no_number(site: Site, tmp_path: Path) -> None:
    run = Run(compose([f"io.results={tmp_path}", "trainer.accelerator=cpu"]))
    site.knows(says={"sbatch": "Dear user, 3 days left\n12;hpc\nbye\n"})
    assert submit([run], Slurm()) == {run.name: "12"}
    site.knows(says={"sbatch": "Dear user\n"})
    with pytest.raises(UserError, match="sbatch named no job"):
        submit([run], Slurm())
    files = run.directory.parent.glob(".submit/*.json")
    (intent,) = (path for path in files if '"id": null' in path.read_text())
    site.knows(jobs=[("13", "PENDING", intent.stem, ME)])
    recover(run.directory.parent, queue())
    assert state_of(run.directory, queue()) is State.PENDING


@pytest.mark.parametrize(
    ("comment", "silent", "requeued"), [("u", 0, True), ("u", 3, True), ("another", 0, False)]
)
def test_a_batch_script_requeues_its_own_job_whatever_is_printed_around(
    site: Site, tmp_path: Path, comment: str, silent: int, requeued: bool
) -> None:
    run = Run(compose([f"io.results={tmp_path}", "trainer.accelerator=cpu"]))
    after = script(run, Slurm(), tmp_path / "u.json").partition("# teardown\n")[2]
    site.knows(jobs=[("7", "RUNNING", comment, ME)], banner=b"Welcome!\n".hex())
    site.keeps_silent(silent)
    command = ["bash", "-c", f"(exit 140)\n{after}"]
    done = subprocess.run(command, env=os.environ | {"SLURM_JOB_ID": "7"}, capture_output=True)
    assert done.returncode == 140
    assert site.calls("scontrol") == [["requeue", "7"]] * requeued


BIG = Slurm(partition="main", mem="900G", cpus_per_task=64, qos="urgent", constraint="a100")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("Batch job submission failed: Invalid partition name specified", ["partition=main"]),
        ("Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: "
         "Requested node configuration is not available", ["mem=900G"]),
        ("CPU count per node can not be satisfied", ["cpus_per_task=64", "trainer.devices=1"]),
        ("Batch job submission failed: More processors requested than permitted",
         ["cpus_per_task=64"]),
        ("Batch job submission failed: Requested node configuration is not available",
         ["partition=main", "mem=900G", "constraint=a100", "cpus_per_task=64"]),
        ("Batch job submission failed: Invalid qos specification", ["qos=urgent"]),
        ("Batch job submission failed: Invalid feature specification", ["constraint=a100"]),
        ("Batch job submission failed: Invalid account or account/partition combination specified",
         ["partition=main", "sacctmgr"]),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some "
         "limit)", ["time=240"]),
        ("Invalid generic resource (gres) specification", ["trainer.devices=1"]),
        ("Batch job submission failed: Node count specification invalid", ["trainer.nodes=1"]),
        ("Batch job submission failed: No partition specified or system default partition",
         ["partition=main"]),
    ],
)  # fmt: skip
def test_the_keys_that_sbatch_refused_are_named(words: str, named: list[str]) -> None:
    said = str(refusal(UserError(f"sbatch failed: sbatch: error: {words}"), BIG, Trainer("t")))
    assert said.startswith("sbatch refused ")
    assert all(key in said for key in named), said
    asked = said.splitlines()[0].partition(": ")[0]
    unrelated = {"mem", "qos", "constraint", "partition"} - {key.partition("=")[0] for key in named}
    assert not re.search(rf"launcher\.({'|'.join(unrelated)})=", asked), asked


def test_an_option_of_sbatch_is_named_as_it_was_given(site: Site, tmp_path: Path) -> None:
    run = Run(compose([f"io.results={tmp_path}", "trainer.accelerator=cpu"]))
    site.knows(fails={"sbatch": "sbatch: error: Batch job submission failed: Requested reservation "
                                "is invalid"})  # fmt: skip
    with pytest.raises(UserError, match=r"refused hydra\.launcher\.sbatch\.reservation=r1: Req"):
        submit([run], Slurm(sbatch={"reservation": "r1"}))
    assert not list(run.directory.parent.glob(".submit/*.json"))
    site.knows(fails={"sbatch": "sbatch: error: Unable to contact slurm controller"})
    with pytest.raises(UserError, match=r"^sbatch failed: .*Unable to contact"):
        submit([run], Slurm())
