"""Errors of composing, said so that they can be mended: key, value, choices, near name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException


def explain(error: BaseException) -> str:
    """Return one or two lines for an error that Hydra or OmegaConf raised while composing."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, word = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={word}: there is no {group} {word!r}" + choices(word, error.options)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        key = str(cause.full_key)
        parent, _, word = key.rpartition(".")
        where = f"in {parent!r}" if parent else "at the top"
        return f"{key}: there is no key {word!r} {where}" + choices(word, known_keys(cause))
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    return str(error)


def known_keys(error: OmegaConfBaseException) -> list[str]:
    """Return the keys that the user may have meant."""
    kind: Any = error.object_type
    if isinstance(kind, type) and is_dataclass(kind):
        return [f.name for f in fields(kind)]
    node = error.parent_node
    return [str(key) for key in node] if node is not None and OmegaConf.is_dict(node) else []


def choices(word: str, known: Sequence[str]) -> str:
    """Return the near name, if any, and the list of choices."""
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (choices: {', '.join(sorted(known))})" if known else hint
