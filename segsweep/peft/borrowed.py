"""Methods that are borrowed: the layers of the package peft (Hugging Face) as weight edits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import outside, within
from segsweep.base.errors import UserError
from segsweep.base.package import installed
from segsweep.peft.lora import Fused, split
from segsweep.peft.method import Method

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places

LIBRARY = "peft"


@dataclass
class Borrowed(Method):
    """W' = the weight that the library's layer computes with where its base weight is W.

    For every tuner whose layer is linear in its input x, layer(x) = W' x: what it gives for the
    identity is W' itself, and where the library gives its update as a matrix to be added, that is
    taken (`segsweep.peft.borrowed_layers`). So `merge` folds every one of them, and they act on
    the query and value rows of fused weights and on convolutions, as matrices (out, in k k), too,
    which is [def]: the library has no such layers. Biases stay as they are.

    What is drawn and stays frozen is made again from its seed in `options`, what is a
    decomposition of W from the base, so neither is part of a delta. There is no formula of ours:
    a place is as many numbers as the library trains there, what places share counts at the first.
    """

    counted_by: ClassVar[str] = LIBRARY
    sparse: ClassVar[bool] = True  # what turns or scales weights of zero does not learn
    shown: ClassVar[dict[str, str]] = {"rank": "r={}"}

    train: list[str] = field(default_factory=lambda: ["embeddings"])
    targets: list[str] = field(default_factory=lambda: ["deformable", "attention"])
    """Weights to edit: roles of the model, or patterns of dotted names."""
    fused: Fused = Fused.qv
    """How a fused query-key-value weight is edited, see `LoRA`."""
    tuner: str = ""
    """The library's word for it, a member of its `PeftType`."""
    rank: int | None = within(None, least=1)
    """r, of tuners that have one."""
    options: dict[str, Any] = within(default_factory=dict, least=-math.inf)
    """What else the library's class of configuration may be told; what is not said it decides."""
    base_start: bool = outside(True)
    """Whether the untrained layer computes with W, unless `options.init_weights` says otherwise."""
    version: str = ""
    """Of the library, that installed when the config was composed: part of a run's identity."""

    def __post_init__(self) -> None:
        self.version = self.version or installed(LIBRARY)

    @property
    def identity(self) -> bool:
        """Whether the library starts at the base."""
        return self.base_start and self.options.get("init_weights", True) is True

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every method, without the library, and for options of no use here."""
        super().check(data, model)
        if not (here := installed(LIBRARY)):
            raise UserError(
                f"peft={self.name} is a method of the package {LIBRARY}, which is not installed: "
                "pip install 'segsweep[peft]'"
            )
        if self.version != here:
            raise UserError(
                f"peft.version={self.version}: installed is {LIBRARY} {here}, which may compute "
                f"something else: pip install {LIBRARY}=={self.version}, or train again with {here}"
            )
        for option, value in self.options.items():
            if "dropout" in option:
                raise UserError(
                    f"peft.options.{option}={value}: dropout acts on the inputs of a layer, and "
                    "here the library sees weights only; leave it out"
                )

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Edit the target weights, see `Method.inject`; a place is a number of parameters."""
        from segsweep.peft.borrowed_layers import edits

        sites = [
            site for target in places.weights(self.targets) for site in split(target, self.fused)
        ]
        shapes, counted = {}, set()
        built = edits(sites, self.tuner, self.rank, self.options)
        for site, edit in zip(sites, built, strict=True):
            site.edit(edit)
            trained = set(edit.parameters()) - counted
            shapes[site.name] = (sum(parameter.numel() for parameter in trained),)
            counted |= trained
        return shapes

    def size(self, shape: tuple[int, ...]) -> int:
        """As the library has it."""
        return shape[0]
