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
from segsweep.model.layers.seam import seams
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import Counts, apply, merge
from segsweep.peft.delta import delta_bytes

MERGED, UNMERGED = "merged", "unmerged"


@dataclass(frozen=True)
class Variant:
    """One model to measure; `form` tells the two of a method that can be merged apart."""

    setting: str
    config: Config
    form: str | None
    model: Segmenter
    counts: Counts
    delta_bytes: int  # of the file that a run of this setting leaves

    @property
    def label(self) -> str:
        """What it is called among the others."""
        return f"{self.setting} {self.form}" if self.form else self.setting


def variants(base: Segmenter, config: Config, setting: str) -> Iterator[Variant]:
    """Apply a method to copies of a base: as it trains, and merged where something of it can be.

    `setting` is what the method with its options is called.
    """
    unmerged, merged = _sharing(base), _sharing(base)
    counts = [apply(model, config.peft, config.model.roles) for model in (merged, unmerged)][-1]
    size = _size(unmerged, config) if counts.trainable else 0
    forms = {UNMERGED: unmerged, MERGED: merged} if _folded(merged) else {None: unmerged}
    for form, model in forms.items():
        model.requires_grad_(False).eval()
        yield Variant(setting, config, form, model, counts, size)


def _folded(model: Segmenter) -> bool:
    """Merge a model, and say whether there was anything to fold: edits or fillings."""
    _detach(model)
    edited = any(parametrize.is_parametrized(module) for module in model.modules())
    filled = [name for name, seam in seams(model).items() if seam.filling is not None]
    return merge(model) != filled or edited


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
