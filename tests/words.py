"""The words of the config groups, for tests that try every one of them.

A folder that SEGSWEEP_TEST_WORDS names is tried too: `segsweep/<package>/<word>.py` joins the
package of that name, `conf/<group>/<word>.yaml` the group, `tests/layouts*.py` the fakes.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf

from segsweep.base import config
from segsweep.base.config import Config

ROOT = Path(__file__).resolve().parents[1]
FOLDER = os.environ.get("SEGSWEEP_TEST_WORDS", "")
FOLDERS = [ROOT / "conf", *([Path(FOLDER, "conf")] if FOLDER else [])]


def join(folder: Path) -> None:
    """Let the package and the fakes find the files of a folder."""
    for path in sorted(folder.glob("**/*.py")):
        package = import_module(".".join(path.parent.relative_to(folder).parts))
        if str(path.parent) not in package.__path__:
            package.__path__ = [*package.__path__, str(path.parent)]


def files(group: str) -> dict[str, Path]:
    """The yaml of every word of a group."""
    return {path.stem: path for f in FOLDERS for path in sorted((f / group).glob("*.yaml"))}


def kind(group: str, word: str) -> type:
    """The class of a word."""
    return get_class(OmegaConf.load(files(group)[word])["_target_"])


def compose(overrides: list[str]) -> Config:
    """Compose as the command line does, with the words of the folder."""
    place = [f"hydra.searchpath=[segsweep://{FOLDERS[1]}]"] if FOLDER else []
    return config.compose([*place, *overrides])


if FOLDER:
    join(Path(FOLDER))
