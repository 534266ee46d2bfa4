"""The filling of ARC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from segsweep.model.layers.seam import Tokens


class Recomposition(nn.Module):
    """u (I + D diag(s) D^T) + c (Dong et al. 2023, arXiv:2310.06234).

    Args:
        down: D, (d, r), which several of them share.
        drawn: whether s is drawn Xavier-uniform; else it starts at 0, as c always does.
        dropout: of the code u D diag(s), in training.
    """

    def __init__(self, down: nn.Parameter, drawn: bool, dropout: float) -> None:
        super().__init__()
        width, rank = down.shape
        self.down = down
        self.scale = nn.Parameter(down.new_zeros(1, rank))
        self.shift = nn.Parameter(down.new_zeros(width))
        self.dropout = nn.Dropout(dropout)
        if drawn:
            nn.init.xavier_uniform_(self.scale)

    def forward(self, u: Tensor, stream: Tensor, tokens: Tokens | None = None) -> Tensor:
        """Adapt every token, those of the prefix too: (B, N, d) -> (B, N, d)"""
        code = self.dropout(u @ (self.down * self.scale))
        return u + code @ self.down.T + self.shift

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return M, (d, d), and c, (d,), of the map u M + c that it is without dropout."""
        identity = torch.eye(len(self.down), dtype=self.down.dtype, device=self.down.device)
        return identity + (self.down * self.scale) @ self.down.T, self.shift
