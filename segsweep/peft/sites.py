"""Names: finding the weights of a model that a method acts on.

Names are those of the base model, whatever has been edited since. Where a model registers one
tensor under several names (Mask DINO's box head has twenty), a pattern may use any of them and
the first one stands for it everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from fnmatch import fnmatchcase
from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from segsweep.base.errors import UserError
from segsweep.model.family import Roles

THIRDS = {"q": 0, "k": 1, "v": 2}
"""Query, key and value rows of a fused attention weight."""


class Taken(UserError):
    """A place is in use: a weight that is edited, a seam that is filled, by some module."""

    def __init__(self, place: str, how: str, by: nn.Module) -> None:
        super().__init__(f"'{place}' is {how} already; load the base again")
        self.place, self.how, self.by = place, how, by


@dataclass(frozen=True)
class Site:
    """A weight of the model, or a third of its rows (`rows` = q, k or v)."""

    name: str
    module: nn.Module
    attribute: str
    parameter: nn.Parameter
    added: bool = False  # by a method: a factor of an edit, a part of a filling
    rows: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, or of its named rows."""
        size, *rest = self.parameter.shape or (1,)
        return (size // 3 if self.rows else size, *rest)

    @property
    def start(self) -> int:
        """Index of the first row."""
        return THIRDS[self.rows] * self.shape[0] if self.rows else 0

    @property
    def weight(self) -> Tensor:
        """The weight as it is in the base, or its named rows."""
        weight = self.parameter.detach()
        return weight[self.start : self.start + self.shape[0]] if self.rows else weight

    @property
    def fused(self) -> bool:
        """Whether the weight stacks query, key and value projections and is meant as a whole."""
        return not self.rows and self.name.endswith(("in_proj_weight", "qkv.weight"))

    def third(self, rows: str) -> Site:
        """Name the query, key or value rows of a fused weight."""
        if rows not in THIRDS or self.parameter.ndim < 1 or self.parameter.shape[0] % 3:
            raise UserError(
                f"'{self.name}:{rows}' names no third of a weight of shape "
                f"{tuple(self.parameter.shape)}; rows are :q, :k or :v of a fused q, k, v weight"
            )
        return replace(self, name=f"{self.name}:{rows}", rows=rows)

    @property
    def bias(self) -> Site | None:
        """The bias that is added to what the weight, or its named rows, gives; None without one."""
        attribute = f"{self.attribute.removesuffix('weight')}bias"
        if parametrize.is_parametrized(self.module, attribute):
            parameter = self.module.get_parameter(f"parametrizations.{attribute}.original")
        else:
            parameter = getattr(self.module, attribute, None)
        if parameter is None:
            return None
        name = re.sub(r"weight(?=$|:)", "bias", self.name)
        return replace(self, name=name, attribute=attribute, parameter=parameter)

    def edit(self, edit: nn.Module) -> None:
        """Let the weight be computed by `edit` from the base weight from now on.

        Raises Taken where some of the rows are edited already.
        """
        if parametrize.is_parametrized(self.module, self.attribute):
            edits = self.module.parametrizations[self.attribute]  # type: ignore[index]
            for other in cast(nn.ModuleList, edits):
                rows = getattr(other, "rows", "")
                if not (rows and self.rows) or rows == self.rows:
                    raise Taken(self.name, "edited", other)
        parametrize.register_parametrization(self.module, self.attribute, edit)


def resolve(words: Iterable[str], roles: Roles, key: str = "peft") -> list[str]:
    """Replace roles by their patterns; a word with a dot or a star is a pattern of dotted names.

    `key` of the configuration is named in errors, here and below.
    """
    words, patterns = list(words), []
    for word in words:
        pattern = "." in word or "*" in word
        if not pattern and word not in roles:
            raise UserError(
                f"{key}: '{word}' is no role of this model; choose from {', '.join(roles)}, "
                "or give a pattern of dotted names such as '*.self_attn.in_proj_weight'"
            )
        patterns += [word] if pattern else roles[word]
    if words and not patterns:
        filled = ", ".join(role for role, named in roles.items() if named)
        raise UserError(f"{key}: '{', '.join(words)}' is nothing in this model; it has {filled}")
    return patterns


def match(
    model: nn.Module, patterns: Iterable[str], strict: bool = True, key: str = "peft"
) -> list[Site]:
    """Find the weights that any of the patterns names, in the order of the model.

    A pattern is a glob over the full dotted name, `:q`, `:k` or `:v` after it takes a third of
    the rows.

    Raises:
        UserError: a pattern that names no weight, with names that come near, where `strict`.
    """
    weights, sites = named_weights(model), {}
    first = {id(site.parameter): site.name for site in reversed(weights.values())}
    for pattern in patterns:
        glob, _, rows = pattern.partition(":")
        for name in names_of([glob], weights, "weights", strict, key):
            site = weights[first[id(weights[name].parameter)]]
            site = site.third(rows) if rows else site
            sites[site.name] = site
    order = {name: index for index, name in enumerate(weights)}
    return sorted(sites.values(), key=lambda site: (order[site.name.partition(":")[0]], site.start))


def canonical(model: nn.Module, name: str) -> str:
    """Give the entry of a state dict its readable name.

    The base weight under an edit keeps its name in the base model, and the factors of an edit
    follow it: `self_attn.in_proj_weight:q.lora_A`.
    """
    path, marker, edited = name.partition("parametrizations.")
    if not marker:
        return name
    weight, part, *rest = edited.split(".")
    if part == "original":
        return path + weight
    rows = getattr(model.get_submodule(f"{path}{marker}{weight}.{part}"), "rows", "")
    return ".".join([path + weight + (f":{rows}" if rows else ""), *rest])


def named_weights(model: nn.Module) -> dict[str, Site]:
    """Find every parameter under all of its names; edited ones belong to the layer they serve."""
    sites = {}
    for raw, parameter in model.named_parameters(remove_duplicate=False):
        name, base = canonical(model, raw), raw.endswith(".original")
        path, _, attribute = (name if base else raw).rpartition(".")
        added = not base and ("parametrizations." in raw or ".filling." in raw)
        sites[name] = Site(name, model.get_submodule(path), attribute, parameter, added)
    return sites


def assign(
    model: nn.Module, values: Mapping[str, float], roles: Roles, key: str
) -> dict[nn.Parameter, float]:
    """Give parameters the value of the word, a role or a pattern, that names them.

    Words name weights of the base; only one that names none of them (`*.lora_B`) is looked for
    among the parameters that a method added. Where several words name a parameter, the one that
    names the fewest counts, whatever their order.

    Raises UserError as `match`.
    """
    weights = named_weights(model)
    named: dict[str, set[nn.Parameter]] = {}
    for word in values:
        patterns = resolve([word], roles, key)
        sites = [weights[n] for n in names_of(patterns, weights, "weights", key=key)]
        base = {site.parameter for site in sites if not site.added}
        named[word] = base or {site.parameter for site in sites}
    assigned = {}
    for word in sorted(named, key=lambda word: (-len(named[word]), word)):
        assigned |= dict.fromkeys(named[word], values[word])
    return assigned


def names_of(
    patterns: Iterable[str],
    names: Iterable[str],
    kind: str,
    strict: bool = True,
    key: str = "peft",
) -> list[str]:
    """Choose the names that any of the patterns, globs, matches.

    Raises UserError for a pattern that matches none of these names of a `kind`, where `strict`.
    """
    names, chosen = list(names), dict[str, None]()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if strict and not matching:
            near = ", ".join(f"'{name}'" for name in _near(pattern, names))
            raise UserError(
                f"{key}: '{pattern}' matches none of the {len(names)} {kind} of this model; "
                + (f"did you mean {near}?" if near else f"it has no {kind}")
            )
        chosen |= dict.fromkeys(matching)
    return list(chosen)


def _near(pattern: str, names: list[str]) -> list[str]:
    """Choose the three names (layer numbers starred) with the likeliest run of dotted parts."""
    wanted = [part for part in pattern.split(".") if part.strip("*")]

    def likeness(name: str) -> float:
        parts = name.split(".")
        runs = [parts[i : i + len(wanted)] for i in range(max(1, len(parts) - len(wanted) + 1))]
        return max(SequenceMatcher(None, ".".join(wanted), ".".join(run)).ratio() for run in runs)

    shapes = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names)
    return sorted(shapes, key=likeness, reverse=True)[:3]
