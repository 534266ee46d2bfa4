"""From finished runs back to command lines: the words that make a run again, few lines for many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, plain, typed
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.fields import refuse_references
from segsweep.base.hydra_parts import initialized
from segsweep.run.identity import Run
from segsweep.sweeps.sweeper import Combination

CHOSEN = ("model", "peft", "data")  # groups that are always named
OTHERS = ("hparams", "metrics", "trainer")  # those that are where it is not what follows
BESIDE = ("seed", "repeat", "logger", "io", "force")  # keys that are no part of a setting
NEXT = re.compile(r"\s+(?=[+~]*[\w./@-]+=)")  # before the next word; a path may hold blanks
RESOLVER = re.compile(r"\$\{\s*[\w.]+:")  # ${oc.env:HOME}: what a file asks of this machine
PLAIN = re.compile(r"[\w./+-]+")


def words_of(record: Mapping[str, Any], remembered: str = "") -> Combination:
    """Return the words that compose the config of a recorded run, all but seed and repeat.

    `remembered` are those that a sweep knows of it; what they lack is added.

    Raises UserError where these words make another run: data or base weights have changed.
    """
    said = [w for w in NEXT.split(remembered) if w and not w.startswith(("seed=", "repeat="))]
    reason = "its data, base weights or defaults have changed"
    try:
        refuse_references([w for w in said if RESOLVER.search(w)], "a word of its sweep")
        refuse_references(record["config"], "a value")
        words, again = _completed(said, record["config"])
        if Run(again).id == record["id"]:
            return words
    except (HydraException, OmegaConfBaseException, UserError) as error:
        reason = explain(error)
    raise UserError(f"{record['name']}: no other seed of it can be run here: {reason}")


def _completed(words: Combination, config: Mapping[str, Any]) -> tuple[Combination, Config]:
    """Return words with those that they lack to compose a recorded config, and what they compose.

    They name the groups, then each key that differs; what follows from another key is not named.
    """
    same = [f"seed={config['seed']}", f"repeat={config.get('repeat', 0)}"]
    words = words or [f"{group}={config[group]['name']}" for group in CHOSEN]
    with initialized():
        while True:
            whole = hydra.compose("train", overrides=[*words, *same], return_hydra_config=True)
            choices = whole.hydra.runtime.choices
            if other := [w for w in OTHERS if config[w]["name"] != choices[w]]:
                words = [*words, *(f"{group}={config[group]['name']}" for group in other)]
                continue
            with open_dict(whole):
                del whole["hydra"]
            raw, composed = OmegaConf.to_container(whole), typed(whole)
            differing = dict(_differing(_setting(config), _setting(plain(composed))))
            own = {k: v for k, v in differing.items() if "${" not in str(_at(raw, k))}
            more = [f"{key}={written(value)}" for key, value in (own or differing).items()]
            if not set(more) - set(words):
                return words, composed
            words = [*words, *more]


def _setting(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in BESIDE}


def _differing(
    wanted: Mapping[str, Any], here: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a config that another has not; their newer keys may stay."""
    for key, value in wanted.items():
        if key == "_target_" or value == here.get(key):
            continue
        if isinstance(value, dict) and isinstance(here.get(key), dict) and value.keys() & here[key]:
            yield from _differing(value, here[key], f"{above}{key}.")
        else:
            yield above + key, value


def _at(content: Any, key: str) -> Any:
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def written(value: Any) -> str:
    """Return a value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{written(item)}' for key, item in value.items())}}}"
    text = str(value)
    return text if PLAIN.fullmatch(text) else "'" + text.replace("'", r"\'") + "'"


def joined(combinations: Iterable[Combination]) -> list[Combination]:
    """Return few lines whose products are just these combinations.

    Those that differ in the value of one key become one, key by key from the last.
    """
    lines = [{k: (v,) for k, _, v in (w.partition("=") for w in words)} for words in combinations]
    for key in reversed(dict.fromkeys(key for line in lines for key in line)):
        groups: dict[Any, dict[str, tuple[str, ...]]] = {}
        for line in lines:
            rest = frozenset(item for item in line.items() if item[0] != key), key in line
            first = groups.setdefault(rest, line)
            if first is not line and key in line:
                first[key] = (*first[key], *(v for v in line[key] if v not in first[key]))
        lines = list(groups.values())
    return [[f"{key}={','.join(values)}" for key, values in line.items()] for line in lines]
