"""The segmenter: backbone -> head -> loss, or what is found.

Letters of all shapes: B images, Q queries, N tokens, C channels, L levels, K classes, P points,
S prediction sets, M masks. Boxes are (cx, cy, w, h) in [0, 1] unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segsweep.loss.base import BaseCriterion
from segsweep.model.backbones.base import Backbone, State, Step, at_rest, computed, passed
from segsweep.model.backbones.timm import drop_paths
from segsweep.model.layers.seam import auxiliary_losses

if TYPE_CHECKING:
    from segsweep.data.geometry import View
    from segsweep.data.loader import Batch, Target
    from segsweep.model.heads.base import Head


class Segmenter(nn.Module):
    """Raw outputs, their loss, and what is found; `requires_grad` freezes parts of it.

    The criterion stands beside the head, for official checkpoints name its buffers so. `drop_path`
    keeps a frozen backbone's drop path active in training, as in the programs that the published
    numbers come from.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        criterion: BaseCriterion,
        drop_path: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = head
        self.criterion = criterion
        self.drop_path = drop_path
        self.feature_cache: Callable[[list[Step], Tensor], State] | None = None

    def train(self, mode: bool = True) -> Segmenter:
        """Set the mode of what trains; whatever of the base is frozen stays in evaluation mode."""
        super().train(mode)
        if mode:
            for child in self.children():
                _rest(child)
        if self.drop_path:
            for module in drop_paths(self.backbone):
                module.train(mode)
        return self

    def forward(self, images: Tensor, targets: Sequence[Target] | None = None) -> Any:
        """(B, 3, H, W), H and W multiples of 32 -> the head's raw outputs; targets of training"""
        output = self.sem_seg_head(self.features(images), targets if self.training else None)
        if not self.training:
            auxiliary_losses(self)  # nobody wants them
        return output

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of the backbone, (B, 3, H, W) -> (B, C_i, H_i, W_i); without graph where frozen

        Its steps before the first that trains or is adapted are at rest. A CPU computes them image
        by image: to the last bit, what they give then is a function of the image, may be kept, and
        large images stay in the processor's caches.
        """
        steps = self.backbone.steps()
        resting = at_rest(steps)
        with torch.no_grad():
            state = self._state(steps[:resting], images)
        return self.backbone.maps(passed(steps[resting:], state))

    def _state(self, steps: list[Step], images: Tensor) -> State:
        """Run the steps at rest."""
        repeatable = steps and not (self.training and self.drop_path)
        if repeatable:
            return (self.feature_cache or computed)(steps, images)
        return passed(steps, {"images": images})

    @torch.no_grad()
    def predict(self, output: Any, views: Sequence[View], least: float = 0.0) -> list[Any]:
        """Return what is found on each image, at its original size: see `Head.predict`."""
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            return self.sem_seg_head.predict(output, views, least)

    def find(self, batch: Batch, least: float = 0.0) -> list[Any]:
        """Return what is found on each image of a batch: see `predict`."""
        return self.predict(self(batch.images), batch.views, least)

    def loss(self, output: Any, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Weighted total as `loss`, and its raw terms under their official names.

        What modules left as losses of their own is a part of the total, too.
        """
        terms = self.criterion(output, targets)
        total = self.criterion.total(terms)
        auxiliary = {f"loss_{name}": loss for name, loss in auxiliary_losses(self).items()}
        terms, total = {**terms, **auxiliary}, sum(auxiliary.values(), total)
        return {"loss": total, **{name: term.detach() for name, term in terms.items()}}


def _rest(module: nn.Module) -> None:
    """Put what is frozen into evaluation mode: all but modules whose parameters all train.

    A block of which a part trains (a norm, an edited weight) is frozen but for this part: it drops
    nothing, neither by layers without parameters nor by what it computes itself.
    """
    trains = [parameter.requires_grad for parameter in module.parameters()]
    if not any(trains):  # or without parameters, in a block of which a part trains
        module.eval()
    elif not all(trains):
        module.training = False
        for child in module.children():
            _rest(child)
