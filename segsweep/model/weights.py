"""Base weights: find the file, read it without running its code, load it and say what happened."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.files import BaseWeights, class_names, files_of, locate, provenance, recognised

Names = list[str] | None  # class names, where the file carries them
State = dict[str, Tensor]
# how torch names what a pickle would call: on its own, or as the function of a REDUCE
WANTED = re.compile(r"GLOBAL ([\w.]+)|unrecognized function (.+)")


@dataclass
class LoadReport:
    """What was taken over from which file."""

    source: str | None  # as asked for; None = random weights
    file: Path | None = None
    loaded: int = 0  # tensors
    drawn: list[str] = field(default_factory=list)  # tensors of classes that were drawn anew
    built: list[str] = field(default_factory=list)  # tensors that the file lacks, and may lack
    left: list[str] = field(default_factory=list)  # tensors of the file that have no use here
    classes: bool = True  # whether the file holds tensors of classes
    unnamed: bool = False  # tensors of classes were taken over, of which the file names none

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.source is None:
            return "weights: random"
        text = f"weights: {self.loaded} tensors from {self.file}"
        if self.unnamed:
            text += (
                "; it names no classes: their number fits, so they are taken for those of the data"
            )
        if self.left:
            text += f"; not needed are {len(self.left)} ({self.left[0]} ... {self.left[-1]})"
        if self.built:
            text += (
                f"; it lacks {len(self.built)} that start at random ({self.built[0]} ... "
                f"{self.built[-1]})"
            )
        if self.drawn:
            why = "the classes are others" if self.classes else "the file has none"
            text += f"; class layers start at random, as {why} ({len(self.drawn)} tensors)"
        return text

    def facts(self) -> dict[str, Any]:
        """Return what a record says: where the weights are from, and the hash of what was read."""
        known = {"source": None, "sha256": None, "verified": None}
        if self.source is not None and self.file is not None:
            known = provenance(self.source, self.file)
        more = {name: names for name in ("left", "built") if (names := getattr(self, name))}
        return known | {"tensors": self.loaded, "drawn": self.drawn, **more}


def load(
    model: nn.Module,
    source: str | None,
    rename: Callable[[State], State] = dict,
    class_tensors: Sequence[str] = (),
    classes: list[str] | None = None,
    draw: Callable[[], None] = lambda: None,
    spare: Sequence[str] = (),
    optional: Sequence[str] = (),
    reader: Callable[[Path, bool], tuple[State, Names]] | None = None,
) -> LoadReport:
    """Load base weights into a model.

    `rename` brings upstream names to the model's. `class_tensors` depend on the classes: where the
    file's number of classes or its class names are other than `classes`, or it holds none of them,
    `draw` is called to draw them anew. A file that names no classes has those that `source` says.
    What it holds beside, and `spare` patterns or `class_tensors` name, is left. Tensors that an
    `optional` pattern names stay as they were built where the file has none of the pattern. For a
    model on the meta device names and shapes alone are read. `reader` takes the place of `read`.

    Raises:
        UserError: the file cannot be had, is damaged, or belongs to another model.
    """
    if source is None:
        return LoadReport(None)
    file, said = locate(source), BaseWeights.of(source).classes
    entries = tensors(model)
    state, names = (reader or read)(file, any(tensor.is_meta for tensor in entries.values()))
    if names is None and said:
        names = class_names(said)
    state = rename(state)
    spare = (*spare, *class_tensors)
    left = [n for n in state if n not in entries and any(fnmatchcase(n, p) for p in spare)]
    others = model.state_dict().keys() - entries.keys()  # names of what has one already
    state = {name: value for name, value in state.items() if name not in {*left, *others}}
    per_class = any(name in state for name in class_tensors)
    drawn = _of_other_classes(state, entries, class_tensors, names is None or names == classes)
    state = {name: value for name, value in state.items() if name not in drawn}
    built = [n for n in _absent(state, entries, optional) if n not in drawn]
    _check(file, state, {n: t for n, t in entries.items() if n not in {*drawn, *built}})
    if drawn:
        draw()
    with torch.no_grad():
        for name, value in state.items():
            entries[name].copy_(value)
    unnamed = per_class and names is None and not drawn
    return LoadReport(source, file, len(state), drawn, built, left, per_class, unnamed)


def _absent(state: State, entries: State, patterns: Sequence[str]) -> list[str]:
    """Return the tensors of patterns that a file has nothing of."""
    wanting = [p for p in patterns if not any(fnmatchcase(name, p) for name in state)]
    return [name for name in entries if any(fnmatchcase(name, p) for p in wanting)]


def _of_other_classes(
    state: State, entries: State, class_tensors: Sequence[str], same: bool
) -> list[str]:
    """Return which tensors of the model start at random: all that depend on the classes, or none.

    `same` says whether the classes may be those of the file by their names.
    """
    wanted = [name for name in class_tensors if name in entries]
    held = [name for name in wanted if name in state]
    if same and held and all(state[name].shape == entries[name].shape for name in held):
        return []
    return held or wanted


def tensors(model: nn.Module) -> State:
    """Return the entries of the state dict, those under several names under their first only."""
    seen, unique = set(), {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor
    return unique


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()


def read(file: Path, mapped: bool = False) -> tuple[State, Names]:
    """Read a .safetensors or torch checkpoint; pickled code is never run.

    What is `mapped` is read, and found to be damaged, when it is looked at.

    Raises:
        UserError: the file is damaged, is no checkpoint, or can only be read by running its code.
    """
    recognised(file)
    file = files_of(file)[0]
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as stream:
                names = (stream.metadata() or {}).get("classes")
                state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return state, None if names is None else json.loads(names)
        with torch.serialization.safe_globals(_numpy_globals()):
            mapped = mapped and zipfile.is_zipfile(file)
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # what reading arbitrary bytes raises is not listed anywhere
        cure = "" if WANTED.search(str(error)) else "; fetch it again"
        raise UserError(f"{file}: {unreadable(error)}{cure}") from error
    return _state(file, content), _names(content)


def unreadable(error: Exception) -> str:
    """Say why a checkpoint could not be read: it is damaged, or wants code to be run."""
    text = str(error).strip()
    if wanted := WANTED.search(text):
        return (
            f"was not read, because it wants to run code: {wanted[1] or wanted[2]}. Weights need "
            "none, so do not trust it, or convert it where nothing can be harmed (torch.load with "
            "weights_only=False, then torch.save of the tensors alone)"
        )
    reason = f"{type(error).__name__}: {text}".split("\n")[0]
    return f"damaged, cut short or no checkpoint ({reason})"


def _names(content: Any) -> Names:
    """Return the class names of a torch checkpoint that segsweep wrote, None in any other."""
    about = content.get("segsweep") if isinstance(content, Mapping) else None
    names = about.get("classes") if isinstance(about, Mapping) else None
    return list(names) if isinstance(names, list) else None


def _state(file: Path, content: object) -> State:
    """Find the state dict in a checkpoint: under `model`, `state_dict`, or the file itself."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"{file}: holds {type(content).__name__}, not a state dict")
    for name, value in content.items():
        if not isinstance(value, Tensor | np.ndarray):
            raise UserError(f"{file}: '{name}' is {type(value).__name__}, not a tensor")
    return {name: torch.as_tensor(value) for name, value in content.items()}


def _numpy_globals() -> list:
    """What an array needs to be unpickled, as written by numpy 1 and 2 (detectron2's files)."""
    calls: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.float16, np.int64)]
    named = [
        (call, f"numpy.{core}.multiarray.{call.__name__}")
        for call in calls
        for core in ("core", "_core")
    ]
    return [np.ndarray, np.dtype, codecs.encode, *dtypes, *named]


def _check(file: Path, state: State, entries: State) -> None:
    """Refuse a checkpoint whose names or shapes are not exactly the model's."""
    missing = [name for name in entries if name not in state]
    unexpected = [name for name in state if name not in entries]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(t.shape)}"
        for name, t in entries.items()
        if name in state and state[name].shape != t.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    faults = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    ]
    if faults:
        raise UserError(
            f"{file} does not belong to this model: {'; '.join(faults)}; choose other "
            "model.weights, or the model that they are of"
        )
