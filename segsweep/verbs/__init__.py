"""The words of the command line, one thin file each.

A file says of its verb what the list of all shows: the first line of its docstring behind the
colon, `GROUP`, and in `ALSO` what others call it. It is read for that, not imported.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

GROUPS = ("data", "train", "results", "hand on")
"""In the order in which a user comes to them."""

HEAD = """\
segsweep: which parameter-efficient fine-tuning, at which size, is enough for your data?

  python -m segsweep VERB ...        VERB --help says more
  python -m segsweep WORDS ...       without a verb: train
"""
WORDS = """\
How to say a run: group=word chooses, key=value changes

  python -m segsweep data=coco data.root=path/to/set model=maskdino_r50 peft=lora peft.rank=8
  python -m segsweep -m peft=lora peft.rank=2,4,8,16 seed=0,1       a sweep: each with each
"""
FOOT = """\
  --cfg job           print the config that words make: every key that can be said
  --config-dir DIR    words of yours, beside these
  --version           segsweep's version
  --hydra-help        what Hydra, which composes words, has beside this
"""


@dataclass(frozen=True)
class Verb:
    """What the file of a verb says of it."""

    name: str
    line: str
    group: str = ""
    also: tuple[str, ...] = ()


def known() -> dict[str, Verb]:
    """Return all verbs by name."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {verb.name: verb for verb in map(_read, files)}


def _read(file: Path) -> Verb:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    said = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("GROUP", "ALSO")
    }
    about = (ast.get_docstring(tree) or "").splitlines()[:1]
    line = "".join(about).partition(": ")[2].rstrip(".")
    return Verb(file.stem.replace("_", "-"), line, said.get("GROUP", ""), said.get("ALSO", ()))


def overview(verbs: Mapping[str, Verb], choices: Mapping[str, list[str]]) -> str:
    """Return what `--help` says: all verbs, a line each, then how to say a run.

    Args:
        verbs: by name.
        choices: words by config group, with its sign: `model`, `+sweep`.
    """
    width = max(map(len, verbs)) + 2
    lines = [HEAD]
    for group in GROUPS:
        own = sorted(v for v in verbs if verbs[v].group == group)
        own.sort(key=lambda name: name != group)  # train stands first in its own
        lines += [group.capitalize(), *(f"  {v:<{width}}{verbs[v].line}" for v in own), ""]
    lines.append(WORDS)
    width = max(map(len, choices)) + 3
    for group, words in choices.items():
        head = f"  {group + '=':<{width}}"
        rest = " " * len(head)
        lines.append(fill(", ".join(words), 98, initial_indent=head, subsequent_indent=rest))
    return "\n".join([*lines, "", FOOT]).rstrip()
