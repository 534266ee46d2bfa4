"""Runs by name: a sweep is a set of runs, `results/sweeps/<name>.json`, that grows by every launch.

The name is the word of `+sweep=` or what `io.sweep=` says. Verbs over files take such a name, the
name or id of a run (also its beginning), or a folder.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import read_json, write_json

HIDDEN = re.compile(r"io\.|\+?hydra[./]|\+sweep=|force=")  # words that say nothing about a run


def remember(results: Path, name: str, runs: Mapping[str, Sequence[str]]) -> Path:
    """Add runs, and the words that made each, to a sweep; those that it has keep their place.

    Raises UserError for a name that is no file name.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UserError(f"io.sweep={name}: letters, digits, '_', '-' and '.' make a sweep's name")
    path = results / "sweeps" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    added = {run: " ".join(w for w in words if not HIDDEN.match(w)) for run, words in runs.items()}
    write_json(path, {"name": name, "runs": _runs(path) | added})
    return path


def sweeps(results: Path) -> list[str]:
    """Return the names of all sweeps."""
    return sorted(path.stem for path in (results / "sweeps").glob("*.json"))


def settings(results: Path) -> dict[str, str]:
    """Return the words that made each run that belongs to a sweep."""
    runs = [_runs(results / "sweeps" / f"{name}.json") for name in sweeps(results)]
    return {run: words for sweep in runs for run, words in sweep.items()}


def directories(results: Path) -> list[Path]:
    """Return the run directories below a results folder, by name."""
    if not (results / "runs").is_dir():
        return []
    with os.scandir(results / "runs") as entries:
        return sorted(Path(e.path) for e in entries if e.name[0] != "." and e.is_dir())


def chosen(results: Path, words: Sequence[str]) -> list[Path]:
    """Return the run directories that words name, each once; no words name all that exist.

    A run of a sweep that has not begun has no directory yet, and is named all the same.

    Raises:
        UserError: a word names nothing, or several runs.
    """
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

    `run=3f2a91` is the positional word 3f2a91. Words with a dot in their key (data.root=FOLDER)
    belong to the config of a run; they become `words` of what is returned.
    """
    plain, words = [], []
    for word in sys.argv[1:] if argv is None else argv:
        key, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z_.]*", key) or Path(word).exists():
            plain.append(word)
        elif "." in key:
            words.append(word)
        else:
            plain.append(value if key in ("run", "runs") else f"--{key.replace('_', '-')}={value}")
    options = parser.parse_intermixed_args(plain)
    options.words = words
    return options


def named_or_all(verb: str, words: Sequence[str], everything: bool) -> None:
    """Refuse a verb that changes things when nothing was named."""
    if bool(words) == everything:
        raise UserError(f"{verb}: name sweeps, runs or folders, or say --all")


def _named(results: Path, word: str) -> list[Path]:
    if word in sweeps(results):
        return [results / "runs" / run for run in _runs(results / "sweeps" / f"{word}.json")]
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
    near = get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(
        f"{word}: neither a sweep nor a run in {results}{hint} "
        f"(sweeps: {', '.join(sweeps(results)) or 'none'}; {len(runs)} runs)"
    )


def _runs(path: Path) -> dict[str, str]:
    return (read_json(path) or {"runs": {}})["runs"]
