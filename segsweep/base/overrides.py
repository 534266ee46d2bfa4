"""Words of a run, `key=value`, as Hydra reads them; what is no such word is said with its cure.

Hydra's grammar gives `( [ { = ,` a meaning in values, and has no `#` and no `ü`. A value that is a
path of this machine, or that the grammar cannot read, is text: it is quoted here, not by the user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.words import GROUPS, conf_dir, files, own_folders

# what stands for itself in a value; two blanks, or one at an end, do not
PLAIN = re.compile(r"[A-Za-z0-9_/\\.$%*@?|:+-]*(?: [A-Za-z0-9_/\\.$%*@?|:+-]+)*")
NO_WORD = re.compile(r"[+-]?[\d.][\d.e_+-]*|true|false", re.IGNORECASE)
KEYS = "; settings are said as key=value, as in peft=lora peft.rank=8 (--help)"
FOREIGN = {  # keys of other programs, and their formats
    **dict.fromkeys(("yolo", "via", "labelme"), "data=coco data.root=FOLDER, which reads it, too"),
    **dict.fromkeys(("device", "devices", "gpus", "cuda"), "trainer=gpu"),
    **dict.fromkeys(("output", "output_dir", "out", "save_dir", "project"), "io.results"),
    "batch": "hparams.batch_size",
    "learning_rate": "hparams.lr",
    "imgsz": "data.size",
    "root": "data=coco data.root=FOLDER",
    "source": "data=coco data.root=FOLDER",
    "resume": "the same command again, which goes on",
    "name": "io.sweep",
}


def readable(words: Iterable[str]) -> list[str]:
    """Return override words with the values quoted that are text but would not be read as such.

    Raises UserError for a word that is no override.
    """
    return [_readable(word) for word in words]


def _readable(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals and "." in word and word.split(".")[0] in GROUPS and not os.path.exists(word):
        raise UserError(f"{word}: needs a value, as in {word}=VALUE")
    if not key or (not equals and word[:1] != "~"):
        raise UserError(f"{word}: is no word of a run{hint(word) or KEYS}")
    group = key.lstrip("+~")
    if group in GROUPS and word[:1] == "+":
        raise UserError(f"{word}: a run has one {group} already; say {group}={value}")
    if group == key and "/" not in group and group not in GROUPS and files(group):
        raise UserError(f"{word}: no run needs a {group}; say +{group}={value}")
    if key in GROUPS and NO_WORD.fullmatch(value):  # of which Hydra makes no text
        return f"{key}={quoted(value)}"
    if PLAIN.fullmatch(value):
        return word
    if paths := _paths(value):
        return f"{key}={','.join(paths)}"
    return word if _parses(word) else f"{key}={quoted(value)}"


def _paths(value: str) -> list[str]:
    """Return a value quoted as the path that it is, or as the paths of a sweep, else nothing."""
    for parts in ([value], value.split(",")):
        homes = [os.path.expanduser(part) for part in parts]
        if all(map(os.path.exists, homes)):
            return [quoted(home) for home in homes]
    return []


def _parses(word: str) -> bool:
    from hydra.errors import HydraException

    from segsweep.base.hydra_parts import parsed

    try:
        return bool(parsed([word]))
    except HydraException:
        return False


def quoted(text: str) -> str:
    """Return text as Hydra reads it back: in quotes; backslashes count before a quote only."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", r"\'"), text) + "'"


def hint(word: str) -> str:
    """Return what may be meant by a bare word: a path, a group or a word of one, or nothing."""
    if os.path.exists(os.path.expanduser(word)):
        return f"; say data=coco data.root={word} to train on it, check-data {word} to look at it"
    bare = word.strip("-")
    groups = [f.name for folder in (Path(conf_dir()), *own_folders()) for f in folder.glob("*/")]
    named = {w: group for group in reversed([*GROUPS, "sweep"]) for w in files(group)}
    if bare in groups:
        return f"; say {'' if bare in GROUPS else '+'}{bare}=WORD, one of {', '.join(files(bare))}"
    if bare in FOREIGN:
        return f"; say {FOREIGN[bare]}"
    if near := get_close_matches(bare, named, n=1, cutoff=0.7):
        sign = "" if named[near[0]] in GROUPS else "+"
        return f"; did you mean {sign}{named[near[0]]}={near[0]}?"
    return ""
