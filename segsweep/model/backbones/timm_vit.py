"""Any vision transformer of timm that has one map, run by timm itself: its last output, normed.

EVA-02, DINOv3, Perception Encoder, SigLIP 2, TIPSv2, RADIO, BEiT and others, under timm's names
behind `model.`. Methods edit weights here; blocks with places for them has `vit`, where a model is
plain. Position codes of other grids are resampled by timm, with antialias, in every forward pass.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import names, patches
from segsweep.model.backbones.base import (
    CLASS_TOKEN,
    NO_TOKEN,
    Backbone,
    State,
    Step,
    numbered,
)
from segsweep.model.backbones.host import Grid
from segsweep.model.backbones.timm import SIZE, create, of_size, pair, shapes

PYRAMID = False
SMALL = {
    "name": "Eva",
    "kwargs": {"img_size": 32, "patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}
    | {"use_rot_pos_emb": True, "init_values": 0.5},
}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> TimmViT:
    """Build timm's model of a name, or with all sizes in kwargs, for images of any size.

    Where timm takes none but of one size, `img_size` of `kwargs` says which. Raises UserError for
    what is no vision transformer or has other maps than it says, and as `timm.create`.
    """
    kwargs = {**({"drop_path_rate": drop_path} if drop_path else {}), **kwargs}
    with torch.device("meta"):
        try:
            trial = create(name, **{"dynamic_img_size": True, **kwargs})
            kwargs = {"dynamic_img_size": True, **kwargs}
        except UserError:  # it has no such option, or something else is wrong
            trial = create(name, **kwargs)
        _refuse_others(name, trial)
        channels, size = _tried(name, TimmViT(trial), pair(kwargs.get("img_size")))
    return TimmViT(create(name, pretrained, **kwargs), channels, size)


def weights(state: State, backbone: TimmViT, repatch: str = "bicubic") -> State:
    """Find the weights in a file under timm's names, in the model's sizes.

    Raises UserError for those of other models, and patches of another size that `repatch` leaves.
    """
    vit, found = backbone.model, names.alone(state)
    grid = getattr(getattr(vit, "patch_embed", None), "grid_size", None)
    if grid is not None:
        coded = 0 if getattr(vit, "no_embed_class", False) else getattr(vit, "num_prefix_tokens", 0)
        found = patches.fitted(found, vit.state_dict(), coded, grid, repatch)
    return names.weights(found, backbone)


class TimmViT(Backbone):
    """A transformer of timm, for images of one `size` (H, W) or of any."""

    def __init__(self, vit: Any, channels: int = 0, size: Grid | None = None):
        super().__init__()
        vit.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.model, self.size = vit, size
        self.channels, self.strides = [channels], [vit.feature_info[-1]["reduction"]]

    def steps(self) -> list[Step]:
        """Return one step: only timm can lead through its modules."""
        return [Step((self.model,), self._map)]

    def give_class_token(self) -> None:
        """Give the class token; see `Backbone`."""
        if getattr(self.model, "cls_token", None) is None:
            raise UserError(NO_TOKEN)
        self.gives = CLASS_TOKEN

    def _map(self, state: State) -> State:
        """Images, padded to whole patches -> the map (B, C, H, W)"""
        images, patch = state["images"], self.strides[0]
        images = F.pad(images, (0, -images.shape[3] % patch, 0, -images.shape[2] % patch))
        of_size(images, self.size)
        options = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        if self.gives != CLASS_TOKEN:
            return numbered(self.model.forward_intermediates(images, indices=1, **options))
        options["return_prefix_tokens"] = True
        ((_, ahead),) = self.model.forward_intermediates(images, indices=1, **options)
        return numbered([ahead[:, 0, :, None, None]])


def _refuse_others(name: str, model: nn.Module) -> None:
    """Refuse a model without attention, or whose maps have several strides."""
    able = hasattr(model, "forward_intermediates") and hasattr(model, "prune_intermediate_layers")
    stages: Any = getattr(model, "feature_info", ())
    strides = {stage["reduction"] for stage in stages} if able else set()
    attends = any("attn" in part for part, _ in model.named_modules())
    if len(strides) != 1 or not attends:
        raise UserError(
            f"model.backbone.name={name} is no vision transformer with one map, as "
            "model.backbone.layout=timm_vit wants; choose for example vit_base_patch16_224 or "
            "vit_base_patch16_dinov3, or for a hierarchical model model.backbone.layout=timm|swin"
        )


def _tried(name: str, trial: TimmViT, given: Grid | None) -> tuple[int, Grid | None]:
    """Return the channels of a model's map, and the only size of its images, None if of any."""
    try:
        only, (shape,) = None, shapes(name, trial, SIZE)
    except UserError:
        if given is None:
            raise
        only, (shape,) = given, shapes(name, trial, given)
    channels, *grid = shape
    wanted = [-(-side // trial.strides[0]) for side in only or SIZE]
    if grid != wanted:
        raise UserError(
            f"model.backbone.name={name} gives a map of {grid} cells where there should be "
            f"{wanted}; choose another model, e.g. vit_base_patch16_224"
        )
    return channels, only
