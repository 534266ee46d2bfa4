"""Low-rank adaptation that starts from the principal part of each weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from segsweep.peft.lora import LoRA

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.peft.layers import Edit
    from segsweep.peft.sites import Site


@dataclass
class PiSSA(LoRA):
    """W + scale (B A - B0 A0), where scale B0 A0 is the principal part of W and B, A start as it.

    Meng et al. 2024 (arXiv:2404.02948, eq. 2 to 4): with the largest `rank` singular values S of
    W = U S V^T, A0 = sqrt(S / scale) V^T and B0 = U sqrt(S / scale). The paper trains B A beside
    the residual W - scale B0 A0; that is the same sum, which here is the base to the last bit at
    the start. B0 and A0 are kept with the delta, so that it is a LoRA of rank 2 `rank` for any
    program and depends on no other machine's decomposition.

    Where W has no so many singular values other than zero, as a weight of zeros, the rest of the
    factors starts as LoRA's does, by `init` [def]: factors of zero would never learn.
    """

    def edit(self, site: Site) -> Edit:
        """Return the edit of one weight, or of the rows of one."""
        from segsweep.peft.layers import Edit, factors

        start = factors(site, self.rank, self.init.name)
        if not site.parameter.is_meta:
            principal(site.weight, self.scale, start["lora_A"].data, start["lora_B"].data)
        kept = {f"{name}0": factor.detach().clone() for name, factor in start.items()}
        return Edit(site, partial(moved, scale=self.scale), **start, **kept)

    @property
    def identity(self) -> bool:
        """Whatever the factors start as, it is taken away again."""
        return True

    def hf_lora(self) -> dict[str, Any]:
        """Return rank and alpha in HF's words, of the trained and the first factors together."""
        return {"r": 2 * self.rank, "lora_alpha": self.scale * 2 * self.rank}

    def hf_factors(self, own: dict[str, Tensor]) -> dict[str, Tensor]:
        """B A - B0 A0 as one product: (2r, in) and (out, 2r)."""
        import torch

        down = torch.cat((own["lora_A"], own["lora_A0"]))
        return {"lora_A": down, "lora_B": torch.cat((own["lora_B"], -own["lora_B0"]), dim=1)}


def moved(
    weight: Tensor, lora_A: Tensor, lora_B: Tensor, lora_A0: Tensor, lora_B0: Tensor, scale: float
) -> Tensor:
    """W + scale (B A - B0 A0). (out, in), 2 x ((r, in), (out, r)) -> (out, in)"""
    return weight + scale * (lora_B @ lora_A - lora_B0 @ lora_A0)


def principal(weight: Tensor, scale: float, lora_A: Tensor, lora_B: Tensor) -> None:
    """Put the principal part of a weight (out, in) into A (r, in) and B (out, r), in place.

    That is as many rows and columns of them as the weight has singular values other than zero.
    """
    import torch

    precise = weight.to(torch.promote_types(weight.dtype, torch.float32))
    u, s, vh = torch.linalg.svd(precise, full_matrices=False)
    zero = s.max() * max(weight.shape) * torch.finfo(s.dtype).eps  # as in torch.linalg.matrix_rank
    rank = min(len(lora_A), int((s > zero).sum()))
    root = (s[:rank] / scale).sqrt()
    lora_A[:rank] = root[:, None] * vh[:rank]
    lora_B[:, :rank] = u[:, :rank] * root
