"""What `images=` names: folders, files, patterns and addresses, as files that can be opened.

All that can be said of them without a model is said here; nothing here imports torch.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from segsweep.base.errors import UserError
from segsweep.base.files import file_name, write_atomically
from segsweep.base.terminal import human

ADDRESS = re.compile("https?://", re.IGNORECASE)
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")  # all else: pictures
NO_VIDEO = "video needs PyAV, which is not installed here: pip install 'segsweep[video]'"
LARGEST = 2**28  # bytes that are taken from an address
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class InputFile:
    """A picture or a video; `name` is its path below the folder that all of them are in."""

    path: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """Whether it has many pictures, one after the other."""
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Inputs:
    """All files that are meant, and what they are called together."""

    title: str
    files: list[InputFile]


def is_input(word: str) -> bool:
    """Whether a bare word means a picture: an address or a file, as no run does."""
    return bool(ADDRESS.match(word)) or Path(word).is_file()


def find(places: Sequence[str], out: Path) -> Inputs:
    """Find all files, each once: those below folders by name, others in the order of the words.

    Hidden files of a folder are left out, and so is `out`, into which addresses are fetched.

    Raises UserError where there is nothing, an address gives none, or video cannot be read.
    """
    root, found = _root(places), {}
    for place in places:
        if ADDRESS.match(place):
            path = fetch(place, out / "downloads", [file.name for file in found.values()])
            found[path] = InputFile(path, Path(path.name))
            continue
        for path in _files(place, out.resolve()):
            whole = Path(os.path.abspath(path))
            found.setdefault(whole, InputFile(path, whole.relative_to(root)))
    files = [*found.values()]
    if all(file.is_video for file in files) and not find_spec("av"):
        raise UserError(f"images={places[0]}: {NO_VIDEO}")
    return Inputs(title(places), files)


def title(places: Sequence[str]) -> str:
    """Return what places are called together: the name of the only one, or of their folder."""
    (first, *more), root = places, _root(places)
    if root == Path():
        return _name_of(first)
    only = Path(os.path.abspath(Path(first).expanduser()))
    return (only if not more and only.exists() else root).name or "pictures"


def _root(places: Sequence[str]) -> Path:
    """Return the folder that all places lie in, whole; an empty path if none is a place here."""
    folders = []
    for place in places:
        path = Path(place).expanduser()
        if ADDRESS.match(place):
            continue
        while has_magic(str(path)) and not path.exists():
            path = path.parent
        folders.append(os.path.abspath(path.parent if path.is_file() else path))
    return Path(os.path.commonpath(folders)) if folders else Path()


def _files(place: str, leave: Path) -> Iterator[Path]:
    """Yield the files that a place means; raise UserError where there is none."""
    path = Path(place).expanduser()
    if path.resolve() == leave:
        raise UserError(f"out={leave}: must be another folder than images=")
    pattern = has_magic(place) and not path.exists()
    matches = [Path(match) for match in sorted(glob(str(path), recursive=True))]
    count = 0
    for match in matches if pattern else [path]:
        for file in _below(match, leave):
            count += 1
            yield file
    if pattern and not count:
        raise UserError(f"images={place}: no file is named so")
    if not path.exists() and not pattern:
        raise UserError(f"images={place}: there is no such folder or file")
    if not count:
        raise UserError(f"images={place}: the folder has no files")


def _below(path: Path, leave: Path) -> list[Path]:
    """Return a file, or all below a folder by name but hidden ones and what is to be left."""
    if path.is_file():
        return [] if leave in path.resolve().parents else [path]
    found = []
    for where, folders, names in os.walk(path, followlinks=True):
        shown = [name for name in folders if name[0] != "."]
        folders[:] = [name for name in shown if Path(where, name).resolve() != leave]
        found += [Path(where, name) for name in names if name[0] != "."]
    return sorted(found)


def fetch(url: str, folder: Path, taken: Sequence[Path] = ()) -> Path:
    """Fetch the file of an address into a folder, under its own name or, if taken, a longer one.

    Raises UserError where none comes, or one of more than LARGEST bytes.
    """
    print(f"fetching {url}", flush=True)
    request = Request(url, headers={"User-Agent": "segsweep"})  # some refuse Python's own
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:
            kind, content = answer.headers.get_content_type(), answer.read(LARGEST + 1)
            if answer.length and len(content) <= LARGEST:
                raise EOFError(f"cut after {len(content):,} bytes")
    except HTTPError as error:
        raise UserError(f"images={url}: the server says {error.code} {error.reason}") from error
    except (OSError, EOFError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        cure = "fetch it where there is a network, and name the file"
        raise UserError(f"images={url}: cannot be fetched ({reason}); {cure}") from error
    if kind == "text/html":
        raise UserError(f"images={url}: is a web page; give the address of its picture")
    if len(content) > LARGEST:
        raise UserError(f"images={url}: is larger than {human(LARGEST)}; fetch it, name the file")
    name = Path(_name_of(url))
    name = name if name.suffix else Path(f"{name}{mimetypes.guess_extension(kind) or ''}")
    path = folder / (f"{len(taken)}-{name}" if name in taken else name)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write_bytes(content))
    return path


def _name_of(url: str) -> str:
    """Return the last part of an address as the name of a file."""
    return file_name(unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2])
