"""Where a method acts: the weights and seams that its words name in a model, within its scope."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from segsweep.base.errors import UserError
from segsweep.model.family import BLOCK_ROLES, Roles
from segsweep.model.layers.seam import Seam, seams
from segsweep.peft.sites import Site, Taken, match, names_of, resolve

if TYPE_CHECKING:
    from segsweep.model.backbones.host import Host
    from segsweep.model.layers.block import HostBlock

Shapes = dict[str, tuple[int, ...]]  # of places, by their names


class Places:
    """The places of a model, found by words: roles of its family, or patterns of dotted names.

    A scope leaves those in a part of the model, a role such as `backbone` or `decoder`, or in the
    last K of the layers where a word has places (`last:4`). Roles then mean the whole model:
    `attention`, say, that of the backbone's blocks, too. What another method added is no place.

    Args:
        model: whose places they are.
        roles: of its family.
        scope: see `segsweep.peft.method.Method`.
    """

    def __init__(self, model: nn.Module, roles: Roles, scope: str = "") -> None:
        self.model, self.roles, self.scope = model, roles, scope
        self._seams = {n: s for n, s in seams(model).items() if ".filling." not in n}

    def weights(self, words: Iterable[str]) -> list[Site]:
        """Find weights, or thirds of their rows, in the order of the model.

        Raises:
            UserError: a word or pattern names nothing, or nothing in the scope.
        """
        words = list(words)
        sites = match(self.model, self._patterns(words), strict=not self.scope)
        within = self._within([site.name for site in sites], words)
        return [site for site in sites if site.name in within and not site.added]

    def seams(self, words: Iterable[str]) -> dict[str, Seam]:
        """Find seams by name, in the order of the model; raises as `weights`."""
        words = list(words)
        named = set(names_of(self._patterns(words), self._seams, "seams", not self.scope))
        within = self._within([name for name in self._seams if name in named], words)
        return {name: self._seams[name] for name in within}

    def fill(self, words: Iterable[str], filling: Callable[[int], nn.Module]) -> Shapes:
        """Fill seams with what `filling` makes for their number of channels.

        Returns the seams' names and widths; raises as `weights`, and as `put`.
        """
        return self.put({name: filling(s.width) for name, s in self.seams(words).items()})

    def put(self, fillings: Mapping[str, nn.Module]) -> Shapes:
        """Fill seams by their names, and return these with their widths.

        Raises:
            Taken: a seam is filled already.
        """
        like = next(self.model.parameters())
        for name, filling in fillings.items():
            if (other := self._seams[name].filling) is not None:
                raise Taken(name, "filled", other)
            filling = filling.to(like.device, like.dtype).train(self.model.training)
            self._seams[name].filling = filling
        return {name: (self._seams[name].width,) for name in fillings}

    @property
    def host(self) -> Host:
        """The backbone, a transformer whose blocks have places; UserError if it is none."""
        from segsweep.model.backbones.host import Host

        backbone = getattr(self.model, "backbone", self.model)
        if not isinstance(backbone, Host):
            raise UserError(f"peft: the backbone {type(backbone).__name__} has no blocks to fill")
        return backbone

    def blocks(self) -> dict[str, HostBlock]:
        """Find the blocks of the backbone by their names, in their order, in the scope."""
        from segsweep.model.layers.block import HostBlock

        modules = [(n, m) for n, m in self.model.named_modules() if ".filling." not in n]
        known = {name: module for name, module in modules if isinstance(module, HostBlock)}
        within = self._within([f"{name}." for name in known], ["blocks"])
        return {name: block for name, block in known.items() if f"{name}." in within}

    def _patterns(self, words: list[str]) -> list[str]:
        wide = {word: [*self.roles[word], *BLOCK_ROLES.get(word, [])] for word in self.roles}
        return resolve(words, wide if self.scope else self.roles)

    def _within(self, names: list[str], words: list[str]) -> list[str]:
        """Leave the names in the scope; raises UserError where that leaves none."""
        if not self.scope:
            return names
        head, _, count = self.scope.partition(":")
        if count:
            layers = {layer_of(name) for name in self._seams} - {""}
            order = list(dict.fromkeys(layer_of(n) for n in names if layer_of(n) in layers))
            within = [name for name in names if layer_of(name) in order[-int(count) :]]
        else:
            within = names_of(resolve([head], self.roles, "peft.scope"), names, "places", False)
        if not within:
            raise UserError(
                f"peft.scope={self.scope}: nothing that {', '.join(words)} may name lies there; "
                "choose another scope, or leave it out"
            )
        return within


def layer_of(name: str) -> str:
    """Return what a dotted name begins with, up to its last number: a layer or block; or ""."""
    found = re.match(r".*\.\d+(?=\.)", name)
    return found[0] if found else ""
