"""Where states of images are kept: in the memory of a process, or as files.

Where room ends, the entries used least recently go, but never one that the present run has used:
each epoch needs all of them again, so dropping one to keep another would gain nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from segsweep.base.errors import UserError
from segsweep.base.files import write_atomically
from segsweep.model.backbones.base import State

GIB, MIB = 2**30, 2**20
HEX = "[0-9a-f]"
CHECK = "crc32"  # entry of a file beside its tensors


class Memory:
    """Entries of all runs of this process. Default room: half of the free memory."""

    kept: ClassVar[OrderedDict[str, State]] = OrderedDict()  # least recently used first
    where = "memory"

    def __init__(self, room: int | None, processes: int = 1) -> None:
        held = sum(map(size_of, self.kept.values()))
        self.room = ((free_memory() + held) // 2 if room is None else room) // processes
        self.left = self.room - held
        self.used: set[str] = set()

    def count(self, folder: str) -> int:
        """Entries of a folder."""
        return sum(key.startswith(folder) for key in self.kept)

    def get(self, key: str) -> State | None:
        """Return an entry."""
        if key in self.kept:
            self.used.add(key)
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key: str, state: State) -> None:
        """Keep an entry, if there is or can be made room."""
        while self.left < size_of(state) and self.kept:
            oldest = next(iter(self.kept))
            if oldest in self.used:
                return
            self.left += size_of(self.kept.pop(oldest))
        if self.left >= size_of(state):
            self.left -= size_of(state)
            self.used.add(key)
            self.kept[key] = state


class Disk:
    """Entries as files `<root>/<folder>/<key>.safetensors`. Default room: half of the free space.

    Files appear whole and are read at once, so any number of processes may write, read and drop
    them; those that write at the same time may exceed the room by what each adds between two looks
    at the folder. Raises UserError if the root cannot be made.
    """

    def __init__(self, root: Path, room: int | None) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(root).free
        except OSError as error:
            raise UserError(
                f"io.features={root}: {error.strerror}; name a folder that can be written, or "
                "choose trainer.cache_features=memory"
            ) from error
        self.root, self.where, self.begun = root, str(root), time.time()
        held = sum(size for _, size, _ in self._files())
        self.room = (free + held) // 2 if room is None else room
        self.left = 0  # bytes that may be written before looking at the folder again
        self.full = False

    def count(self, folder: str) -> int:
        """Entries of a folder."""
        return sum(1 for _ in (self.root / folder).glob("*.safetensors"))

    def get(self, key: str) -> State | None:
        """Return an entry. A damaged file is taken away, with a warning."""
        path = self.root / f"{key}.safetensors"
        try:
            # never mapped: a file that another machine removes would end this process
            state = unpacked(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SafetensorError) as error:
            print(f"warning: {path} is damaged ({error}); computed again", flush=True)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        _touch(path)
        return state

    def put(self, key: str, state: State) -> None:
        """Keep an entry, if there is or can be made room; a full disk ends keeping."""
        if self.full:
            return
        path, content = self.root / f"{key}.safetensors", packed(state)
        try:
            if len(content) > self.left:
                self.left = self._make_room(len(content))
            if len(content) > self.left:
                self._stop(f"no room is left in {self.root} (io.features_gib)")
                return
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, lambda temporary: temporary.write_bytes(content))
            _touch(path)
            self.left -= len(content)
        except OSError as error:
            self._stop(f"{path} cannot be written ({error.strerror})")

    def _stop(self, reason: str) -> None:
        self.full = True
        print(f"warning: {reason}; more features are computed each time", flush=True)

    def _make_room(self, size: int) -> int:
        """Drop what nobody has used since this run began; return bytes that may be written."""
        some, files = max(size, self.room // 16), sorted(self._files())
        left = self.room - sum(held for _, held, _ in files)
        for when, held, path in files:
            if left >= some or when >= self.begun:
                break
            path.unlink(missing_ok=True)
            left += held
        return min(left, some)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Last use, size and path of all that this class writes, killed writers' files as well."""
        for path in self.root.glob(f"{HEX * 16}/*{HEX * 32}.safetensors*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path


def _touch(path: Path) -> None:
    """Note the use of a file, by this machine's clock, where that is allowed."""
    now = time.time()
    with contextlib.suppress(OSError):
        os.utime(path, (now, now))


def size_of(state: State) -> int:
    """Bytes of an entry."""
    return sum(tensor.nbytes for tensor in state.values())


def readable(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.2f} MiB"


def packed(state: State) -> bytes:
    """Bytes of a file with the state and its checksum."""
    return save(state | {CHECK: torch.tensor(_crc32(state))})


def unpacked(content: bytes) -> State:
    """State of a file. Raises ValueError or SafetensorError if it is not what was written."""
    state = load(content)
    expected = state.pop(CHECK, None)
    if expected is None or expected.item() != _crc32(state):
        raise ValueError("wrong checksum")
    return state


def _crc32(state: State) -> int:
    crc = 0
    for name, tensor in sorted(state.items()):
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has, within its control groups."""
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    fields = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    free = [int(fields["MemAvailable"]) * 1024] if "MemAvailable" in fields else [4 * GIB]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers in ("", "memory"):
                free += _group_limits(controllers, place)
    return max(0, min(free))


def _group_limits(controllers: str, place: str) -> Iterator[int]:
    """Free bytes of a control group and of those it is in, as far as they have limits."""
    root = Path("/sys/fs/cgroup") / controllers
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")  # version 1
    names = names if controllers else ("memory.max", "memory.current")
    group = root / place.lstrip("/")
    while group.is_relative_to(root):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            limit, used = (int((group / name).read_text()) for name in names)
            yield limit - used
        group = group.parent
