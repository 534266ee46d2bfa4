"""A process that has imported what runs need, and forks them: each starts at once.

    launcher --> server    {"number": 0, "words": [...], "environment": {...}, "log": PATH}
    launcher <-- server    {}  (it is ready), {"number": 0, "pid": 17}, {"number": 0, "status": 0}

What is forked becomes `python -m segsweep` with these words, a process and a session of its own:
its crash takes nothing else. When the server forks it has no threads but those of libraries that
see to it themselves (OpenBLAS), and has not touched a GPU. It ends when its launcher has; its runs
go on. Where there is none, runs are started as whole processes.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from segsweep.base.process import process_started
from segsweep.base.remarks import plainly
from segsweep.base.signals import CHILD, SIGNALS

TICK = 0.05  # seconds between two looks of the server at its children


class Starter:
    """Starts runs; the first one waits until all is imported.

    threads: that each run computes with, unless the environment says it.
    """

    def __init__(self, threads: int) -> None:
        self.environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | {CHILD: "1"}
        self.server: subprocess.Popen[bytes] | None = None
        self.channel, self.theirs = socket.socketpair()
        self.ready = self.gone = False
        self.heard = b""
        self.pids: list[int] = []  # of what was forked, by number
        self.statuses: dict[int, int] = {}  # of those of them that have ended

    def __enter__(self) -> Starter:
        """Wait for the first run: the server is started when it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the server, not what it has started."""
        self.channel.close()
        self.theirs.close()
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def start(
        self, words: list[str], environment: dict[str, str], log: Path
    ) -> Forked | subprocess.Popen[bytes]:
        """Start `segsweep` with words; what it says is appended to a log."""
        with log.open("ab") as file:
            if sys.platform == "linux":  # elsewhere libraries do not outlive a fork
                with contextlib.suppress(ConnectionError):
                    return self._fork(words, environment, log)
            return subprocess.Popen(
                [sys.executable, "-u", "-m", "segsweep", *words],
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _fork(self, words: list[str], environment: dict[str, str], log: Path) -> Forked:
        """Let the server fork. Raises ConnectionError where it is gone."""
        self._serve()
        while not self.ready:
            self.hear(wait=True)
        number, place = len(self.pids), str(log.absolute())
        asked = {"number": number, "words": words, "environment": environment, "log": place}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a run is never without a number
        try:
            self.channel.sendall(json.dumps(asked).encode() + b"\n")
            while len(self.pids) == number:
                self.hear(wait=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return Forked(number, self)

    def _serve(self) -> None:
        """Start the server, once."""
        if self.server is None:
            self.server = subprocess.Popen(
                [sys.executable, "-u", "-m", "segsweep.sweeps.warm", str(self.theirs.fileno())],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[self.theirs.fileno()],
                start_new_session=True,
            )
            self.theirs.close()

    def hear(self, wait: bool = False) -> None:
        """Take in what the server has said. Raises ConnectionError where one waits and it is gone.

        A server that was never started has said nothing.
        """
        if wait and self.gone:
            raise ConnectionError("the process that starts runs is gone")
        while not self.gone and select.select([self.channel], [], [], None if wait else 0)[0]:
            said, wait = b"", False
            with contextlib.suppress(ConnectionError):
                said = self.channel.recv(1 << 16)
            self.gone = not said
            *lines, self.heard = (self.heard + said).split(b"\n")
            for line in map(json.loads, lines):
                self.ready = True
                if "pid" in line:
                    self.pids.append(line["pid"])
                elif "status" in line:
                    self.statuses[line["number"]] = line["status"]


class Forked:
    """A process that the server has forked, to be asked as one of `subprocess`."""

    def __init__(self, number: int, starter: Starter) -> None:
        self.number, self.starter = number, starter
        self.pid = starter.pids[number]

    @property
    def returncode(self) -> int | None:
        """The exit status, negative of a signal; None while it runs, 1 if nobody can tell it."""
        known = self.starter.statuses
        if self.number not in known and self.starter.gone and process_started(self.pid) is None:
            known[self.number] = 1
        return known.get(self.number)

    def poll(self) -> int | None:
        """Ask for the exit status."""
        self.starter.hear()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Tell it something, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its end is not told yet
                os.kill(self.pid, signum)


def load() -> None:
    """Import what runs import, and keep which code that is."""
    import segsweep.analysis.study
    import segsweep.run.evaluate
    import segsweep.run.features
    import segsweep.run.fit
    import segsweep.story  # noqa: F401
    from segsweep.run.identity import git, versions

    import_module("segsweep.verbs.work")
    git()
    versions()
    gc.collect()
    gc.freeze()  # what was imported is shared with all runs, and no collection looks through it


def main() -> None:
    """Serve the launcher at the other end of a socket; then be what was asked for, in a child."""
    with socket.socket(fileno=int(sys.argv[-1])) as channel:
        with plainly():
            load()
        asked = serve(channel)
    if asked is not None:
        become(asked["words"], asked["environment"], asked["log"])


def serve(channel: socket.socket) -> dict[str, Any] | None:
    """Fork whenever the launcher asks, until it leaves; return in each child what it shall do."""

    def tell(said: dict[str, int]) -> None:
        with contextlib.suppress(ConnectionError):
            channel.sendall(json.dumps(said).encode() + b"\n")

    tell({})
    numbers: dict[int, int] = {}
    with channel.makefile("rb") as requests:
        while True:
            if select.select([channel], [], [], TICK)[0]:
                if not (line := requests.readline()):
                    return None
                asked = json.loads(line)
                if not (pid := os.fork()):
                    return asked
                numbers[pid] = asked["number"]
                tell({"number": asked["number"], "pid": pid})
            for pid, status in ended():
                tell({"number": numbers.pop(pid), "status": status})


def ended() -> Iterator[tuple[int, int]]:
    """Yield the children that have ended, and their exit statuses."""
    with contextlib.suppress(ChildProcessError):  # there is none
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], os.waitstatus_to_exitcode(found[1])


def become(words: list[str], environment: dict[str, str], log: str) -> None:
    """Go on as `python -m segsweep` with these words, in a session of its own."""
    os.setsid()
    os.environ |= environment
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    atexit.register(gc.unfreeze)  # libraries count at the end what they gave away
    sys.argv = ["segsweep", *words]
    runpy.run_module("segsweep", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
