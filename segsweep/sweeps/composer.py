"""Composes the runs of a sweep: the words of groups once, plain values on copies of what they give.

Hydra takes a fifth of a second for a run; the runs of a sweep differ in values, mostly, which need
neither its list of defaults nor any file.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.config import Config, objects, schemed, typed
from segsweep.base.hydra_parts import plain_value
from segsweep.base.words import GROUPS

KEPT = 64  # configs of groups' words at once, so that memory does not grow with a sweep


class Composer:
    """Composes words into typed configs, as `typed(compose(words))` does, but faster.

    compose: Hydra's composition of a run.
    """

    def __init__(self, compose: Callable[[list[str]], DictConfig]) -> None:
        self.compose = compose
        self._of_groups = lru_cache(KEPT)(lambda words: schemed(compose([*words])))
        self._value = lru_cache(4096)(plain_value)

    def __call__(self, words: list[str]) -> Config:
        """Compose one run. Raises what Hydra and `typed` raise."""
        node = self._with_values(words)
        return typed(self.compose(words)) if node is None else objects(node)

    def _with_values(self, words: list[str]) -> DictConfig | None:
        """Set plain values on a copy; None where Hydra must see all words, or refuse them itself.

        Values come after all words of groups, as Hydra has it, wherever they stand.
        """
        groups = tuple(word for word in words if word.partition("=")[0] in GROUPS)
        values = [self._value(word) for word in words if word not in groups]
        if None in values:
            return None
        node = deepcopy(self._of_groups(groups))
        try:
            for key, value in filter(None, values):
                OmegaConf.update(node, key, value, merge=True)
        except OmegaConfBaseException:
            return None
        return node
