"""The house: imports run down from floor to floor, no circles, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "segsweep"
FLOORS = (
    *("base", "data", "loss", "model", "task", "peft", "metrics", "run", "analysis", "story"),
    *("sweeps", "results", "pages", "audit", "check", "exporting", "bench"),
    *("verbs", "api", "__main__"),
)
"""From the ground up: a file may import files of its own floor and of those below."""


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every file by its dotted name below the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """Return the files of the package that a file imports, anywhere in it, for types too."""
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= {w if w.removeprefix("segsweep.") in known else node.module for w in whole}
    return {n.removeprefix("segsweep.") for n in named if n.startswith("segsweep.")} & known


TREES = modules()
GRAPH = {name: imports(tree, set(TREES)) - {name} for name, tree in TREES.items() if name}


def floor(name: str) -> int:
    return FLOORS.index(name.partition(".")[0])


def test_every_file_stands_on_a_floor():
    assert {name.partition(".")[0] for name in GRAPH} == set(FLOORS)


def test_no_import_runs_up():
    up = [f"{a} -> {b}" for a, used in GRAPH.items() for b in used if floor(a) < floor(b)]
    assert not up


def test_no_circle():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_one_name_means_one_thing():
    """A reader finds a class by searching for its name; private ones are their file's affair."""
    places = defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert not {name: where for name, where in places.items() if len(where) > 1}
