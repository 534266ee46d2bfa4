"""Low-rank adaptation of attention weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import II

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.peft.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.peft.layers import Edit
    from segsweep.peft.places import Places
    from segsweep.peft.sites import Site

Fused = Enum("Fused", {"qv": "qv", "joint": "joint"})
LowRankInit = Enum("LowRankInit", {"standard": "standard", "xavier": "xavier"})


@dataclass
class LoRA(Method):
    """W + alpha/rank B A on every target weight (Hu et al. 2021, arXiv:2106.09685, eq. 3).

    Adds rank (in + out) parameters per place; `merge` folds them into the weights.

    A fused query-key-value weight is edited in one of two ways of the same size 4 rank d:
    `qv` gives its query rows and its value rows a pair of factors each (the equation for regular
    attention in the paper on Mask DINO and SEEM); `joint` spans all rows, keys too, with one pair
    (what that paper's released program computes). A pattern that ends in `:q`, `:k` or `:v`
    names a third of a fused weight itself.

    `init=standard` draws A from U(-1/sqrt(in), 1/sqrt(in)) and sets B = 0, so training starts at
    the base; `init=xavier` draws both factors Xavier-uniform, as that program in effect does,
    and starts elsewhere.
    """

    shown: ClassVar[dict[str, str]] = {"rank": "r={}"}
    axes: ClassVar[dict[str, str]] = {"alpha": "scale α"}

    train: list[str] = field(default_factory=lambda: ["embeddings"])
    targets: list[str] = field(default_factory=lambda: ["deformable", "attention"])
    """Weights to edit: roles of the model, or patterns of dotted names."""
    rank: int = within(8, least=1)
    alpha: float = II(".rank")
    """The edit is scaled by alpha / rank; follows the rank unless given, so that the scale is 1."""
    fused: Fused = Fused.qv
    init: LowRankInit = LowRankInit.standard

    def __post_init__(self) -> None:
        if isinstance(self.rank, int) and self.rank < 1:
            raise UserError(f"peft.rank={self.rank}: the rank must be at least 1")
        if not isinstance(self.alpha, str) and not self.alpha > 0:
            raise UserError(f"peft.alpha={self.alpha}: the scale alpha must be positive")

    @property
    def identity(self) -> bool:
        """Whether B = 0 at the start."""
        return self.init is LowRankInit.standard

    @property
    def scale(self) -> float:
        """The factor alpha / rank of the edit."""
        alpha = self.rank if isinstance(self.alpha, str) else self.alpha
        return alpha / self.rank

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Edit the target weights, see `Method.inject`."""
        shapes = {}
        for target in places.weights(self.targets):
            for site in split(target, self.fused):
                if len(site.shape) != 2:
                    raise UserError(f"peft.targets: '{site.name}' is no matrix: {site.shape}")
                site.edit(self.edit(site))
                shapes[site.name] = site.shape
        return shapes

    def edit(self, site: Site) -> Edit:
        """Return the edit of one weight, or of the rows of one."""
        from segsweep.peft.layers import Edit, factors

        drawn = factors(site, self.rank, self.init.name)
        return Edit(site, partial(low_rank, scale=self.scale), **drawn)

    def hf_lora(self) -> dict[str, Any] | None:
        """Return rank and alpha in HF's words, see `Method.hf_lora`."""
        return {"r": self.rank, "lora_alpha": self.scale * self.rank}

    def size(self, shape: tuple[int, ...]) -> int:
        """rank (out + in)."""
        return self.rank * sum(shape)


def split(site: Site, fused: Fused) -> list[Site]:
    """Take a fused weight apart into the rows that are edited, see `LoRA`."""
    return [site.third("q"), site.third("v")] if site.fused and fused is Fused.qv else [site]


def low_rank(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
    """W + scale B A. (out, in), (r, in), (out, r) -> (out, in)"""
    return weight + scale * (lora_B @ lora_A)
