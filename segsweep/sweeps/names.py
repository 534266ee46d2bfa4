"""Runs by name: a sweep is a set of runs that grows by every launch.

    results/sweeps/<name>/<launch>.json   the runs that one launch added, never written again
    results/sweeps/<name>.json            those of the launches of earlier versions

Launches at the same time write files of their own, so none takes away what another one added. The
name is the word of `+sweep=` or what `io.sweep=` says. Verbs over files take such a name, the name
or id of a run (also its beginning), or a folder.
"""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import read_json, write_json
from segsweep.run.folder import ELSEWHERE

if TYPE_CHECKING:
    from segsweep.run.identity import Run

RUN = re.compile(r"\w[^/\x00-\x1f\x7f]*")  # a name in the folder of runs, never a way out of it
HIDDEN = re.compile(r"io\.|\+?hydra[./]|\+sweep=|force=")  # words that say nothing about a run


def remember(results: Path, name: str, runs: Mapping[str, Sequence[str]]) -> None:
    """Add runs, and the words that made each, to a sweep; those that it has stay as they are.

    Raises UserError for a name that is no file name.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UserError(f"io.sweep={name}: letters, digits, '_', '-' and '.' make a sweep's name")
    known = members(results, name)
    added = {
        run: " ".join(word for word in words if not HIDDEN.match(word))
        for run, words in runs.items()
        if run not in known
    }
    if added:
        folder = results / "sweeps" / name
        folder.mkdir(parents=True, exist_ok=True)
        launch = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.json"  # sorted by name: by time
        write_json(folder / launch, {"name": name, "runs": added})


def remember_launch(jobs: Iterable[tuple[Sequence[str], Run]], word: str | None) -> None:
    """Add the runs of a launch to their sweeps: what `io.sweep` says, else the word of `+sweep=`.

    Raises UserError for a name that is no file name.
    """
    named: dict[tuple[str, str], dict[str, Sequence[str]]] = {}
    for words, run in jobs:
        io = run.config.io
        if name := io.sweep or word:
            named.setdefault((io.results, name), {})[run.name] = words
    for (results, name), runs in named.items():
        remember(Path(results), name, runs)


def sweeps(results: Path) -> list[str]:
    """Return the names of all sweeps."""
    if not (results / "sweeps").is_dir():
        return []
    with os.scandir(results / "sweeps") as entries:
        found = [e.name if e.is_dir() else e.name.removesuffix(".json") for e in entries
                 if e.name[0] != "." and (e.is_dir() or e.name.endswith(".json"))]  # fmt: skip
    return sorted(set(found))


def members(results: Path, name: str) -> dict[str, str]:
    """Return the runs of a sweep, those of earlier launches first, and the words that made each.

    Raises UserError for a file that says something else, or names what is outside of the folder.
    """
    earlier, folder = results / "sweeps" / f"{name}.json", results / "sweeps" / name
    runs = _runs(earlier) if earlier.is_file() else {}
    for launch in sorted(folder.glob("*.json")):
        runs |= {run: words for run, words in _runs(launch).items() if run not in runs}
    return runs


def settings(results: Path) -> dict[str, str]:
    """Return the words that made each run that belongs to a sweep; a damaged one is named."""
    words: dict[str, str] = {}
    for name in sweeps(results):
        try:
            words |= members(results, name)
        except UserError as error:
            print(f"skipped {error}", file=sys.stderr)
    return words


def directories(results: Path) -> list[Path]:
    """Return the run directories below a results folder, by name."""
    if not (results / "runs").is_dir():
        return []
    with os.scandir(results / "runs") as entries:
        return sorted(Path(e.path) for e in entries if e.name[0] != "." and _is_folder(e))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def chosen(results: Path, words: Sequence[str], elsewhere: bool = False) -> list[Path]:
    """Return the run directories that words name, each once; no words name all that exist.

    A run of a sweep that has not begun has no directory yet, and is named all the same. What only
    reads files may also be given the folder of a run on other data (run/elsewhere.py).

    Raises:
        UserError: a word names nothing, or several runs, or a run `elsewhere` where it must not.
    """
    for word in () if elsewhere else words:
        if (place := Path(word).resolve().parent).parent.name == ELSEWHERE:
            raise UserError(f"{word}: is the run {place.name} on other data; name the run itself")
    if not words:
        return directories(results)
    return list(dict.fromkeys(run for word in words for run in _named(results, word)))


def single_run(results: Path, word: str) -> Path:
    """Return the run directory that a word names.

    Raises UserError when it names none or several.
    """
    runs = chosen(results, [word])
    if len(runs) != 1:
        raise UserError(f"{word}: names {len(runs)} runs; one is needed")
    return runs[0]


def spoken(parser: ArgumentParser, argv: Sequence[str] | None = None) -> Namespace:
    """Parse a command line on which words may stand for options: images=DIR is --images DIR.

    `run=3f2a91` is the positional word 3f2a91, `crops=true` the flag --crops. Words with
    a dot in their key (data.root=FOLDER) belong to the config of a run; they become `words` of what
    is returned.
    """
    plain, words, said = [], [], {}
    for word in sys.argv[1:] if argv is None else argv:
        key, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z_.]*", key) or Path(word).exists():
            plain.append(word)
        elif "." in key:
            words.append(word)
        elif key in ("run", "runs"):
            plain.append(value)
        elif value != "false":
            option = f"--{key.replace('_', '-')}"
            plain.append(option if value == "true" else f"{option}={value}")
            said[plain[-1]] = word
    options, unknown = parser.parse_known_intermixed_args(plain)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(said.get(w, w) for w in unknown)}")
    options.words = words
    return options


def named_or_all(verb: str, words: Sequence[str], everything: bool) -> None:
    """Refuse a verb that changes things when nothing was named."""
    if bool(words) == everything:
        raise UserError(f"{verb}: name sweeps, runs or folders, or say --all")


def _named(results: Path, word: str) -> list[Path]:
    if word in sweeps(results):
        return [results / "runs" / run for run in members(results, word)]
    path = Path(word)
    if (path / "runs").is_dir():
        return directories(path)
    if (path / "config.yaml").is_file():
        return [path]
    runs = directories(results)
    matching = [r for r in runs if r.name == word or r.name.rpartition("-")[2].startswith(word)]
    if len(matching) == 1:
        return matching
    if matching:
        raise UserError(f"{word}: several runs begin so: {', '.join(r.name for r in matching[:5])}")
    names = [*sweeps(results), *(run.name for run in runs)]
    ids = [run.name.rpartition("-")[2] for run in runs]
    near = get_close_matches(word, [*names, *ids], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"{word}: neither a sweep nor a run in {results}{hint} "
        f"(sweeps: {', '.join(sweeps(results)) or 'none'}; {len(runs)} runs: `status` lists them)"
    )


def _runs(path: Path) -> dict[str, str]:
    """Return the runs that a file names. Raises Damaged for one that is no list of a sweep."""
    cure = "delete it, and launch its runs again"
    runs = (read_json(path, {"runs": {...: str}}, cure) or {"runs": {}})["runs"]
    for run in runs:
        if not RUN.fullmatch(run):
            raise Damaged(path, f"{run!r} is no run of this folder", cure)
    return runs
