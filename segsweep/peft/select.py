"""Training a part of the base's own weights: full head, decoder only, embeddings only, nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segsweep.base.errors import Unfit, UserError
from segsweep.peft.method import Method

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.model.family import Family


@dataclass
class Select(Method):
    """The weights named by `train` are trained as they are, nothing is added."""

    def check(self, data: DataSet, model: Family) -> None:
        """Raise as every method, and Unfit for a scope, which limits what is added."""
        super().check(data, model)
        if self.scope:
            raise Unfit(
                f"peft.scope={self.scope}: peft={self.name} adds nothing that could be kept to a "
                "part of the model; leave it out, or name what trains by peft.train"
            )


@dataclass
class FromScratch(Select):
    """The same from random weights; the yaml of its word leaves the base weights out."""

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every method, and for a model that is given weights."""
        super().check(data, model)
        given = {
            "model.weights": model.weights,
            "model.backbone.pretrained": model.backbone.pretrained,
        }
        for key, value in given.items():
            if value:
                raise UserError(
                    f"{key}={value}: peft={self.name} starts from random weights; leave {key} out, "
                    "or choose peft=full_ft, which trains the same weights from a base"
                )
