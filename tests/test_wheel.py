"""The wheel works away from the checkout: built, installed into a clean environment, and run.

What README shows is done there, in an empty folder: its Python is run with a short training, and
its commands in one process. Those that train are composed or planned.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from segsweep.__main__ import VERBS
from tests import small_coco

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m segsweep *(.*?) *(?:#.*)?$", README, re.MULTILINE)
(PYTHON,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SLOW = ("bench", "export")  # of models, not of the package: test_bench, test_export
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv" / "bin" / "uv"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(UV is None, reason="uv, which `make setup` uses, is not there"),
]


def run(*command: object, cwd: Path, told: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed; its error is the test's."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked source archive."""
    folder = tmp_path_factory.mktemp("archive")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("segsweep-*.tar.gz")
    with tarfile.open(found) as file:
        file.extractall(folder, filter="data")
    return folder / found.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, made from the source archive as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=archive)
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
    assert "No runs" in run(environment / "segsweep", "status", cwd=tmp_path).stdout


def test_the_archive_holds_every_tracked_file_but_data_of_tests(archive: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    wanted = {name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()}
    missing = {name for name in wanted if not (archive / name).is_file()}
    assert missing == {n for n in wanted if re.match("tests/data/.+/", n)} != set()


def cheap(line: str) -> list[str]:
    """Return a command that reads what another one trains: composed, or planned if it is many."""
    words = shlex.split(line)
    if "--cfg" in words or {*words[:1]} & {*VERBS}:
        return words
    if "-m" in words or any(word.startswith("+sweep=") for word in words):
        return ["plan", *words]
    return [*words, "--cfg", "job"]


def test_all_that_readme_shows_works_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    own = small_coco.content()
    for number, image in enumerate(own["images"]):
        image["camera"] = f"camera {number}"
    small_coco.write(tmp_path / "path/to/set", own, own)
    fewer = [a for a in own["annotations"] if a["image_id"] != own["images"][0]["id"]]
    other = own | {"annotations": fewer}
    small_coco.write(tmp_path / "path/to/site-b", other, other)
    for folder in ("pictures", "folder"):
        shutil.copytree(tmp_path / "path/to/set/images", tmp_path / folder)
    (tmp_path / "board.csv").write_text("method,AP\nours,**50.1**\ntheirs,50.2\n")
    short = ["data=coco", "data.root=path/to/set", "hparams.epochs=1", "io.progress=false"]
    once = {'"peft=lora"': '"peft=lora", *SHORT', "rank=2,4": "rank=4", "seed=0,1": "seed=0"}
    python = re.sub("|".join(once), lambda match: once[match[0]], PYTHON)
    runs = {"3f2a91": ["peft=lora", "peft.rank=4", *short], "77c01d": ["peft=frozen", *short]}
    commands = [words for words in map(cheap, dict.fromkeys(COMMANDS)) if words[0] not in SLOW]
    assert len(commands) > 30
    commands.append(["params", "--check", "model=maskdino_r50", "peft=embeddings_only"])
    todo = {"python": python, "short": short, "runs": runs, "commands": commands}
    driver = (environment / "python", "-P", ROOT / "tests/readme_driver.py")
    done = run(*driver, cwd=tmp_path, told=json.dumps(todo))
    *ends, (_, _, compared) = json.loads(done.stdout.splitlines()[-1])
    assert "000: 1 settings compared, 0 differences" in compared
    faults = {line: text for line, status, text in ends if status}
    assert "Nothing has been learnt" in faults.pop("plan --settle ablation --margin 1")
    assert "wait for what is missing here" in faults.pop("plan +sweep=table2")
    assert faults == {}
    files = {"tables/ablation.md", "figures/delta_vs_params.png", "tables/peft_table2a.md"}
    assert {name for name in files if not (tmp_path / "results" / name).is_file()} == set()
