"""Families without queries: a backbone, a neck, and layers that read each of its levels.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import within
from segsweep.base.errors import UserError
from segsweep.model.backbones import has_output_norms, is_pyramid
from segsweep.model.family import BLOCK_ROLES, Family
from segsweep.model.necks.sizes import check_input

if TYPE_CHECKING:
    from collections.abc import Iterable

    from segsweep.data.base import DataSet, Subject
    from segsweep.loss.base import BaseCriterion
    from segsweep.model.backbones.base import Backbone
    from segsweep.model.family import Roles, State
    from segsweep.model.heads.pyramid import PyramidHead
    from segsweep.model.necks.base import Neck
    from segsweep.model.segmenter import Segmenter

HEAD, NECK = "sem_seg_head.", "sem_seg_head.neck."
OUTPUT_NORMS = "backbone.norm[0-3].*"


@dataclass
class NeckConfig:
    """A neck by name, a file of `segsweep/model/necks`, and what its `build` is told.

    Without a name it is what the family takes for the maps of its backbone.
    """

    name: str = ""
    kwargs: dict[str, Any] = within(default_factory=dict, least=-inf)


@dataclass
class Pyramid(Family):
    """What all of them share; `prefix` is the official name of what stands behind the neck.

    A file of the backbone alone is whole: neck and head then stay as they are drawn.
    """

    scopes: ClassVar[tuple[str, ...]] = ("backbone", "neck", "head")
    prefix: ClassVar[str] = "head."
    optional: ClassVar[tuple[str, ...]] = (f"{HEAD}*", OUTPUT_NORMS)

    neck: NeckConfig = field(default_factory=NeckConfig)

    def check(self, data: DataSet) -> None:
        """Raise as for any family, and UserError for inputs so small that a level vanishes."""
        super().check(data)
        _, kwargs = self.chosen_neck()
        if "scales" in kwargs:
            check_input(self.backbone.name, self.backbone.kwargs, data, **kwargs)

    def necks(self, pyramid: bool) -> tuple[str, dict[str, Any]]:
        """Return name and `kwargs` of the neck for maps at STRIDES, or for one map."""
        raise NotImplementedError

    def head(self, neck: Neck, subject: Subject) -> PyramidHead:
        """Build what stands behind the backbone, drawn by torch's global generator."""
        raise NotImplementedError

    def criterion(self, neck: Neck, subject: Subject) -> BaseCriterion:
        """Build the loss."""
        raise NotImplementedError

    def build(self, subject: Subject) -> Segmenter:
        """Build the model with random weights; only number and kind of the classes matter."""
        from segsweep.model.segmenter import Segmenter

        backbone = self.build_backbone()
        neck = self.build_neck(backbone)
        head, criterion = self.head(neck, subject), self.criterion(neck, subject)
        return Segmenter(backbone, head, criterion, drop_path=self.backbone.drop_path > 0)

    def build_backbone(self) -> Backbone:
        """Build the backbone, with random weights unless it is `pretrained`."""
        return self.backbone.build()

    def chosen_neck(self) -> tuple[str, dict[str, Any]]:
        """Return name and `kwargs` of the neck, those of `necks` but for what is given."""
        name, kwargs = self.necks(is_pyramid(self.backbone.layout))
        if self.neck.name and self.neck.name != name:
            name, kwargs = self.neck.name, {}
        return name, {**kwargs, **self.neck.kwargs}

    def build_neck(self, backbone: Backbone) -> Neck:
        """Build the neck for the maps of a backbone."""
        name, kwargs = self.chosen_neck()
        maps = backbone.channels, backbone.strides
        try:
            build = import_module(f"segsweep.model.necks.{name}").build
            signature(build).bind(*maps, **kwargs)
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(
                f"model.neck: {name} cannot be built with {kwargs} ({error}); choose a neck of "
                "segsweep/model/necks, and what its build takes as model.neck.kwargs"
            ) from error
        return build(*maps, **kwargs)

    def check_widths(self, neck: Neck) -> None:
        """Refuse levels of unequal widths for layers that all of them pass."""
        if len({*neck.channels}) > 1:
            raise UserError(
                f"model.neck.name={self.neck.name}: gives levels of {neck.channels} channels, but "
                f"model={self.name} leads all through the same layers; leave out model.neck.name, "
                "or choose fpn"
            )

    @property
    def roles(self) -> Roles:
        """Patterns of the weights and seams that a method may name by one word.

        What is new in every run, neck, head and norms of the maps, is head and embeddings alike.
        """
        norms = [OUTPUT_NORMS] if has_output_norms(self.backbone.layout) else []
        behind = [f"{HEAD}*", *norms]
        return {
            "head": behind,
            "decoder": behind,
            "embeddings": behind,
            "neck": [f"{NECK}*", *norms],
            "backbone": ["backbone.*"],
            "deformable": [],
            "biases": ["backbone.*.bias"],
            **BLOCK_ROLES,
        }

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        """Draw `class_tensors` anew."""
        import torch

        from segsweep.model.heads.pyramid import PyramidHead

        assert isinstance(model.sem_seg_head, PyramidHead)
        model.sem_seg_head.reset_classes(torch.Generator().manual_seed(seed))

    def refuse_other_family(self, names: Iterable[str]) -> None:
        """Refuse none: of a file of another family the backbone is taken, if it fits."""

    def ours(self, state: State) -> State:
        """Leave names as they are: which are the backbone's, `fitted` tells by the model."""
        return state

    def fitted(self, state: State, model: Segmenter) -> State:
        """Return what of a file the model has, under our names; see `named`."""
        return self.named(state, model.backbone)

    def named(self, state: State, backbone: Backbone) -> State:
        """Give what a file holds our names: backbone, neck and head; all else is left.

        In a file of a backbone alone a neck is the backbone's own, as of SAM. Raises UserError for
        a file that holds no such backbone.
        """
        ours = {f"backbone.{n}": t for n, t in self.backbone.weights(state, backbone).items()}
        if not any(name.startswith("backbone.") for name in state):
            return ours
        pairs = (HEAD, HEAD), ("neck.", NECK), (self.prefix, HEAD)
        for name, tensor in state.items():
            for theirs, prefix in pairs:
                if name.startswith(theirs):
                    ours[prefix + name.removeprefix(theirs)] = tensor
        return ours

    def official(self, model: Segmenter) -> State:
        """Return the whole state dict: neck and head under the names of mmdet and mmsegmentation.

        The backbone keeps ours, which are timm's.
        """
        pairs = (NECK, "neck."), (HEAD, self.prefix)
        return {_renamed(name, pairs): tensor for name, tensor in model.state_dict().items()}


def _renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for ours, theirs in pairs:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
