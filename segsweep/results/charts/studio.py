"""Draws figures in processes of their own: this takes longer than all tables and needs only them.

The processes come from one that imports matplotlib while the records are still being read.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

Drawing = Callable[[], list[Path]]
"""Draws one figure and returns its files; it has to travel, as `functools.partial` does."""

MOST = 4  # processes; there are hardly more figures that take long
FORMATS = [f"matplotlib.backends.backend_{name}" for name in ("agg", "pdf", "svg")]


class Studio:
    """Where figures are drawn."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        """Draw in the processes of a pool."""
        self._pool = pool
        self._begun: list[Future[list[Path]]] = []

    def draw(self, drawings: Iterable[Drawing]) -> None:
        """Begin to draw some figures."""
        for drawing in drawings:
            self._begun.append(self._pool.submit(drawing))

    def paths(self) -> list[Path]:
        """Wait for the figures; return their files, in the order in which they were begun."""
        return [path for figure in self._begun for path in figure.result()]


@contextmanager
def studio() -> Iterator[Studio]:
    """Open a studio; it costs nothing to open one and to draw nothing."""
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["segsweep.results.charts.figures", *FORMATS])
    _ensure_running()
    pool = ProcessPoolExecutor(min(MOST, _processors()), start, initializer=_worker)
    try:
        yield Studio(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _ensure_running() -> None:
    """Start what the processes come from; like them it is deaf to Ctrl-C, which is for us."""
    resource_tracker.ensure_running()  # starting it later would lift the block
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _worker() -> None:
    """End with the parent, even if it is killed."""
    gc.disable()  # a figure is very many objects, and a worker draws few of them
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
