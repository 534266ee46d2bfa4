"""Files that survive: written whole or not at all, by rename (network file systems keep it).

What is read may be anything: a file of a folder that others wrote is checked against the shape of
its kind, and is `Damaged` where it has another.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from segsweep.base.errors import MEND, Damaged, UserError
from segsweep.base.terminal import printable

Item = TypeVar("Item")
Found = TypeVar("Found")
MOST = 2**28  # bytes of a file that is read whole
LARGEST = 1e75  # no file holds a larger number: its square and cube are numbers, too
NAME = re.compile(r"(?!\.)[\w.=+-]{1,255}")  # of a run or a file, no path
HALF_PAIR = re.compile("[\ud800-\udfff]")  # what JSON can say and no file can hold


@contextlib.contextmanager
def atomically(path: Path, mark: str = "") -> Iterator[Path]:
    """Name a temporary file beside `path` to fill; then sync it to disk and move it there.

    `mark` stands in its name for this process. Raises OSError (disk full ...) and leaves neither a
    torn file nor the temporary one behind.
    """
    mark = mark or f"{socket.gethostname()}.{os.getpid()}"
    temporary = path.with_name(f".{path.name}.{mark}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # a full disk does not say which
        raise


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file that appears whole or not at all, as `atomically` does."""
    with atomically(path) as temporary:
        write(temporary)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write text files, all of them or none: they are moved into their places when all are there.

    Raises OSError (disk full ...); the files of before stay then.
    """
    with contextlib.ExitStack() as files:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.enter_context(atomically(path)).write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return a value as JSON files hold it; NaN and infinities are refused, they are not JSON."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def file_name(text: str) -> str:
    """Return a text as a name that any system takes for a file or folder."""
    return re.sub(r"[^\w.=+ -]", "_", text)[-50:].strip(". ") or "_"


@contextlib.contextmanager
def opened(path: Path, cure: str = MEND) -> Iterator[BufferedReader]:
    """Open a file of bytes that others may have put there.

    Raises FileNotFoundError where there is none, and Damaged for what is no file that can be read:
    a directory, a loop of links, a pipe, no permission.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NO_WAIT)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "Not a file")
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(path, f"cannot be read ({error.strerror or error})", cure) from error


def read_bytes(path: Path, cure: str = MEND, most: int = MOST) -> bytes | None:
    """Read a file, None where it is absent; opened rather than asked for (NFS caches).

    Raises Damaged for what is no file that can be read, too long, or a link to nothing.
    """
    try:
        with opened(path, cure) as file:
            text = file.read(most + 1)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise Damaged(path, "is a link to what does not exist", cure) from error
        return None
    if len(text) > most:
        raise Damaged(path, f"is longer than {most} bytes", cure)
    return text


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises Damaged for what is no file."""
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, shape: Any = dict, cure: str = MEND) -> Any | None:
    """Read a JSON file, None where it is absent.

    Raises Damaged for what is no JSON, and for values of another `shape` (see `misfit`).
    """
    text = read_bytes(path, cure)
    try:
        return None if text is None else checked(text, shape)
    except ValueError as error:
        raise Damaged(path, str(error), cure) from error


def checked(text: bytes, shape: Any, nan: bool = False) -> Any:
    """Return what a JSON text holds; `nan`: it may hold numbers that are none, which are None.

    Raises ValueError with the reason where it is damaged.
    """
    try:
        value = (_lenient if nan else _strict).decode(text.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"bytes that are no UTF-8 ({error.reason} at {error.start})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"no JSON ({error})") from error
    if b"\\u" in text and HALF_PAIR.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("no text (half of a surrogate pair)")
    if fault := misfit(value, shape):
        raise ValueError(fault.removeprefix(".") if fault[0] == "." else f"it{fault}")
    return value


class Either(NamedTuple):
    """The shape of an object that has a key, and that of any other."""

    key: str
    shape: Any
    other: Any


def misfit(value: Any, shape: Any) -> str:
    """Say where a value has not this shape, `.config.seed is 'x', not int`; nothing if it has.

    A shape is a type or a union of types, a range of whole numbers, a compiled pattern of texts,
    `[shape]` for a list (`[shape, shape]` for one of two items), `(shape, None)` for what may be
    null, `Either` for two kinds of objects, or a dict of shapes by key: `"key?"` may be absent,
    `...` stands for all that are not named. A whole number is a float, too; a truth value is none.
    """
    if isinstance(shape, Either):
        there = isinstance(value, dict) and shape.key in value
        return misfit(value, shape.shape if there else shape.other)
    if isinstance(shape, tuple):
        return "" if value is None else misfit(value, shape[0])
    if isinstance(shape, dict):
        return _misfit_object(value, shape)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _other(value, "list")
        if len(shape) not in (1, len(value)):
            return _other(value, f"{len(shape)} items")
        shapes = shape if len(shape) > 1 else shape * len(value)
        faults = ((i, misfit(v, s)) for i, (v, s) in enumerate(zip(value, shapes, strict=True)))
        return next((f"[{i}]{fault}" for i, fault in faults if fault), "")
    if isinstance(shape, re.Pattern):
        fits = isinstance(value, str) and shape.fullmatch(value)
        return "" if fits else _other(value, "a plain name")
    if isinstance(shape, range):
        fits = type(value) is int and value in shape
        return "" if fits else _other(value, f"a whole number from {shape.start} on")
    return "" if type(value) in _types(shape) else _other(value, getattr(shape, "__name__", shape))


def _misfit_object(value: Any, shape: dict[Any, Any]) -> str:
    if not isinstance(value, dict):
        return _other(value, "object")
    if ... in shape:
        shape = dict.fromkeys(value, shape[...]) | {k: s for k, s in shape.items() if k is not ...}
    for key, below in shape.items():
        name = key if key in value else key.removesuffix("?")
        if name in value:
            if fault := misfit(value[name], below):
                return f".{name}{fault}"
        elif name == key:
            return f" has no {name!r}"
    return ""


@cache
def _types(shape: Any) -> set[type]:
    kinds = {*getattr(shape, "__args__", (shape,))}
    return kinds | {int} if float in kinds else kinds


def tail(path: Path, size: int, whole: bool = False) -> list[bytes]:
    """Return the non-empty lines among the last `size` bytes of a file, `whole`: ended ones."""
    try:
        with opened(path) as file:
            start = max(0, file.seek(0, os.SEEK_END) - size)
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return []
    lines = (text.rpartition(b"\n")[0] if whole else text).split(b"\n")[1 if start else 0 :]
    return [line for line in lines if line.strip()]


def sound(
    items: Iterable[Item], read: Callable[[Item], Found], fault: type[UserError] = Damaged
) -> Iterator[tuple[Item, Found]]:
    """Yield items with what is read of each; name a damaged one on stderr, and go on."""
    for item in items:
        try:
            found = read(item)
        except fault as error:
            print(f"skipped {printable(str(error))}", file=sys.stderr, flush=True)
            continue
        yield item, found


def _other(value: Any, wanted: object) -> str:
    text = repr(value)
    wanted = str(wanted).replace("dict", "object")
    return f" is {text if len(text) < 60 else text[:57] + '...'}, not {wanted}"


def _number(text: str, kind: Callable[[str], Any] = float) -> Any:
    if not -LARGEST <= float(text) <= LARGEST:
        raise ValueError(f"{text[:20]} is no number of a run")
    return kind(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe in place of a file must not hold up a verb
_decoder = partial(json.JSONDecoder, parse_float=_number, parse_int=partial(_number, kind=int))
_strict, _lenient = _decoder(parse_constant=_no_number), _decoder(parse_constant=lambda _: None)
