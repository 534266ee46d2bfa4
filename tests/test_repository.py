"""What the repository promises about itself: dependencies, addresses, sizes, commands."""

from __future__ import annotations

import ast
import csv
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import summary

ROOT = Path(__file__).resolve().parent.parent
LINES = 320  # of a source file
TARGETS = 13  # of the Makefile

ADDRESSES = (
    "pypi.org",
    "pythonhosted.org",
    "download.pytorch.org",
    "--index-url",
    "--extra-index-url",
)
MACHINE = re.compile(r"(?<![\w.])/(?:root|work|Users|home/\w+)/")
THIS = Path(__file__).name  # names the addresses that it looks for

PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Zlib|0BSD|Unlicense|CC0|HPND|MPL", re.I
)
COPYLEFT = re.compile(r"\bA?GPL|\bLGPL|GNU|SSPL|Commons Clause|Non-?Commercial|Proprietary", re.I)
# They come with PyTorch's build for Linux, are used as they are, and are not redistributed here.
NVIDIA = re.compile(r"^(nvidia-|cuda-)")


def tracked() -> list[Path]:
    """Return all files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def texts() -> dict[str, str]:
    """Return the content of all tracked text files by name."""
    found = {}
    for path in tracked():
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def requirements() -> dict[str, list[str]]:
    """Return the hashes of the lock file by `name==version`."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            name = line.split()[0]
            found[name] = []
        found.get(name, []).extend(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_no_file_names_a_package_index_or_a_machine() -> None:
    found = [
        f"{name}: {line.strip()[:80]}"
        for name, text in texts().items()
        if not name.endswith(THIS)
        for line in text.splitlines()
        if any(word in line for word in ADDRESSES) or MACHINE.search(line)
    ]
    assert found == []


def test_every_locked_version_is_pinned_and_hashed() -> None:
    locked = requirements()
    assert len(locked) > 50
    assert [name for name, hashes in locked.items() if "==" not in name or not hashes] == []


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in wanted} - {"segsweep"}
    assert names - {name.partition("==")[0].lower() for name in requirements()} == set()


def test_every_import_is_declared() -> None:
    """What comes with another package may leave with it."""
    files = chain((ROOT / "segsweep").rglob("*.py"), (ROOT / "hydra_plugins").rglob("*.py"))
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text())))
    lines = (ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    names = {re.split(r"[ .,]", line)[1] for line in lines} - sys.stdlib_module_names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *chain(*(extras[x] for x in extras if x != "dev"))]
    known = {canonicalize_name(Requirement(line).name) for line in declared}
    owners = packages_distributions()
    unknown = {n for n in names if known.isdisjoint(map(canonicalize_name, owners.get(n, [n])))}
    assert unknown - {"segsweep", "hydra_plugins"} == set()


def test_what_advisories_name_is_neither_locked_nor_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(line) for line in [*project["dependencies"], *chain(*extras)]]
    locked = [Requirement(line) for line in requirements()]
    with (ROOT / "tests/advisories.csv").open(newline="") as file:
        advisories = list(csv.DictReader(file))
    assert len(advisories) > 5
    for advisory in advisories:
        package, fixed = advisory["package"], Version(advisory["fixed"])
        for requirement in (r for r in [*wanted, *locked] if r.name == package):
            least = [
                Version(s.version) for s in requirement.specifier if s.operator in (">=", "==")
            ]
            assert max(least) >= fixed, f"{requirement}: {advisory['advisory']}"
        assert package in {r.name for r in locked}, f"{package} is locked no more: drop its line"


def test_dependencies_are_permissively_licensed() -> None:
    found = {}
    for name in (line.partition("==")[0] for line in requirements()):
        try:
            licence = said(name)
        except PackageNotFoundError:  # of another platform
            continue
        if licence and not NVIDIA.match(name):
            found[name] = licence
    assert len(found) > 50
    wrong = {n: x for n, x in found.items() if COPYLEFT.search(x) or not PERMISSIVE.search(x)}
    assert wrong == {}


def said(name: str) -> str:
    """Return what a distribution says about its licence: expression, classifiers or field."""
    about = metadata(name)
    classifiers = about.get_all("Classifier") or []
    words = [line.rpartition("::")[2] for line in classifiers if line.startswith("License ::")]
    field = (about.get("License") or "").strip().partition("\n")[0]
    return about.get("License-Expression") or ", ".join(words) or field


def test_source_files_stay_short() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (ROOT / "segsweep").rglob("*.py")}
    assert [str(path) for path, size in sizes.items() if size > LINES] == []


def test_the_makefile_stays_short_and_holds_every_command_of_the_documents() -> None:
    assert len(targets()) <= TARGETS
    assert {"demo", "test"} <= targets()
    for name, text in texts().items():
        if name.endswith((".md", ".ci/run")):
            used = set(re.findall(r"(?:^|`)make (?:--\S+ )*([a-z-]+)", text, re.MULTILINE))
            assert used <= targets(), name
    assert {"make demo", "make test"} <= set(re.findall(r"make \w+", texts()["README.md"]))


def test_a_line_says_what_skipped_tests_need() -> None:
    slurm = "Skipped: slurmctld not installed (Debian: apt install slurm-wlm munge)"
    reasons = [slurm, slurm, "Skipped: no chromium on this machine", "Skipped: needs CUDA"]
    reasons.append("Skipped: could not import 'onnxruntime': No module named 'onnxruntime'")
    line = "skipped: 2 need SLURM, 1 needs Chromium, 1 needs a GPU, 1 needs onnxruntime"
    assert summary(reasons) == line
