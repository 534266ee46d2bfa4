"""What verbs print: aligned columns, durations, sizes."""

from __future__ import annotations

import math
import re
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")
QUIET = 30.0  # seconds between two lines where there is no terminal
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
COMMANDS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]")
UNSEEN = re.compile(  # controls but tab and line feed, marks of writing direction, half characters
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text of a file, or of anybody's error, without what a terminal would obey.

    Left out are commands to the terminal (colours, titles, moves of the cursor), other control
    characters and those that turn the direction of writing; a carriage return ends a line.
    """
    text = COMMANDS.sub("", text.replace("\r\n", "\n")).replace("\r", "\n")
    return UNSEEN.sub("", text)


def printer(width: int = 200, highlight: bool = True) -> Console:
    """Return the console of stdout; a file or a pipe has no edge, but so many columns."""
    from rich.console import Console

    console = Console(highlight=highlight)
    return console if console.is_terminal else Console(width=width, highlight=highlight)


def share(text: str) -> float:
    """Return a number from 0 to 1; argparse makes a ValueError a clear sentence."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} must lie in [0, 1]")
    return value


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row with equal columns; a column that is empty everywhere is left out."""
    rows = [[" ".join(printable(text).splitlines()) for text in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True) if w).rstrip()
        for row in rows
    ]


def watched(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    """Yield items and tell of it on stderr: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, title, total, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() > last + QUIET:
            last = time.monotonic()
            print(f"{title}: {done}/{total}", file=sys.stderr, flush=True)
        yield item


def shared(settings: Sequence[Sequence[str]]) -> list[str]:
    """Return the words that all of several settings have: what tells none from another."""
    if len(settings) < 2:
        return []
    return [word for word in settings[0] if all(word in words for words in settings)]


def duration(seconds: float) -> str:
    """Return a time span in two units at most: `1 h 05 min`."""
    minutes = max(0, round(seconds / 60))
    if minutes < 1:
        return f"{max(0, seconds):.0f} s"
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours:02} h"
    return f"{hours} h {minutes % 60:02} min" if hours else f"{minutes} min"


def human(size: float) -> str:
    """Return a size of so many bytes in the unit that suits it: `3.2 MiB`."""
    power = min(int(math.log2(max(size, 1))) // 10, len(UNITS) - 1)
    return f"{size / 2 ** (10 * power):.{1 if power else 0}f} {UNITS[power]}"
