"""Several runs in one process that pay once for what they share: `hydra.launcher.pack`.

Each run of a pack is whole: a thread with its model, optimizer, folder, log and checkpoints, which
does to the last bit what it does alone. The threads take turns (`base/turns.py`): a run hands on
where it asks for its next batch, and the one that is furthest behind goes on. So all of them are at
the same batch, which the first one loads. What the steps of the backbone at rest give for it is
computed by the first that needs it, and kept until the next batch is loaded. Nothing is assumed of
the others: a state serves a run whose steps have the same weights and whose images are equal.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.base.remarks import plainly
from segsweep.base.signals import Stopped, wish
from segsweep.base.turns import Member, Place, Turns, member
from segsweep.data.loader import Batch
from segsweep.model.backbones.base import State, Step, computed
from segsweep.model.segmenter import Segmenter
from segsweep.model.weights import content_hash
from segsweep.run.alike import alike
from segsweep.run.identity import Run
from segsweep.run.machine import device_of

END = math.inf  # the step at which runs are evaluated: behind all of training
LOG = "log.txt"


class Shared:
    """What the runs of a pack have in common."""

    def __init__(self) -> None:
        self.at: tuple[str, int] | None = None  # loader and number of the batch
        self.batch: Batch
        self.states: list[tuple[str, Tensor, State]] = []  # steps, images, what these become
        self.readers: dict[str, tuple[int, Iterator[Batch]]] = {}  # by loader: next one, the rest
        self.weights: dict[str, Tensor] = {}  # frozen ones, by name

    def load(self, name: str, i: int, opened: Callable[[int], Iterator[Batch]]) -> Batch:
        """Return batch `i` of a loader; nobody needs the one before and its states any more."""
        if self.at != (name, i):
            following, reader = self.readers.get(name, (None, iter(())))
            batch = next(reader, None) if following == i else None
            if batch is None:
                batch = next(reader := opened(i))
            self.readers[name] = i + 1, reader
            self.at, self.batch, self.states = (name, i), batch, []
        return self.batch

    def adopt(self, model: nn.Module) -> None:
        """Let frozen weights that are equal be the same memory."""
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                continue
            known = self.weights.setdefault(name, weight.data)
            if known.shape == weight.shape and torch.equal(known, weight.data):
                weight.data = known


class PackMember(Member):
    """A run of a pack."""

    def __init__(self, shared: Shared, turns: Turns, number: int, output: TextIO) -> None:
        super().__init__(turns, number, output)
        self.shared = shared
        self.compute: Callable[[list[Step], Tensor], State] = computed
        self.hashes: dict[int, str] = {}  # of the weights of so many steps, which are frozen

    def states(self, steps: list[Step], images: Tensor) -> State:
        """(B, 3, H, W) -> their state (B, ...) after the steps, by whoever came first"""
        count = len(steps)
        if count not in self.hashes:
            modules = nn.ModuleList(nn.ModuleList(step.modules) for step in steps)
            self.hashes[count] = f"{count} {content_hash(modules.state_dict())}"
        key = self.hashes[count]
        for known, seen, state in self.shared.states:
            if known == key and seen.shape == images.shape and torch.equal(seen, images):
                return state
        state = self.compute(steps, images)
        self.shared.states.append((key, images, state))
        return state


def join(model: Segmenter, run: Run) -> None:
    """Let a model share what it can, where its run is one of a pack."""
    here = member()
    if isinstance(here, PackMember):
        here.shared.adopt(model.to(device_of(run.config.trainer)))
        here.compute = model.feature_cache or computed
        model.feature_cache = here.states


def in_turn(
    name: str, span: range, step: float | None, opened: Callable[[int], Iterator[Batch]]
) -> Iterator[Batch]:
    """Yield the batches `span` of a loader, in a pack in turn with its other runs.

    Args:
        name: of the loader, the same for all runs.
        step: before which an evaluation is; None of training, whose batches are its steps.
        opened: gives the batches from a number on.
    """
    here = member()
    if not isinstance(here, PackMember):
        yield from opened(span.start)
        return
    for i in span:
        place: Place = (i, 1) if step is None else (step, 0, i)
        if step == END and wish.asked is not None:  # nothing of it would be kept
            raise Stopped(wish.asked)
        here.wait(place)
        yield here.shared.load(name, i, opened)


def train_pack(runs: Sequence[Run], train: Callable[[Run], Any]) -> bool:
    """Train runs in turns, each once; say whether all have ended well.

    One that fails leaves the pack, the others go on. A signal stops all of them, each with a
    checkpoint, and is raised as `Stopped`.

    Raises UserError for runs that cannot share their batches.
    """
    if len({alike(run.config) for run in runs}) > 1:
        raise UserError(
            "runs of a pack must have one model, data set, seed, batch size and trainer; "
            "train the others apart"
        )
    shared, turns, failed = Shared(), Turns(len(runs)), []
    with plainly(), wish.listening(), contextlib.ExitStack() as logs, _heard():
        wish.training = True  # runs look at it between two batches
        threads = []
        for number, run in enumerate(runs):
            run.directory.mkdir(parents=True, exist_ok=True)
            log = logs.enter_context((run.directory / LOG).open("a", buffering=1))
            here = PackMember(shared, turns, number, log)
            threads.append(threading.Thread(target=_train, args=(here, run, train, failed)))
        for thread in threads:
            thread.daemon = True  # a second Ctrl-C waits for nobody
            thread.start()
        _joined(threads)
        if wish.asked is not None:
            raise Stopped(wish.asked)
    return not failed


def _train(here: PackMember, run: Run, train: Callable[[Run], Any], failed: list[Run]) -> None:
    """Train one run in this thread."""
    try:
        here.enter()
        if wish.asked is None:
            run.once(train)
    except BaseException as error:
        failed.append(run)
        if not isinstance(error, Stopped):
            traceback.print_exc(file=here.output)
    finally:
        here.turns.leave(here.number)


def _joined(threads: Sequence[threading.Thread]) -> None:
    """Wait for threads; the first signal waits with us, whatever the runs are doing."""
    with contextlib.suppress(Stopped):
        for thread in threads:
            thread.join()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Give this process its own voice back in the end."""
    voices = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = voices
