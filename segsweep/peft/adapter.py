"""Sequential bottleneck adapters after the attention layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.peft.method import Method

if TYPE_CHECKING:
    from torch import nn

    from segsweep.peft.places import Places

Residual = Enum("Residual", {"kappa": "kappa", "lambda": "lambda", "kappa+lambda": "kappa+lambda"})
BottleneckInit = Enum(
    "BottleneckInit",
    {"zero_up": "zero_up", "xavier": "xavier", "bert": "bert", "near_identity": "near_identity"},
)


@dataclass
class Adapter(Method):
    """x <- up(ReLU(down(x))) + residual, `repeats` times, x = the attention's output at first.

    Houlsby et al. 2019 (arXiv:1902.00751), placed as by Pfeiffer et al. 2021 after the attention,
    before its residual sum and norm. Adds repeats (2dh + h + d) parameters per seam, h = d / k,
    k = `reduction`. Cannot be merged.

    `residual` is what each repetition adds: `kappa` the stream that entered the attention layer,
    `lambda` the attention's output, `kappa+lambda` their sum. The layer itself adds the stream
    once more afterwards, so only `lambda` with `init=zero_up` starts at the base.

    `init`: `zero_up` Kaiming-uniform down, zero up; `xavier` Xavier-uniform (what the released
    program in effect does); `bert` N(0, 0.02); `near_identity` N(0, 0.001) cut at two deviations
    (Houlsby). Biases start at zero.
    """

    shown: ClassVar[dict[str, str]] = {"repeats": "I={}", "residual": "{}"}
    spelling: ClassVar[dict[str, str]] = {"kappa": "κ", "lambda": "λ", "kappa+lambda": "κ+λ"}

    train: list[str] = field(default_factory=lambda: ["embeddings"])
    seams: list[str] = field(default_factory=lambda: ["seams"])
    """Places to fill: roles of the model, or patterns of the seams' dotted names."""
    repeats: int = within(1, least=1)
    reduction: int = within(4, least=1)
    residual: Residual = Residual["kappa+lambda"]
    init: BottleneckInit = BottleneckInit.zero_up

    def __post_init__(self) -> None:
        for key in ("repeats", "reduction"):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise UserError(f"peft.{key}={value}: must be at least 1")

    @property
    def identity(self) -> bool:
        """Whether each repetition returns the attention's output at the start."""
        return self.residual is Residual["lambda"] and self.init is BottleneckInit.zero_up

    @property
    def mergeable(self) -> bool:
        """No: a bottleneck is no linear function of a weight."""
        return False

    def hidden(self, width: int) -> int:
        """Divide the width d by the reduction k, exactly."""
        return reduced(width, self.reduction)

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill the seams, see `Method.inject`."""
        from segsweep.peft.layers import Bottlenecks

        def chain(width: int) -> nn.Module:
            options = self.repeats, self.residual.name, self.init.name
            return Bottlenecks(width, self.hidden(width), *options)

        return places.fill(self.seams, chain)

    def size(self, shape: tuple[int, ...]) -> int:
        """repeats (2dh + h + d)."""
        (width,) = shape
        hidden = self.hidden(width)
        return self.repeats * (2 * width * hidden + hidden + width)


def reduced(width: int, reduction: int, of: str = "the attention") -> int:
    """Divide the width of a place; raises UserError where the reduction does not divide it."""
    if width % reduction:
        divisors = ", ".join(str(k) for k in range(1, width + 1) if width % k == 0)
        raise UserError(
            f"peft.reduction={reduction} does not divide the width {width} of {of}; "
            f"choose from {divisors}"
        )
    return width // reduction
