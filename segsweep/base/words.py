"""Words of the config groups: files `<group>/<word>.yaml` of `conf/` or of a folder of yours.

A config names words, composed or frozen; which class a word is stands in its file, in `_target_`.
Nothing else is imported because of a config: what lies in a results folder names no code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from segsweep.base.errors import UserError
from segsweep.base.package import packaged

GROUPS = ("model", "peft", "data", "hparams", "metrics", "trainer", "logger")
FOLDERS = "SEGSWEEP_CONFIG_DIR"  # folders of words, separated as in PATH; children inherit it
SEARCHPATH = "hydra.searchpath="
OPTIONS = ("--config-dir", "-cd")


def conf_dir() -> str:
    """Return the folder of the configuration, as Hydra wants it."""
    return str(packaged("conf"))


def own_folders() -> list[Path]:
    """Return the folders of words that the user named."""
    return [Path(folder) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]


def add_folder(folder: Path) -> None:
    """Look for words in one more folder, here and in every process that is started from here.

    Raises UserError where it does not exist.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder of words")
    folders = dict.fromkeys([*own_folders(), folder.resolve()])
    os.environ[FOLDERS] = os.pathsep.join(map(str, folders))


def without_folders(arguments: Iterable[str]) -> list[str]:
    """Take `--config-dir FOLDER` and `hydra.searchpath=[...]` off a command line and heed them.

    Raises UserError where a folder is missing.
    """
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option in OPTIONS:
            folder = value if equals else next(words, "")
            add_folder(Path(folder or "(no name)"))
        elif word.startswith(SEARCHPATH):
            for entry in filter(str.strip, re.split(r"[\[\],'\"]", value)):
                add_folder(_folder(entry.strip()))
        else:
            rest.append(word)
    return rest


def _folder(entry: str) -> Path:
    """Return the folder of an entry of Hydra's search path."""
    scheme, _, path = entry.rpartition("://")
    return Path(str(resources.files(path.replace("/", ".")))) if scheme == "pkg" else Path(path)


def files(group: str) -> dict[str, Path]:
    """Return the file of every word of a group; those of this installation come first."""
    by_word: dict[str, Path] = {}
    for folder in (Path(conf_dir()), *own_folders()):
        for file in sorted((folder / group).glob("*.yaml")):
            by_word.setdefault(file.stem, file)
    return by_word


def target_of(group: str, word: Any) -> tuple[Path, str]:
    """Return the file of a word and the class that it names, or the word that it builds upon.

    Raises UserError for a word that is not installed, and one without a class.
    """
    known = files(group)
    if not isinstance(word, str) or word not in known:
        near = get_close_matches(str(word), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"{group}={word}: there is no {group}/{word}.yaml in conf/ or a folder of yours{hint} "
            f"(choices: {', '.join(known)}); name the folder that has it: --config-dir FOLDER"
        )
    content = _content(known[word], known[word].stat().st_mtime_ns)
    if "_target_" in content:
        return known[word], str(content["_target_"])
    for entry in reversed(content.get("defaults", [])):
        if isinstance(entry, str) and entry not in ("_self_", word):
            return target_of(group, entry)
    raise UserError(f"{known[word]}: names no class in _target_ and builds upon no other word")


def content_of(group: str, word: Any) -> dict[str, Any]:
    """Return what the file of a word says, on top of the words that it builds upon.

    Raises UserError as `target_of`.
    """
    target_of(group, word)
    file = files(group)[word]
    content = dict(_content(file, file.stat().st_mtime_ns))
    for entry in reversed(content.pop("defaults", [])):
        if entry in files(group) and entry != word:
            content = content_of(group, entry) | content
    return {key: value for key, value in content.items() if key != "_target_"}


@cache
def _content(file: Path, changed: int) -> Any:
    """Return what a yaml file holds; it is read again when it was changed."""
    from omegaconf import OmegaConf

    return OmegaConf.load(file)
