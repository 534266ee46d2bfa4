"""What comes with the package and beside it: its own files, folders, other packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def packaged(folder: str) -> Path:
    """Return where a folder of the repository is: `packaged("results/reported")`.

    A wheel holds it inside of the package (pyproject.toml), a checkout beside it.
    """
    inside = PACKAGE / Path(folder).name
    return inside if inside.is_dir() else PACKAGE.parent / folder


def installed(library: str) -> str:
    """Return the version of another package, nothing where it is absent; it is not imported."""
    try:
        return version(library) if find_spec(library) else ""
    except PackageNotFoundError:  # some folder has its name
        return ""
