"""Threads that take turns: exactly one runs, until it says where it goes on next.

Whoever is furthest behind has the turn. So nothing is left to chance: what the threads do, and in
which order, is the same every time, and what they share needs no locks.
"""

from __future__ import annotations

import sys
import threading
import time
from contextvars import ContextVar
from typing import TextIO

Place = tuple[float, ...]
"""Where a member is: places are compared, and the least has the turn. Before all: ()."""


class Turns:
    """Who has the turn among the members that are left, numbered from 0 on."""

    def __init__(self, members: int) -> None:
        self.places: dict[int, Place] = dict.fromkeys(range(members), ())
        self.changed = threading.Condition()

    def wait(self, number: int, place: Place) -> None:
        """Hand the turn on, come back when all others are at this place or behind it."""
        with self.changed:
            self.places[number] = place
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.next() == number)

    def leave(self, number: int) -> None:
        """Hand the turn on for good."""
        with self.changed:
            del self.places[number]
            self.changed.notify_all()

    def next(self) -> int:
        """Return who has the turn."""
        return min(self.places, key=lambda number: (self.places[number], number))


class Member:
    """One of those that take turns: its thread, what it says, and how long it waited."""

    def __init__(self, turns: Turns, number: int, output: TextIO) -> None:
        self.turns, self.number, self.output = turns, number, output
        self.waited = 0.0  # seconds

    def enter(self) -> None:
        """Become the member of this thread, and wait for its first turn."""
        _member.set(self)
        self.wait(())

    def wait(self, place: Place) -> None:
        """Hand the turn on until it is this member's at a place; from then on it is heard."""
        begun = time.perf_counter()
        self.turns.wait(self.number, place)
        self.waited += time.perf_counter() - begun
        sys.stdout = sys.stderr = self.output


_member: ContextVar[Member | None] = ContextVar("member", default=None)


def member() -> Member | None:
    """Return whose thread this is; None where nobody takes turns."""
    return _member.get()


def clock() -> float:
    """Return a time in seconds that stands still while others have the turn."""
    here = member()
    return time.perf_counter() - (here.waited if here else 0.0)
