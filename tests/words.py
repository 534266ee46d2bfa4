"""The words of the config groups, for tests that try every one of them.

A folder that SEGSWEEP_TEST_WORDS names is tried too: `segsweep/<package>/<word>.py` joins the
package of that name, `conf/<group>/<word>.yaml` the group, `tests/layouts*.py` the fakes.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from segsweep.base import config
from segsweep.base.config import Config, conf_dir, schema_of

FOLDER = os.environ.get("SEGSWEEP_TEST_WORDS", "")


def join(folder: Path) -> None:
    """Let the package and the fakes find the files of a folder."""
    for path in sorted(folder.glob("**/*.py")):
        package = import_module(".".join(path.parent.relative_to(folder).parts))
        if str(path.parent) not in package.__path__:
            package.__path__ = [*package.__path__, str(path.parent)]


def files(group: str) -> dict[str, Path]:
    """The yaml of every word of a group."""
    folders = [Path(conf_dir(), group), *([Path(FOLDER, "conf", group)] if FOLDER else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def kind(group: str, word: str) -> type:
    """The class of a word."""
    from omegaconf import OmegaConf

    found = schema_of(OmegaConf.load(files(group)[word]))
    assert found is not None
    return found


def compose(overrides: list[str]) -> Config:
    """Compose as the command line does, with the words of the folder."""
    place = [f"hydra.searchpath=[file://{FOLDER}/conf]"] if FOLDER else []
    return config.compose([*place, *overrides])


if FOLDER:
    join(Path(FOLDER))
