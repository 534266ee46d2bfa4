"""Scaling and shifting the features behind every layer, SSF."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from segsweep.base.errors import Unfit, UserError
from segsweep.peft.method import Method

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places

FeatureInit = Enum("FeatureInit", {"published": "published", "identity": "identity"})


@dataclass
class SSF(Method):
    """gamma * z + beta on what each layer z = W x + b gives (Lian et al. 2022, arXiv:2210.08823).

    That is a layer with the weight gamma * W, row by row, and the bias gamma * b + beta: weights of
    linear layers, layer norms and patch embeddings are edited, and `merge` folds all of it. It adds
    2c parameters per layer of c outputs; a fused query-key-value weight has one pair of 3d.

    In a backbone with blocks the words mean those of the blocks, and the patch embedding. Its last
    norm and the norms of a Swin's patch merging are named by patterns, `backbone.norm*.weight` and
    `*.downsample.norm.weight`; the authors intended the latter, but their program has none there.
    `neck` adds the four layers of SAM's neck [def]: two of them have no bias, so that their shift
    fills the seam behind, which is not folded.

    `init=published` draws gamma from N(1, 0.02) and beta from N(0, 0.02), which does not start at
    the base; `identity` starts with 1 and 0 [def]. Weight decay draws towards 0, not towards the
    base: `hparams.decays={*.ssf_*: 0}` leaves them out.
    """

    train: list[str] = field(default_factory=lambda: ["embeddings"])
    targets: list[str] = field(default_factory=lambda: ["linears", "norms", "patches"])
    """Weights of the layers: roles of the model, or patterns of dotted names."""
    neck: bool = False
    init: FeatureInit = FeatureInit.published

    @property
    def identity(self) -> bool:
        """Whether all scales are 1 and all shifts 0 at the start."""
        return self.init is FeatureInit.identity

    @property
    def mergeable(self) -> bool:
        """Whether every shift is that of a bias."""
        return not self.neck

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every method, and where there is no neck of SAM."""
        super().check(data, model)
        if self.neck and "neck" not in model.roles:
            raise Unfit(f"peft.neck=true: model={model.name} has no neck of SAM; leave it out")

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Edit weights and biases, see `Method.inject`; a place is the number of outputs."""
        from torch.nn import Parameter, init

        from segsweep.peft.layers import Edit, Filling

        added, std = {}, 0.0 if self.identity else 0.02
        sites = places.weights([*self.targets, *(["neck"] if self.neck else [])])
        for site in (site for site in sites if not site.attribute.endswith("bias")):
            empty = partial(site.parameter.new_empty, site.shape[0])
            scale, shift = (Parameter(init.normal_(empty(), mean, std)) for mean in (1, 0))
            site.edit(Edit(site, scaled, ssf_scale=scale))
            if bias := site.bias:
                bias.edit(Edit(bias, scaled_and_shifted, ssf_scale=scale, ssf_shift=shift))
            elif self.neck:  # behind the layer 0 is the seam after_0
                behind = ".after_".join(site.name.removesuffix(".weight").rsplit(".", 1))
                places.put(dict.fromkeys(places.seams([behind]), Filling(shifted, ssf_shift=shift)))
            else:
                raise UserError(
                    f"peft.targets: there is no bias to shift beside '{site.name}'; leave it out, "
                    "or say peft.neck=true for the neck of SAM"
                )
            added[site.name] = (len(scale),)
        return added

    def size(self, shape: tuple[int, ...]) -> int:
        """2c."""
        return 2 * shape[0]


def scaled(weight: Tensor, ssf_scale: Tensor) -> Tensor:
    """gamma * W, row by row. (out, ...), (out,) -> (out, ...)"""
    return weight * ssf_scale.view(-1, *[1] * (weight.ndim - 1))


def scaled_and_shifted(bias: Tensor, ssf_scale: Tensor, ssf_shift: Tensor) -> Tensor:
    """gamma * b + beta, 3 x (out,) -> (out,)"""
    return bias * ssf_scale + ssf_shift


def shifted(y: Tensor, stream: Tensor, ssf_shift: Tensor) -> Tensor:
    """Add beta to every cell of a map. (B, C, H, W), (C,) -> (B, C, H, W)"""
    return y + ssf_shift[:, None, None]
