"""Progress of many runs: lines that move on a terminal, lines that stay everywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segsweep.base.errors import Damaged
from segsweep.base.files import tail
from segsweep.base.terminal import printable
from segsweep.run.identity import State
from segsweep.run.shapes import failure_of, reason
from segsweep.sweeps.status import status

EVERY = 60  # seconds between two summaries where nothing moves
ROWS = 20  # running ones that a terminal shows


class Board:
    """Shows which of some runs wait, run and have ended; `labels` say what they are to a reader."""

    def __init__(self, labels: Mapping[Path, str]) -> None:
        self.labels = labels
        self.running: set[Path] = set()
        self.elsewhere: set[Path] = set()
        self.ended: dict[Path, State] = {}
        self.console = Console(highlight=False, soft_wrap=True)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.last_summary = time.monotonic()

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.live.stop()

    def begin(self, run: Path) -> None:
        """Note that a run trains now."""
        if run not in self.running:
            self.running.add(run)
            if run not in self.elsewhere:
                self.say("started", run)

    def leave(self, run: Path) -> None:
        """Note that somebody else trains a run."""
        self.running.discard(run)
        if run not in self.elsewhere:
            self.elsewhere.add(run)
            self.say("elsewhere", run, "another process trains it, and is waited for")

    def end(self, run: Path, state: State) -> None:
        """Note how a run ended."""
        if run not in self.ended:
            self.running.discard(run)
            self.ended[run] = state
            self.say(state.value, run, last_words(run) if state is not State.DONE else score(run))

    def say(self, word: str, run: Path, details: str = "") -> None:
        """Print a line that stays."""
        count = f"[{len(self.ended)}/{len(self.labels)}]"
        line = f"{count} {word:11} {run.name}  {self.labels[run]}"
        self.console.print(Text(f"{line}\n{' ' * 4}{details}" if details else line))

    def tick(self) -> None:
        """Show how far the running ones are: now on a terminal, now and then elsewhere."""
        if self.console.is_terminal:
            self.live.update(Group(*self.rows()), refresh=True)
        elif time.monotonic() - self.last_summary > EVERY:
            self.last_summary = time.monotonic()
            self.console.print(Text(self.summary()))

    def rows(self) -> list[Table | Text]:
        """Return a table of the running ones and the summary."""
        table = Table.grid(padding=(0, 2))
        for run in sorted(self.running)[:ROWS]:
            table.add_row(run.name, self.labels[run], progress(run))
        return [table, Text(self.summary())]

    def summary(self) -> str:
        """Return how many runs wait, run and have ended."""
        states = list(self.ended.values())
        counts = [f"{len(self.running)} running"] if self.running else []
        counts += [f"{states.count(state)} {state.value}" for state in State if state in states]
        waiting = len(self.labels) - len(self.running) - len(states)
        counts += [f"{waiting} waiting"] if waiting else []
        return f"{len(self.labels)} runs: {', '.join(counts)}"


def progress(run: Path) -> str:
    """Return epoch and metric of a running one."""
    now = status(run)
    parts = [f"epoch {now.epoch:g}/{now.epochs}"] if now.epoch is not None else ["setting up"]
    parts += [f"{now.metric} {now.value:.2f}"] if now.value is not None else []
    return "  ".join(parts)


def score(run: Path) -> str:
    """Return the key metric of a finished run and how long it took."""
    now = status(run)
    if now.value is None:
        return ""
    return f"{now.metric} {now.value:.2f}" + (f" in {now.seconds:.0f} s" if now.seconds else "")


def last_words(run: Path) -> str:
    """Return why a run ended early: its error, else the last line that it printed."""
    try:
        said = reason(failure_of(run) or {})
        last = [line.decode(errors="replace") for line in tail(run / "log.txt", 1 << 12)[-1:]]
        return printable(said or "".join(last))
    except Damaged as damage:
        return str(damage)
