"""Being told to stop: by a person (SIGINT), a machine (SIGTERM), a time limit (SIGUSR2).

A run that is told to stop outside training ends at once; while it trains, it ends between two
batches, with a checkpoint (segsweep/run/callbacks.py). Either way `Stopped` is raised, whose exit
status is that of a process killed by the signal. Only a time limit that comes before the first step
is a failure: requeued, the run would never get further.

What follows is SLURM's decision. A time limit: the batch script requeues a job that ends with 140.
SIGTERM (preempted, cancelled, drained): SLURM ends the job and requeues it or not. A job that left
before would read COMPLETED or FAILED and never come back, so it waits to be ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from segsweep.base.owner import LostOwnership

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
CHILD = "SEGSWEEP_CHILD"  # set for processes whose parent does what SLURM expects
PARKED = 900  # seconds after which nobody means to end the job any more


class Stopped(SystemExit):
    """Told to stop, and stopped; the exit status says by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"told to stop by {signal.Signals(self.signum).name}"


class TooShort(Exception):
    """The time limit came before the first step: requeueing would go on for ever."""

    def __init__(self) -> None:
        super().__init__("the time limit came before the first step: hydra.launcher.time is short")


class Wish:
    """The wish to stop, which a process is told by a signal."""

    pid = 0  # of the process that listens
    asked: int | None = None
    training = False  # somebody looks at `asked` between two batches
    trained = False  # or did before

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Turn signals into `Stopped` while inside; in a thread there is nothing to take over.

        Whatever leaves the block after a signal leaves it as `Stopped`: libraries make of it what
        they like. Who lost what it owned ends as such, however often it was told to stop. Inside
        another such block of this process, that one listens.
        """
        within = self.pid == os.getpid()
        before = {} if within else {signum: signal.getsignal(signum) for signum in SIGNALS}
        try:
            if not within:
                self.pid, self.asked = os.getpid(), None
                self.training = self.trained = False
                self.take()
            yield
        except BaseException as error:
            if self.asked is not None and not isinstance(error, Stopped | LostOwnership):
                raise Stopped(self.asked) from error
            raise
        finally:
            with contextlib.suppress(ValueError):
                for signum, handler in before.items():
                    signal.signal(signum, handler)
            if not within:
                self.pid, self.asked = 0, None

    def train(self) -> None:
        """Leave it to the trainer to look at `asked`, until `training` is false again."""
        self.take()
        self.training = self.trained = True

    def take(self) -> None:
        """Take the signals over; not where nobody listens."""
        with contextlib.suppress(ValueError):
            for signum in SIGNALS if self.pid else ():
                signal.signal(signum, self.hear)

    def hear(self, signum: int, frame: Any) -> None:
        """Stop now, or leave it to the end of the batch; a second Ctrl-C does not wait."""
        if os.getpid() != self.pid:  # a process that loads data: its parent decides
            return
        if signum == signal.SIGUSR2 and not self.trained:
            raise TooShort
        first, self.asked = self.asked is None, signum
        if signum == signal.SIGINT if not first else not self.training:
            raise Stopped(signum)
        if first:
            hint = " (Ctrl-C again stops at once)" if signum == signal.SIGINT else ""
            print(f"\n{signal.Signals(signum).name}: stopping after this step{hint}", flush=True)


wish = Wish()  # signals are told to a process, not to an object


def leave(stopped: Stopped) -> None:
    """Do what SLURM expects of a job that was told to stop; elsewhere nothing."""
    if "SLURM_JOB_ID" not in os.environ or CHILD in os.environ or os.isatty(0):
        return
    if stopped.signum == signal.SIGUSR2:
        handler = signal.getsignal(signal.SIGUSR2)
        if callable(handler):  # of submitit's own launchers: it requeues
            handler(signal.SIGUSR2, None)
    elif stopped.signum == signal.SIGTERM:
        for signum in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(signum, signal.SIG_IGN)
        print("waiting for SLURM to end this job, and to requeue it if it means to", flush=True)
        time.sleep(PARKED)
        raise Stopped(signal.SIGUSR2)  # nobody did: go on in a new attempt


def deaf(*_: object) -> None:
    """Leave signals to the parent: for processes that load data.

    SLURM tells every process of a job; a loader that dies of it ends a batch in the middle. The
    parent's own SIGTERM is how it ends its children, and still does.
    """
    for signum in (signal.SIGINT, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere one cannot ask who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_until_ended, daemon=True).start()


def _until_ended() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
