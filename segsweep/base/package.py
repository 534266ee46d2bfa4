"""What comes with the package: its own files, and folders that a checkout holds beside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def packaged(folder: str) -> Path:
    """Return where a folder of the repository is: `packaged("results/reported")`.

    A wheel holds it inside of the package (pyproject.toml), a checkout beside it.
    """
    inside = PACKAGE / Path(folder).name
    return inside if inside.is_dir() else PACKAGE.parent / folder
