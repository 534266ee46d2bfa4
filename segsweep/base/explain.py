"""Errors of composing, said so that they can be mended: key, value, choices, near name."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from segsweep.base.errors import UserError
from segsweep.base.overrides import FOREIGN, KEYS, NO_WORD, hint
from segsweep.base.words import GROUPS

SEVERAL = re.compile(r"(?:argument|parameters) '([^=]+)=(.*,.*)'")
"""What Hydra says of a sweep without `-m`."""
EXPECTED = re.compile(r"expected one of \[(.*)\]")
NEEDED = {  # by what OmegaConf says of a value of another kind
    "could not be converted to Integer": "must be a whole number",
    "could not be converted to Float": "must be a number",
    "is not a valid bool": "must be true or false",
    "to string": "must be a text",
    "is not Optional": "must have a value",
    "is not a ListConfig": "must be a list",
    "DictConfig with ListConfig": "must be a list",
    "to Dict[": "must be pairs",
    "is not a subclass of": "has keys of its own, and no value",
}


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Let what Hydra or OmegaConf raises while composing be a UserError, in our words."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def explain(error: BaseException) -> str:
    """Return one or two lines for an error that Hydra or OmegaConf raised while composing."""
    if isinstance(error, MissingConfigException) and error.options:
        group, word = _word(error.missing_cfg_file or "")
        near = _said(group, word) or (hint(word) if os.path.exists(word) else "")
        return f"{group}={word}: there is no {group} {word!r}{near}" + choices(word, error.options)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as key=value{hint(error.override) or KEYS}"
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return unknown_key(cause)
    if isinstance(cause, OmegaConfBaseException):
        return wrong_value(cause)
    if several := SEVERAL.search(str(error)):
        key, values = several.groups()
        return (
            f"{key}={values}: several values are a sweep, which begins with -m; "
            f"a list stands in brackets: {key}=[{values}]; "
            f"a text with a comma stands in two pairs of quotes: \"{key}='{values}'\""
        )
    return str(error)


def wrong_value(error: OmegaConfBaseException) -> str:
    """Say what kind of value a key needs; of lists and pairs also how they are written."""
    said, key, value = str(error).splitlines()[0], error.full_key, getattr(error, "value", None)
    needed = next((kind for words, kind in NEEDED.items() if words in said), "")
    if known := EXPECTED.search(said):
        needed = f"must be one of {known[1]}"
    if not needed:
        return f"{key}: {said}"
    null = "=null" if "is not Optional" in said else ""
    given = f"{key}{null if value is None else f'={value}'}"
    form = {"must be a list": f"[{_repeated(error)}]", "must be pairs": "{NAME:VALUE}"}.get(needed)
    return f"{given}: {needed}" + (f", as in {key}={form}" if form else "")


def _repeated(error: OmegaConfBaseException) -> str:
    """Return a value as the entries of a list: a number as often as the default has entries."""
    value, default = getattr(error, "value", None), []
    with contextlib.suppress(OmegaConfBaseException):  # a reference that leads nowhere
        default = error.parent_node.get(error.key) if OmegaConf.is_dict(error.parent_node) else []
    several = NO_WORD.fullmatch(f"{value}") and OmegaConf.is_list(default)
    times = max(len(default or []), 1) if several else 1
    return ",".join(["VALUE" if value is None else f"{value}"] * times)


def unknown_key(error: OmegaConfBaseException) -> str:
    """Say that there is no such key, and where there is one: near by, or elsewhere."""
    key = str(error.full_key)
    parent, _, word = key.rpartition(".")
    known = known_keys(error)
    said = f"{key}: there is no key {word!r} {f'in {parent!r}' if parent else 'at the top'}"
    if not parent:
        return said + (_elsewhere(word, error.parent_node) or choices(word, known))
    others = _having(parent, word) if parent in GROUPS else []
    if not others:
        return said + (_said(parent, word) or choices(word, known))
    here = error.parent_node.get("name") if OmegaConf.is_dict(error.parent_node) else ""
    belongs = f"it belongs to {parent}={', '.join(others)}"
    return f"{said}, which is {parent}={here}{_said(parent, word)}; {belongs}"


def _word(file: str) -> tuple[str, str]:
    """Return group and word of a file of Hydra's that is missing; a word may be a path."""
    group, _, word = file.partition("/") if file.split("/")[0] in GROUPS else file.rpartition("/")
    return group, word


def _said(group: str, word: str) -> str:
    """Return the hint for what others call a word or a key of a group."""
    said = FOREIGN.get(word, "")
    return f"; say {said}" if said.startswith(f"{group}=") else ""


def _elsewhere(word: str, config: Any) -> str:
    """Return the hint for a key of other programs, and for one of ours without its group."""
    if word in FOREIGN:
        return f"; say {FOREIGN[word]}"
    if config is None or not OmegaConf.is_dict(config):
        return ""
    inside = {str(k): f"{group}.{k}" for group in config for k in _keys(config, group)}
    inside |= {str(key): str(key) for key in config}
    near = get_close_matches(word, inside, n=1, cutoff=0.75)
    return f"; did you mean {inside[near[0]]!r}?" if near else ""


def _keys(config: Any, group: Any) -> list[Any]:
    unset = OmegaConf.is_missing(config, group) or OmegaConf.is_interpolation(config, group)
    return [] if unset or not OmegaConf.is_dict(config[group]) else [*config[group]]


def _having(group: str, key: str) -> list[str]:
    """Return words of a group that have a key, one of each class."""
    from segsweep.base.config import words

    with contextlib.suppress(UserError):  # a word of somebody that cannot be read
        first = {kind: word for word, kind in reversed(words(group).items())}
        return sorted(w for kind, w in first.items() if key in {f.name for f in fields(kind)})
    return []


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
