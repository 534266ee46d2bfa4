"""VFM-Adapter: bypasses whose convolutions have kernels made by hypernetworks of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import Unfit
from segsweep.peft.convpass import BESIDE, Bypasses

if TYPE_CHECKING:
    from torch import nn

    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places

DPG = Enum(
    "DPG",
    {"none": "none", "input_independent": "input_independent", "input_aware": "input_aware"},
)


@dataclass
class VFMAdapter(Bypasses):
    """Bypasses with a 3 x 3 convolution (HOM) by kernels that are generated (DPG).

    Equations 5 to 8 of the paper on VFM-Adapter as its program computes them: with F = relu(u V) W,
    z channels, the code of an image is H = sum_t sum_p softmax_p(F_p . E_t) F_p over T masks (the
    paper divides by T), and its kernel is K = reshape(reshape(H W2) W1), without a bias (Ha et al.
    2017, arXiv:1609.09106). E is common to all adapters; one hypernetwork W1, W2 serves those
    beside attention, another those beside feed-forwards.

    The rows of the ablation (definitions ours): `dpg=input_independent` puts a learned code of each
    adapter in the place of H; `dpg=none` has a learned kernel with bias; `hom=false` leaves out the
    convolution and the phi behind it. T, s and the v channels between W2 and W1 are stated nowhere.

    Parameters per adapter beside 2dr + r + d: (d + 1)m + (m + 1)z of F with m = `meta_width`, or z
    of a code, or 9r^2 + r of a kernel; once: 2 (rv(z + 1) + 9r(v + 1)), and Tz of E.
    """

    axes: ClassVar[dict[str, str]] = {**Bypasses.axes, "masks": "masks T"}

    rank: int = within(32, least=1)
    hom: bool = True
    dpg: DPG = DPG.input_aware
    masks: int = within(10, least=1)
    embedding: int = within(64, least=1)  # z
    meta_width: int = within(64, least=1)
    kernel_width: int = within(64, least=1)  # v

    def check(self, data: DataSet, model: Family) -> None:
        """Raise as every method, and Unfit for a generated kernel of no convolution."""
        super().check(data, model)
        if not self.hom and self.dpg is not DPG.none:
            raise Unfit(
                f"peft.hom=false peft.dpg={self.dpg.name}: without HOM no convolution is there "
                "whose kernel could be generated; choose peft.dpg=none, or peft.hom=true"
            )

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Fill both places of every block, and `shared` of the host, see `Method.inject`."""
        sites = {}
        for place in BESIDE:
            sites |= places.fill([f"*.{place}"], partial(self.filling, place))
        if self.dpg is not DPG.none:
            places.put({"backbone.shared": self.shared()})
        return sites

    def filling(self, place: str, width: int) -> nn.Module:
        """Make an adapter for a place in a block whose tokens have so many channels."""
        from segsweep.peft import layers_spatial as layers

        if self.dpg is DPG.input_aware:
            conv = layers.InputAwareConv(place, width, self.meta_width, self.embedding)
        elif self.dpg is DPG.input_independent:
            conv = layers.InputIndependentConv(place, self.embedding)
        else:
            conv = layers.StaticConv(self.rank, "xavier") if self.hom else None
        return self.bypass(width, conv)

    def shared(self) -> nn.Module:
        """Make what all adapters use: a hypernetwork for those at each place, and E."""
        from torch import nn

        from segsweep.peft.layers_spatial import Hypernet

        sizes = self.embedding, self.kernel_width, self.rank
        shared = nn.ModuleDict({place: Hypernet(*sizes) for place in BESIDE})
        if self.dpg is DPG.input_aware:
            shared["masks"] = nn.Embedding(self.masks, self.embedding)  # drawn from N(0, 1)
        return shared

    def size(self, shape: tuple[int, ...]) -> int:
        """2dr + r + d, and what the adapter's convolution is made of."""
        r, m, z = self.rank, self.meta_width, self.embedding
        static, aware = self.hom * (9 * r**2 + r), (shape[0] + 1) * m + (m + 1) * z
        conv = {DPG.none: static, DPG.input_independent: z, DPG.input_aware: aware}
        return super().size(shape) + conv[self.dpg]

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """2 (rv(z + 1) + 9r(v + 1)) of the hypernetworks, Tz of E."""
        r, v, z = self.rank, self.kernel_width, self.embedding
        hypernets, masks = 2 * (r * v * (z + 1) + 9 * r * (v + 1)), self.masks * z
        shared = {DPG.none: 0, DPG.input_independent: hypernets, DPG.input_aware: hypernets + masks}
        return shared[self.dpg]
