"""The words of the config groups, for tests that try every one of them.

A folder that SEGSWEEP_TEST_WORDS names is tried too: `segsweep/<package>/<word>.py` joins the
package of that name, `conf/<group>/<word>.yaml` the group, `tests/layouts*.py` the fakes.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import pytest

from segsweep.base.config import class_of, compose
from segsweep.base.package import installed
from segsweep.base.words import add_folder, files

__all__ = ["class_of", "compose", "files"]

FOLDER = os.environ.get("SEGSWEEP_TEST_WORDS", "")


def need_package_of(model: str) -> None:
    """Skip a test of a model whose package is not installed."""
    package = getattr(class_of("model", model), "package", "")
    if package and not installed(package):
        pytest.skip(f"could not import '{package}'")


def join(folder: Path) -> None:
    """Let packages, config groups and fakes find the files of a folder."""
    for path in sorted(folder.glob("**/*.py")):
        package = import_module(".".join(path.parent.relative_to(folder).parts))
        if str(path.parent) not in package.__path__:
            package.__path__ = [*package.__path__, str(path.parent)]
    add_folder(folder / "conf")


if FOLDER:
    join(Path(FOLDER))
