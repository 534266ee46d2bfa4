"""Applying a method to a model, and folding it into the weights.

The order is fixed: build, load base weights, freeze all, inject, unfreeze what is named, count.
`apply` does the last four.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from segsweep.base.errors import Unfit, UserError
from segsweep.model.family import Roles
from segsweep.model.layers.block import HostBlock
from segsweep.model.layers.seam import Seam, seams
from segsweep.peft.delta import remember_buffers, trained
from segsweep.peft.method import Method
from segsweep.peft.places import Places
from segsweep.peft.sites import Site, match, resolve


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters after a method is applied; each tensor counts once."""

    trainable: int
    added: int
    total: int

    @property
    def percent(self) -> float:
        """100 trainable / (base + added): equation 10 of the paper on Mask DINO and SEEM."""
        return 100 * self.trainable / self.total


def apply(model: nn.Module, method: Method, roles: Roles) -> Counts:
    """Freeze the model, add the method's parameters, unfreeze the weights it names, count.

    Args:
        model: a built model with its base weights; changed in place.
        method: the chosen word of `conf/peft`.
        roles: the model family's patterns for the words in `method.train` and its targets.

    Raises:
        UserError: a role or a pattern names nothing, a size does not fit the model, or the model
            does not give what the method needs.
        RuntimeError: the parameters counted are not those of the method's formula.
    """
    model.requires_grad_(False)
    remember_buffers(model)
    base = _count(model.parameters())
    shapes = method.inject(Places(model, roles, method.scope))
    refuse_blind(method, seams(model))
    sites = match(model, resolve(method.train, roles))
    selected = [site.parameter for site in sites if not site.parameter.requires_grad]
    _refuse_trained(sites)
    for parameter in selected:
        parameter.requires_grad_(True)
    if method.detached:
        _refuse_unreached(model)
    added = method.once(shapes) + sum(map(method.size, shapes.values()))
    counts = Counts(_count(p for _, p in trained(model)), added, _count(model.parameters()))
    expected = (added + _count(selected), base + added)
    if (counts.trainable, counts.total) != expected:
        raise RuntimeError(
            f"{method.name}: {counts.trainable:,} of {counts.total:,} parameters train, "
            f"by the method's formula {expected[0]:,} of {expected[1]:,} should"
        )
    return counts


def refuse_blind(method: Method, seams: Mapping[str, Seam]) -> None:
    """Refuse a method that must know where tokens are, where it fills seams that do not tell."""
    filled = [name for name, seam in seams.items() if seam.filling is not None]
    if method.needs_grid and (blind := [name for name in filled if not seams[name].gives_grid]):
        raise Unfit(
            f"peft={method.name} must know where tokens are in the image, which '{blind[0]}' does "
            "not tell; choose places in the blocks of a ViT, SAM or Swin, or another method"
        )


def merge(model: nn.Module) -> list[str]:
    """Fold edits into the weights, and fillings too where that is exact: the base's names are back.

    A filling that has `affine()` is folded into the linear layer of the block that reads what it
    gives, if that is all that reads it.

    Returns:
        Names of the seams that stay filled. An empty list means that the model is a plain base
        model again.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for attribute in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
    for block in model.modules():
        if isinstance(block, HostBlock):
            _fold(block)
    return [name for name, seam in seams(model).items() if seam.filling is not None]


@torch.no_grad()
def _fold(block: HostBlock) -> None:
    """Let linear layers read u where their fillings gave them u M + c: W <- W M^T, b <- b + W c.

    They get tensors of their own: others may share those of the base.
    """
    for name, place in seams(block).items():
        layer, affine = block.reader(name), getattr(place.filling, "affine", None)
        if affine is not None and layer is not None and layer.bias is not None:
            matrix, shift = affine()
            folded = layer.weight @ matrix.T, layer.bias + layer.weight @ shift
            layer.weight, layer.bias = (nn.Parameter(t, requires_grad=False) for t in folded)
            place.filling = None


def _refuse_trained(sites: Iterable[Site]) -> None:
    """Refuse to train a weight that is edited, too."""
    for site in sites:
        if parametrize.is_parametrized(site.module, site.attribute):
            raise UserError(
                f"peft.train names '{site.name}', which is edited; leave it out of peft.train, or "
                "out of what is edited"
            )


def _refuse_unreached(model: nn.Module) -> None:
    """Refuse what would train in the backbone ahead of its end, where no gradient arrives."""
    host = Places(model, {}).host
    reached = {p for part in (host.side, *host.tail()) for p in part.parameters()}
    own = {parameter for parameter in host.parameters() if parameter not in reached}
    if names := [name for name, parameter in trained(model) if parameter in own]:
        more = f" and {len(names) - 1} more" if names[1:] else ""
        raise UserError(
            f"peft: '{names[0]}'{more} would not learn: a network beside the blocks of the "
            "backbone lets no gradient enter them; leave out what else is trained or added there "
            "(peft.train, peft.parts)"
        )


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
