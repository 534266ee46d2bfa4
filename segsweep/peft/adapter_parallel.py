"""Adapters beside the feed-forwards, or behind sublayers: AdaptFormer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.method import BlockMethod

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places

PLACES = {
    "parallel": ["*.after_mlp"],
    "intermediate": ["*.after_mlp"],
    "houlsby": ["*.after_attn", "*.after_mlp"],
    "pre": ["*.after_attn_sum"],
    "post": ["*.after_block"],
}
ALSO = {"sequential": "intermediate", "pfeiffer": "post"}  # other studies' words for the same
Position = Enum("Position", {place: place for place in PLACES} | ALSO)
Scaling = Enum("Scaling", {"fixed": "fixed", "learned": "learned", "channel": "channel"})
Norm = Enum("Norm", {"none": "none", "in": "in", "out": "out"})


@dataclass
class AdapterParallel(BlockMethod):
    """m + scale * up(Drop(ReLU(down(s)))), m = FFN(LN(s)), in every block.

    AdaptFormer (Chen et al. 2022, arXiv:2205.13535; models/adapter.py of its release). Starts at
    the base: `down` is Kaiming-uniform, `up` and all biases are 0. Adds 2dh + h + d parameters per
    place, h = `hidden`, and 1 with `scaling=learned`, d with `channel`, 2d with a norm.

    `position` names what an adapter reads and what it is added to: `parallel` s and m;
    `intermediate` m and m (the released program's `sequential`); `houlsby` the same behind
    attention, too; `pre` s and s; `post` (and `pfeiffer`, which is the same) the block's output.
    All see sublayers behind their LayerScale.

    `norm` is one of the adapter's own on what it reads (`in`) or on what it adds (`out`). A scale
    that is learned starts at `scale`; the released program has it start at 1.
    """

    shown: ClassVar[dict[str, str]] = {"hidden": "h={}"}
    init: ClassVar[str] = "zero_up"
    activation: ClassVar[str] = "relu"  # of torch.nn.functional
    eps: ClassVar[float] = 1e-5  # of the norm

    position: Position = Position["parallel"]
    hidden: int = within(64, least=1)
    scaling: Scaling = Scaling.fixed
    scale: float = within(0.1, above=0)
    norm: Norm = Norm["none"]
    dropout: float = within(0.1, below=1)
    """Probability that a value of the bottleneck is dropped."""
    drop_path: float = within(0.0, below=1)
    """Probability that an image passes without the adapter in training."""

    @property
    def identity(self) -> bool:
        """Whether all adapters start at 0."""
        return self.init == "zero_up"

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the places, see `Method.inject`."""
        import torch
        from torch import nn
        from torch.nn import functional

        from segsweep.peft.layers import Bottleneck, Branch

        def branch(width: int) -> nn.Module:
            activation = getattr(functional, self.activation)
            inner = Bottleneck(width, self.hidden, self.init, activation, self.dropout)
            learned = nn.Parameter(torch.full((self._scales(width),), self.scale))
            scale = learned if len(learned) else self.scale
            norm = {self.norm.name: nn.LayerNorm(width, self.eps)}
            parallel = self.position is Position["parallel"]
            return Branch(inner, parallel, scale, norm.get("in"), norm.get("out"), self.drop_path)

        return places.fill(PLACES[self.position.name], branch)

    def size(self, shape: tuple[int, ...]) -> int:
        """2dh + h + d, and what the scale and the norm have."""
        (width,) = shape
        norm = 0 if self.norm is Norm["none"] else 2 * width
        return 2 * width * self.hidden + self.hidden + width + self._scales(width) + norm

    def _scales(self, width: int) -> int:
        return {"fixed": 0, "learned": 1, "channel": width}[self.scaling.name]
