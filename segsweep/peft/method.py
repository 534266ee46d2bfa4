"""What every fine-tuning method declares: what it trains, adds, needs, and can be made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import Choice, neutral, outside
from segsweep.base.errors import Unfit, UserError
from segsweep.model.backbones import has_blocks, is_pyramid, layouts

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places

SCOPES = ("backbone", "neck", "encoder", "decoder", "head")  # what some model has


@dataclass
class Method(Choice):
    """One word of `conf/peft`: schema, implementation and yaml target in one class.

    A new method overrides `inject` (edit weights, fill seams) and `size` (its parameter count at a
    place from its paper's formula), and `once` if places share parameters; a choice of weights that
    train as they are needs a yaml alone. What general code and tests must know of it stands below:
    properties where it depends on the options.
    """

    tasks: ClassVar[tuple[str, ...] | None] = None
    """Files of `segsweep/task` that it can serve; None: every one."""
    needs_grid: ClassVar[bool] = False
    """Whether its fillings must be told where tokens are in the image (`Seam.gives_grid`)."""
    counted_by: ClassVar[str] = ""
    """Package whose numbers its counts are, where there is no formula; tables say so."""
    has_auxiliary_loss: ClassVar[bool] = False
    """Whether modules of it leave losses, `auxiliary` (`layers.seam`), in a forward of training."""

    in_blocks: ClassVar[bool] = False
    """Whether it lives in the blocks of a transformer backbone (`layers.block`)."""
    detached: ClassVar[bool] = False
    """Whether no gradient enters the blocks of the backbone, so that nothing in them learns."""
    sparse: ClassVar[bool] = False
    """Whether what it adds may get no gradient in a step: experts that nothing chose, say."""

    lr: float = outside(1e-3)
    """Learning rate that `hparams.lr` follows unless given; no part of a run's identity itself."""
    backbone_lr: float = outside(0.1)
    """Factor that `hparams.backbone_lr` follows unless given."""
    reference: bool = outside(False)
    """Whether tables and figures compare the other methods with this one."""
    train: list[str] = field(default_factory=list)
    """Weights of the base that are trained: roles of the model, or patterns of dotted names."""

    scope: str = neutral("")
    """Part of the model that it is kept to: backbone, neck, encoder, decoder or head, or `last:K`,
    the last K of the layers or blocks in which it has places."""

    @property
    def identity(self) -> bool:
        """Whether the untrained method leaves the model's outputs unchanged."""
        return True

    @property
    def mergeable(self) -> bool:
        """Whether all that it adds can be folded into the weights, so that it leaves no seam."""
        return True

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError for data whose task this method does not serve, or an unfit model."""
        if self.tasks is not None and data.task not in self.tasks:
            raise Unfit(
                f"peft={self.name} serves the task {' or '.join(self.tasks)}, "
                f"that of data={data.name} is {data.task}"
            )
        layout = model.backbone.layout
        if self.in_blocks and not has_blocks(layout):
            raise Unfit(
                f"peft={self.name} lives in the blocks of a transformer, which the backbone of "
                f"model={model.name} has not (model.backbone.layout={layout}); choose "
                f"another method, or a model with layout {'|'.join(filter(has_blocks, layouts()))}"
            )
        if self.scope and not re.fullmatch(r"last:[1-9]\d*", self.scope):
            parts = [part for part in model.scopes if part != "backbone" or has_blocks(layout)]
            if self.scope not in parts:
                raise (Unfit if self.scope in SCOPES else UserError)(
                    f"peft.scope={self.scope}: model={model.name} has no such part with places; "
                    f"choose from {', '.join(parts)}{', or ' * bool(parts)}last:K"
                )
            if self.in_blocks and self.scope != "backbone":
                raise Unfit(
                    f"peft.scope={self.scope}: peft={self.name} lives in the blocks of the "
                    "backbone; choose backbone, or last:K"
                )

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Add the method's parameters to a frozen model, return the places' names and shapes."""
        return {}

    def size(self, shape: tuple[int, ...]) -> int:
        """Count the parameters that the method adds at a place of this shape."""
        return 0

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """Count what the method adds beside that, once for all `places` of `inject`.

        Prompts, say, or a network that computes something for every place.
        """
        return 0

    def hf_lora(self) -> dict[str, Any] | None:
        """Return what `LoraConfig` of the package peft says of its edits; None: they are others.

        Edits that can be told so are W + lora_alpha / r B A, see `hf_factors`.
        """
        return None

    def hf_factors(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `lora_A`, (r, in), and `lora_B`, (out, r), made of the tensors of an edit."""
        return own


@dataclass
class BlockMethod(Method):
    """A method that fills places in the blocks of a transformer backbone; its fillings stay.

    What is trained of the base beside it are the embeddings of the task.
    """

    in_blocks: ClassVar[bool] = True

    train: list[str] = field(default_factory=lambda: ["embeddings"])

    @property
    def mergeable(self) -> bool:
        """No: what fills a place is, as a rule, no linear function of a weight."""
        return False


def need_one_width(what: str, model: Family) -> None:
    """Raise Unfit for options that need blocks of one width, where the backbone has several."""
    if is_pyramid(layout := model.backbone.layout):
        fitting = "|".join(word for word in layouts() if has_blocks(word) and not is_pyramid(word))
        raise Unfit(
            f"{what} needs blocks of one width, which model.backbone.layout={layout} has not; "
            f"choose a model with layout {fitting}"
        )
