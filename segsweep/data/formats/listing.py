"""The pictures of a folder, by the names that annotation files give them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from unicodedata import normalize
from urllib.parse import unquote, urlsplit


def canonical(name: str) -> str:
    """Return a path as it is compared: forward slashes, without ".", in one Unicode form."""
    return posixpath.normpath(normalize("NFC", name.replace("\\", "/")))


@dataclass
class Pictures:
    """The files below a folder. Names may begin at `root`, which the folder is a part of."""

    folder: Path
    root: Path | None = None

    def find(self, name: str) -> str | None:
        """Return the path below the folder of what a file calls so, None if it is not there."""
        name, prefix = canonical(name), self._prefix
        if prefix and name.startswith(prefix) and name not in self.paths:
            path = self.paths.get(name.removeprefix(prefix))
            return path if path and canonical(path) == name.removeprefix(prefix) else None
        return self.paths.get(name)

    def holds(self, path: str) -> bool:
        """Tell whether there is a picture of exactly this path."""
        return self.paths.get(canonical(path)) == path

    def sizes(self, path: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (height, width) of a picture as stored and as shown.

        Raises UserError for a file that is no picture.
        """
        from segsweep.data.formats.images import sizes

        return sizes(self.folder / path)

    def respelled(self, name: str) -> str | None:
        """Return the one picture that a name means but for percent escapes and case, if any.

        Of an address it is the longest end of its path that is there.
        """
        if "://" in name:
            parts = urlsplit(name).path.split("/")
            ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
            return next(filter(None, map(self.respelled, ends)), None)
        path = canonical(unquote(name))
        return self.paths.get(path) or self._folded.get(path.casefold())

    def near(self, name: str) -> str | None:
        """Return the picture that has the bare name of a path of another place."""
        return self.respelled(PureWindowsPath(name).name)  # splits at / and at \

    @cached_property
    def paths(self) -> dict[str, str]:
        """The paths below the folder by themselves, and by bare names that are unique."""
        paths = [
            Path(where, name).relative_to(self.folder).as_posix()
            for where, _, names in os.walk(self.folder, followlinks=True)
            for name in names
        ]
        bare = _unique((canonical(path).rpartition("/")[2], path) for path in paths)
        return bare | {canonical(path): path for path in paths}

    @cached_property
    def _folded(self) -> dict[str, str]:
        return _unique((name.casefold(), path) for name, path in self.paths.items())

    @cached_property
    def _prefix(self) -> str:
        if self.root is None or not self.folder.is_relative_to(self.root):
            return ""
        inside = self.folder.relative_to(self.root).as_posix()
        return "" if inside == "." else f"{inside}/"


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the paths whose name is that of no other path."""
    by_name: dict[str, str] = {}
    for name, path in pairs:
        by_name[name] = path if by_name.get(name, path) == path else ""  # no name for two
    return {name: path for name, path in by_name.items() if path}
