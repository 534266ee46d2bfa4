"""What every backbone is: a row of steps that lead from images to maps.

Where a method begins to act is found among the steps: those before it are at rest. They keep no
graph, and as what they give depends on the image alone, it may be kept (`run/features.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from segsweep.base.errors import UserError
from segsweep.model.layers.seam import Seam

CLASS_TOKEN = "class token"
NO_TOKEN = "model.pool=cls: the backbone has no class token; choose model.pool=avg"
State = dict[str, Tensor]
"""What passes between steps, by name, batch first: all that later steps need, and no more.

It begins as {"images": (B, 3, H, W)} and ends as maps {"0": (B, C_0, H_0, W_0), "1": ...} in the
order of `strides`; between the two it is what the backbone likes.
"""


class Step(NamedTuple):
    """A part of the forward pass, a function of images each by itself.

    `modules` hold all weights and places that `run` uses; `run` leaves its argument as it is.
    """

    modules: tuple[nn.Module, ...]
    run: Callable[[State], State]


class Backbone(nn.Module):
    """Turns images into maps (B, C_i, H/stride_i, W/stride_i).

    A subclass sets `channels` and `strides` of its maps and says its `steps`, the finer the more of
    it may be at rest.
    """

    channels: list[int]
    strides: list[int]
    gives: str = "maps"  # in words, if it is something else for good

    def steps(self) -> list[Step]:
        """Return the steps in their order; every parameter stands in the modules of one or more."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C_i, H_i, W_i) in the order of `strides`"""
        return self.maps(passed(self.steps(), {"images": images}))

    def give_class_token(self) -> None:
        """Give in place of the map, for good, the class token behind the final norm, (B, C, 1, 1).

        Raises UserError where there is none.
        """
        raise UserError(NO_TOKEN)

    def leave_neck(self) -> None:
        """Give what comes before a neck of its own, for good, if it has one."""

    def maps(self, state: State) -> list[Tensor]:
        """Read the maps off the last state."""
        return [state[str(i)] for i in range(len(self.strides))]


def passed(steps: Iterable[Step], state: State) -> State:
    """Run steps one after the other."""
    for step in steps:
        state = step.run(state)
    return state


def at_rest(steps: Sequence[Step]) -> int:
    """Count the steps before the first that holds a trained weight, an edit or a filled place."""
    acting = (i for i, step in enumerate(steps) if any(map(_acts, step.modules)))
    return next(acting, len(steps))


def numbered(maps: Iterable[Tensor]) -> State:
    """Return the last state with these maps."""
    return {str(i): m for i, m in enumerate(maps)}


def each_alone(steps: Sequence[Step], images: Tensor) -> State:
    """Run steps image by image: in a batch, the last bits may depend on the other images."""
    return together([passed(steps, {"images": image[None]}) for image in images])


def computed(steps: Sequence[Step], images: Tensor) -> State:
    """Run steps on images (B, 3, H, W): image by image on a CPU, see `Segmenter.features`."""
    if images.device.type == "cpu":
        return each_alone(steps, images)
    return passed(steps, {"images": images})


def together(states: Sequence[State]) -> State:
    """States of one image each, (1, ...) -> their state as a batch, (B, ...) in its plain order"""
    names = states[0]
    return {name: torch.cat([state[name].contiguous() for state in states]) for name in names}


def _acts(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters()) or any(
        isinstance(part, ParametrizationList)
        or (isinstance(part, Seam) and part.filling is not None)
        for part in module.modules()
    )
