"""Warnings as plain lines, where Python would print them with a line of somebody's source.

`warnings.warn` stays what warns, in our files as in those of others; here is how it looks.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from importlib.abc import MetaPathFinder

from segsweep.base.terminal import printable

TALK = (  # of libraries, about what is deliberate here or regards nobody who uses it
    r".*before the epoch ended.*",
    r".*LeafSpec.*",
    r".*in eval mode at the start.*",
    r".*`srun` command is available.*",
    r".*does not have many workers.*",
    r".*have no `val_dataloader`.*",
    r".*Tensor Cores.*",
    r".*Sparse invariant checks.*",
)


class Lines:
    """Prints each warning once, in place of `warnings.showwarning`."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *_: object) -> None:
        """Print a warning to users whole, and one to programmers as its first line."""
        lines = printable(str(message)).strip().splitlines()
        text = "\n  ".join(lines if issubclass(category, UserWarning) else lines[:1])
        if text not in self.told:
            self.told.add(text)
            print(f"warning: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Print warnings as lines while inside, and leave out the talk of libraries."""
    if isinstance(warnings.showwarning, Lines):
        yield
        return
    with warnings.catch_warnings():
        for message in TALK:
            warnings.filterwarnings("ignore", message)
        warnings.showwarning = Lines()
        yield


class _Torch(MetaPathFinder):
    """Is asked for every import before it is done; finds nothing."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "torch" and self in sys.meta_path:
            sys.meta_path.remove(self)
            print("loading torch ...", file=sys.stderr, flush=True)


@contextlib.contextmanager
def loading_told() -> Iterator[None]:
    """Say on a terminal that torch is being loaded, when it is: this takes seconds."""
    asked = _Torch()
    if sys.stderr.isatty():
        sys.meta_path.insert(0, asked)
    try:
        yield
    finally:
        if asked in sys.meta_path:
            sys.meta_path.remove(asked)
