"""Visual prompt tuning: learned tokens beside those of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from segsweep.base.config import within
from segsweep.peft.method import BlockMethod, need_one_width

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places


@dataclass
class VPT(BlockMethod):
    """T prompts in front of the patches (Jia et al. 2022, arXiv:2203.12119): [cls; P; x].

    Shallow (eqs. 4 and 5): they enter the first block and go on as what it makes of them. `deep`
    (eq. 7): every further block gets T of its own in their place. Where attention has windows, all
    windows of an image have its prompts ahead, and their mean goes on; no prompt has a relative
    position. In a Swin prompts pass a merging of patches as four copies of themselves. Prompts do
    not reach the maps. (The released Swin gives windows prompts of other images of the batch.)

    Adds T d parameters per block that has prompts of its own; with `project` = k prompts are k
    wide, T k, and one layer brings all of them to d, k d + d. They start at U(-b, b) with
    b = sqrt(6 / (3 p^2 + d)), p the side of a patch, d (or k) the width of the first of them.

    The defaults are the released ones. `deep=true` is also the variant of AdaptFormer's program,
    where prompts of every block are dropped behind it, but for how that draws them first.
    """

    needs_grid: ClassVar[bool] = True
    shown: ClassVar[dict[str, str]] = {"prompts": "T={}"}

    prompts: int = within(5, least=1)
    deep: bool = False
    project: int = 0
    """Width of the prompts before the layer that all of them pass; 0: the host's, no such layer."""

    @property
    def identity(self) -> bool:
        """No: every token attends to the prompts."""
        return False

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every method, and Unfit where one layer cannot serve all blocks."""
        super().check(data, model)
        if self.project and self.deep:
            need_one_width(f"peft.project={self.project} with peft.deep=true", model)

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        """Hand in the prompts, see `Method.inject`; a place is T, their width and d."""
        from segsweep.peft.layers_tokens import Prompts, projection

        widths = {f"{name}.prompts": block.prompts.width for name, block in places.blocks().items()}
        widths = widths if self.deep else dict(list(widths.items())[:1])
        first = next(iter(widths.values()))
        patch = 3 * math.prod(places.host.patch_embed.patch_size)
        bound = math.sqrt(6 / (patch + (self.project or first)))
        shapes = {name: (self.prompts, self.project or d, d) for name, d in widths.items()}
        shared = {"backbone.shared": projection(self.project, first)} if self.project else {}
        prompts = {n: Prompts(t, own, bound, bool(shared)) for n, (t, own, _) in shapes.items()}
        places.put(shared | prompts)
        return shapes

    def size(self, shape: tuple[int, ...]) -> int:
        """T d, or T k."""
        count, own, _ = shape
        return count * own

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """k d + d of the layer that all prompts pass, if there is one."""
        _, own, d = next(iter(places.values()))
        return own * d + d if self.project else 0
