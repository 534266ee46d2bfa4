"""Composes the runs of a sweep: the words of groups once, plain values on copies of what they give.

Hydra takes a tenth of a second for a run. The runs of a sweep differ in values, mostly, which need
neither its list of defaults nor any file, and in few values of each part of a config.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import fields
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, fitted, typed
from segsweep.base.hydra_parts import plain_value
from segsweep.base.words import GROUPS

PARTS = frozenset(f.name for f in fields(Config))
KEPT = 64  # configs of groups' words at once, so that memory does not grow with a sweep
NAMES = re.compile(r"\w+")
Words = tuple[str, ...]


class Composer:
    """Composes words into typed configs, as `typed(compose(words))` does, but faster.

    compose: Hydra's composition of a run.
    """

    def __init__(self, compose: Callable[[list[str]], DictConfig]) -> None:
        self.compose = compose
        self._of_groups = lru_cache(KEPT)(lambda groups: compose([*groups]))
        self._reach = lru_cache(KEPT)(lambda groups: reach(self._of_groups(groups)))
        self._value: Callable[[str], Any] = lru_cache(1 << 12)(_plain_value)
        self._part = lru_cache(1 << 10)(self._made)

    def __call__(self, words: list[str]) -> Config:
        """Compose one run. Raises what Hydra and `typed` raise."""
        groups = tuple(word for word in words if word.partition("=")[0] in GROUPS)
        values = {word: self._value(word) for word in words if word not in groups}
        if None not in values.values():
            # values come after all words of groups, as Hydra has it, wherever they stand
            with suppress(OmegaConfBaseException):  # Hydra refuses it in words of its own
                return fitted(Config(**deepcopy(self._parts(groups, values))))
        return typed(self.compose(words))

    def _parts(self, groups: Words, values: dict[str, Any]) -> dict[str, Any]:
        reached = self._reach(groups)
        if any("${" in word for word in values):
            reached = dict.fromkeys(PARTS, PARTS)
        tops = {word: re.split(r"[.\[]", word.partition("=")[0])[0] for word in values}
        if stray := set(tops.values()) - PARTS:
            raise OmegaConfBaseException(f"no keys: {stray}")
        return {
            part: self._part(groups, part, keys, tuple(w for w in tops if tops[w] in keys))
            for part, keys in reached.items()
        }

    def _made(self, groups: Words, part: str, keys: frozenset[str], values: Words) -> Any:
        """Make what a config holds under one key; `keys` are all that decide about it."""
        node = OmegaConf.masked_copy(self._of_groups(groups), [*keys])
        OmegaConf.set_struct(node, True)
        for word in values:
            OmegaConf.update(node, *self._value(word), merge=True)
        made = node[part]
        return OmegaConf.to_object(made) if OmegaConf.is_config(made) else made


def _plain_value(word: str) -> tuple[str, Any] | None:
    """Return key and value of a word that sets one; None also for one that is called otherwise."""
    found = plain_value(word)
    return None if found and found[0].partition(".")[2] == "name" else found


def reach(config: DictConfig) -> dict[str, frozenset[str]]:
    """Return the keys at the top whose values decide about each one: itself, and what it refers to.

    Every name beside a reference counts, `${peft.lr}` as `${oc.select:peft.lr}`.
    """
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    named = {
        key: PARTS.intersection(NAMES.findall(text)) if "${" in text else frozenset[str]()
        for key, text in ((key, str(content[key])) for key in PARTS)
    }
    reached: dict[str, frozenset[str]] = {}
    for key in PARTS:
        keys = frozenset({key})
        while more := keys.union(*(named[k] for k in keys)) - keys:
            keys |= more
        reached[key] = keys
    return reached
