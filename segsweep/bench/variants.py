"""What is compared: a base model, and each setting of a method on it.

All are copies, the base too, for Python runs copied modules a little slower. They share the tensors
of the base that they leave as they are, so all of them fit into one process.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.utils import parametrize

from segsweep.base.config import Config, plain
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import Counts, apply, merge
from segsweep.peft.delta import delta_bytes

MERGED, UNMERGED = "merged", "unmerged"


@dataclass(frozen=True)
class Variant:
    """One model to measure; `form` tells the two of a method that can be merged apart."""

    label: str
    config: Config
    form: str | None
    model: Segmenter
    counts: Counts
    delta_bytes: int  # of the file that a run of this setting leaves


def variants(base: Segmenter, config: Config, label: str) -> Iterator[Variant]:
    """Apply a method to copies of a base: as it trains, and merged where it edits weights.

    `label` is what the setting is called.
    """
    for form in (UNMERGED, MERGED):
        model = _sharing(base)
        counts = apply(model, config.peft, config.model.roles)
        edits = any(parametrize.is_parametrized(module) for module in model.modules())
        size = _size(model, config) if counts.trainable else 0
        if edits and form == MERGED:
            _detach(model)
            merge(model)
        model.requires_grad_(False).eval()
        if not edits:
            yield Variant(label, config, None, model, counts, size)
            return
        yield Variant(f"{label} {form}", config, form, model, counts, size)


def _sharing(model: Segmenter) -> Segmenter:
    """Copy modules and buffers, but not parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def _detach(model: nn.Module) -> None:
    """Give edited weights storage of their own: merging writes into it."""
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            weight = module.original
            module.original = nn.Parameter(weight.detach().clone(), requires_grad=False)


def _size(model: nn.Module, config: Config) -> int:
    meta = {"method": plain(config.peft), "base": config.model.name, "base_hash": "0" * 64}
    return len(delta_bytes(model, meta))
