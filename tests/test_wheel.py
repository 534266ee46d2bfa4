"""The wheel works away from the checkout: built, installed into a clean environment, and run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.records import record, write

ROOT = Path(__file__).resolve().parent.parent
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv" / "bin" / "uv"))

pytestmark = pytest.mark.skipif(UV is None, reason="uv, which `make setup` uses, is not there")


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed; its error is the test's."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("segsweep-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin/ of a new environment with the wheel, its dependencies seen through a .pth."""
    folder = tmp_path_factory.mktemp("environment")
    run(UV, "venv", "-q", "--offline", "--python", sys.executable, folder / "env", cwd=folder)
    paths = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = Path(sysconfig.get_path("scripts", "venv", paths)) / "python"
    install = ("pip", "install", "-q", "--offline", "--no-deps", "--reinstall")
    run(UV, *install, "--python", python, wheel, cwd=folder)
    return python.parent


def test_the_wheel_holds_every_file_of_the_package_and_conf(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in ("segsweep", "hydra_plugins", "conf")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    wanted = {f"segsweep/{name}" if name.startswith("conf/") else name for name in files}
    assert wanted - packed == set()
    assert {name.split("/")[0] for name in packed if ".dist-info/" not in name} == {
        "segsweep",
        "hydra_plugins",
    }


def test_the_wheel_composes_elsewhere_without_torch(environment: Path, tmp_path: Path) -> None:
    command = ("-X", "importtime", "-m", "segsweep", "--cfg", "job", "peft.rank=4")
    done = run(environment / "python", *command, cwd=tmp_path)
    assert "rank: 4" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omegaconf" in imported
    assert not imported & {"torch", "timm", "pytorch_lightning", "numpy"}
    assert list(tmp_path.iterdir()) == []  # composing leaves no files behind


def test_the_wheel_is_what_runs(environment: Path, tmp_path: Path) -> None:
    where = "import segsweep.base.words as c; print(c.__file__); print(c.conf_dir())"
    done = run(environment / "python", "-c", where, cwd=tmp_path)
    assert all(str(environment.parent) in line for line in done.stdout.splitlines())


def test_the_wheel_collects_elsewhere(environment: Path, tmp_path: Path) -> None:
    write(tmp_path / "results", record("lora", 41.5))
    done = run(environment / "segsweep", "collect", cwd=tmp_path)
    assert "41.50" in done.stdout
    assert (tmp_path / "results" / "figures" / "delta_vs_params.png").exists()
