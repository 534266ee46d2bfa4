"""Processes that own a directory, made to take turns at every step that touches it.

A child announces each look at a file (Python's audit events) and waits for leave to do it, so that
a schedule says exactly who sleeps where. `python tests/interleaved.py FOLDER` tries many schedules
and prints what came out, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segsweep.base.owner import Busy, owned

STEPS = {"open", "os.link", "os.rename", "os.remove", "os.listdir", "os.scandir", "os.mkdir"}
OWNS, BUSY, LOST, DONE = "owns", "busy", "lost", "done"
MOST = 7  # steps until a sleep: reading, renaming and linking are among the first


class Child:
    """A process that works on a directory step by step."""

    def __init__(self, directory: Path, work: Callable[[Callable[[str], None]], str]) -> None:
        leave, self.leave = os.pipe()
        self.words, said = os.pipe()
        self.ended = ""
        self.pid = os.fork()
        if self.pid:
            os.close(leave)
            os.close(said)
            self.wait()
            return
        os.close(self.leave)
        os.close(self.words)

        def pause(word: str) -> None:
            os.write(said, f"{word}\n".encode())
            os.read(leave, 1)

        def step(event: str, details: tuple) -> None:
            if event in STEPS and any(str(directory) in str(detail) for detail in details):
                pause(event)

        sys.addaudithook(step)
        try:
            pause(work(pause))
        finally:
            os._exit(0)

    def wait(self) -> None:
        """Wait for the next word; whatever is no step is an end."""
        word = b""
        while not word.endswith(b"\n"):
            part = os.read(self.words, 1)
            assert part, "a child died"
            word += part
        text = word.decode().strip()
        self.ended = "" if text in STEPS else text

    def go(self, steps: int = 1000) -> str:
        """Let it do some steps; return how it ended, if it did."""
        while steps and not self.ended:
            steps -= 1
            os.write(self.leave, b".")
            self.wait()
        return self.ended

    def kill(self) -> None:
        """End it, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.leave)
        os.close(self.words)


def owner(directory: Path) -> Callable[[Callable[[str], None]], str]:
    """Own the directory until killed."""

    def work(pause: Callable[[str], None]) -> str:
        try:
            with owned(directory):
                pause(OWNS)
        except Busy:
            return BUSY
        return DONE

    return work


@contextmanager
def children(directory: Path, *works: Callable) -> Iterator[list[Child]]:
    """Start children, and end them."""
    started: list[Child] = []
    try:
        for work in works:
            started.append(Child(directory, work))
        yield started
    finally:
        for child in started:
            child.kill()


def three_at_once(folder: Path) -> Iterator[dict]:
    """A and B sleep somewhere on their way, C does not; a dead process owned it before."""
    with children(folder / "dead", owner(folder / "dead")) as (dead,):
        assert dead.go() == OWNS
    turns = itertools.product(range(MOST), (MOST - 5, 1000), range(MOST))
    for number, (first, second, third) in enumerate(turns):
        shutil.copytree(folder / "dead", directory := folder / f"{number}")
        with children(directory, *[owner(directory)] * 3) as (a, b, c):
            a.go(first)
            b.go(second)
            a.go(third)
            ends = [c.go(), b.go(), a.go()]
        yield {"turns": [first, second, third], "ends": sorted(ends)}


def host(name: str) -> None:
    """Be a process of another machine."""
    socket.gethostname = lambda: name


def replaced_while_writing(folder: Path) -> Iterator[dict]:
    """A sleeps somewhere while it writes; B, elsewhere, takes over and writes; A wakes up."""
    from segsweep.base.owner import LostOwnership, beat_of

    def writer(directory: Path, name: str) -> Callable[[Callable[[str], None]], str]:
        def work(pause: Callable[[str], None]) -> str:
            host(name)
            try:
                with (
                    owned(directory, silent=beat_of(directory)) as mine,
                    mine.atomically(directory / "file") as temporary,
                ):
                    temporary.write_text(name)
            except LostOwnership:
                return LOST
            return DONE

        return work

    for steps in itertools.count():
        (directory := folder / f"{steps}").mkdir()
        with children(directory, writer(directory, "a")) as (a,):
            if a.go(steps) == DONE:
                return
            with children(directory, writer(directory, "b")) as (b,):
                b_ends = b.go()
            ends = [a.go(), b_ends]
        files = sorted(path.name for path in directory.iterdir())
        yield {
            "steps": steps,
            "ends": ends,
            "text": (directory / "file").read_text(),
            "files": files,
        }


if __name__ == "__main__":
    script = {"three": three_at_once, "replaced": replaced_while_writing}[sys.argv[1]]
    print(json.dumps(list(script(Path(sys.argv[2])))))
