"""Where exports go: filled beside their place, then moved there whole, with hashes of all files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import sha256, write_text

SUMS = "SHA256SUMS"


def vacant(out: Path, force: bool) -> None:
    """Refuse to overwrite what exists, unless by force; folders only if an export made them.

    Raises UserError.
    """
    if not out.exists():
        return
    if not force:
        raise UserError(f"out={out} exists; say force=true to replace it, or another place")
    if out.is_dir() and any(out.iterdir()) and not (out / SUMS).is_file():
        raise UserError(f"out={out} is a folder that no export made; say another place")


@contextmanager
def staged(out: Path, force: bool) -> Iterator[Path]:
    """Name a place beside `out`, of the same name, for a file or a folder; then move it there.

    After an error nothing is left, and what was at `out` is as it was. Raises UserError as
    `vacant`, and where the disk refuses.
    """
    vacant(out, force)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            place = Path(folder, "new", out.name)
            place.parent.mkdir()
            yield place
            if out.is_dir():
                out.rename(Path(folder, "old"))  # goes with the temporary folder
            place.replace(out)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror})") from error


def seal(folder: Path) -> None:
    """Write the hashes of all files of a folder, as `sha256sum` does."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / SUMS)
    lines = [f"{sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    write_text(folder / SUMS, "".join(lines))


def verify(folder: Path) -> int:
    """Return how many files of an export there are, if all are as they were written.

    Raises UserError naming those that changed, are gone, or were added.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        wanted = {name: hashed for hashed, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: is no export, it has no readable {SUMS}") from error
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {SUMS}
    changed = {name for name in files & wanted.keys() if sha256(folder / name) != wanted[name]}
    faults = {"changed": changed, "gone": wanted.keys() - files, "added": files - wanted.keys()}
    sentences = [f"{', '.join(sorted(names))} {fault}" for fault, names in faults.items() if names]
    if sentences:
        raise UserError(f"{folder}: {'; '.join(sentences)} since it was exported; copy it again")
    return len(wanted)
