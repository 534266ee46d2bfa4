"""(IA)3: keys, values and hidden features scaled by learned vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from segsweep.peft.method import Method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segsweep.peft.places import Places

Place = Enum("Place", {"weights": "weights", "activations": "activations"})


@dataclass
class IA3(Method):
    """l * K, l * V and l * FFN(x), element by element (Liu et al. 2022, arXiv:2205.05638, eq. 2).

    A vector starts at ones, so training starts at the base; nothing is drawn.

    `place=weights` scales what makes the activations: the rows of a key or a value projection with
    their biases (l * (W x + b)), and the columns of the second layer of a feed-forward (W (l * h)),
    which is the scale of the hidden features itself, so no seam is needed behind the first layer.
    It adds d_k, d_v and d_ff parameters per layer; `merge` folds them into the weights.

    `place=activations` scales what an attention layer gives (l * y, d parameters per seam), which
    is none of the paper's three but what the seams of a model offer. Fillings are not folded.

    Weight decay draws towards 0, not towards the base: `hparams.decays={*.ia3: 0}` leaves it out.
    """

    train: list[str] = field(default_factory=lambda: ["embeddings"])
    place: Place = Place.weights
    rows: list[str] = field(default_factory=lambda: ["keys", "values"])
    """Projections whose outputs are scaled: roles of the model, or patterns of dotted names."""
    columns: list[str] = field(default_factory=lambda: ["feedforward"])
    """Layers whose inputs are scaled; [] leaves the feed-forwards as they are."""
    seams: list[str] = field(default_factory=lambda: ["seams"])
    """Places to fill with `place=activations`."""

    @property
    def mergeable(self) -> bool:
        """Whether only weights are edited."""
        return self.place is Place.weights

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Edit the weights or fill the seams, see `Method.inject`; a place is a vector's length."""
        import torch
        from torch import nn

        from segsweep.peft.layers import Edit, Filling

        def filling(width: int) -> nn.Module:
            return Filling(scaled, ia3=nn.Parameter(torch.ones(width)))

        if self.place is Place.activations:
            return places.fill(self.seams, filling)
        shapes = {}
        for site in places.weights(self.rows):
            vector = nn.Parameter(site.parameter.new_ones(site.shape[0]))
            for part in filter(None, (site, site.bias)):
                part.edit(Edit(part, scaled_rows, ia3=vector))
            shapes[site.name] = (len(vector),)
        for site in places.weights(self.columns):
            vector = nn.Parameter(site.parameter.new_ones(site.shape[1]))
            site.edit(Edit(site, scaled_columns, ia3=vector))
            shapes[site.name] = (len(vector),)
        return shapes

    def size(self, shape: tuple[int, ...]) -> int:
        """d: the length of the vector."""
        return shape[0]


def scaled_rows(weight: Tensor, ia3: Tensor) -> Tensor:
    """Scale the rows of a weight or the entries of a bias. (out, ...), (out,) -> (out, ...)"""
    return weight * ia3.view(-1, *[1] * (weight.ndim - 1))


def scaled_columns(weight: Tensor, ia3: Tensor) -> Tensor:
    """Scale the columns of a matrix, as if its input were scaled. (out, in), (in,) -> (out, in)"""
    return weight * ia3


def scaled(y: Tensor, stream: Tensor, ia3: Tensor) -> Tensor:
    """Scale the channels of what an attention layer gives. (B, N, C), (C,) -> (B, N, C)"""
    return y * ia3
