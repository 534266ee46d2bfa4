"""Backbones out of timm, giving maps at strides 4, 8, 16 and 32: the one file that imports timm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import FocalNet
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones.focal import FocalFeatures, depthwise

if TYPE_CHECKING:
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock

__all__ = ["STRIDES", "DropPath", "SwinFeatures", "build_backbone"]

STRIDES = [4, 8, 16, 32]


def build_backbone(
    name: str, layout: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> tuple[nn.Module, list[int]]:
    """Build a timm model that gives feature maps, and the channels of these maps.

    The layout `resnet` holds its batch norm as buffers, as detectron2 does; `swin` agrees with
    detectron2-style Swin in padding and output norms; `focal` is a FocalNet with output norms and
    `focal_dw` its kind with depthwise convolutions, both as in SEEM; `timm` is any model with maps
    at strides 4 to 32. timm fixes the sizes of the FocalNets that it names: `FocalNet` is its class
    itself, with all sizes in `kwargs`. Raises UserError for a name that timm does not know or a
    model without these maps.
    """
    if layout in ("focal", "focal_dw"):
        sizes = {"num_classes": 0, "drop_path_rate": drop_path, **kwargs}
        focal = _create(name, pretrained=pretrained, **sizes)
        if not isinstance(focal, FocalNet):
            raise UserError(f"model.backbone.name={name} is no FocalNet, as layout={layout} wants")
        backbone = FocalFeatures(depthwise(focal) if layout == "focal_dw" else focal)
        return backbone, backbone.channels
    if layout == "swin":
        sizes = {"strict_img_size": False, "always_partition": True}
        swin = _create(name, pretrained=pretrained, drop_path_rate=drop_path, **sizes, **kwargs)
        backbone = SwinFeatures(swin)
        return backbone, backbone.channels
    if layout == "resnet":
        kwargs = {"norm_layer": FrozenBatchNorm, "zero_init_last": False, **kwargs}
    indices = _indices(name, kwargs)
    backbone = _create(
        name, pretrained=pretrained, features_only=True, out_indices=indices, **kwargs
    )
    if backbone.output_fmt.value != "NCHW":
        raise UserError(
            f"model.backbone.name={name} gives maps in the form {backbone.output_fmt.value}; Swin "
            "transformers want model.backbone.layout=swin"
        )
    return backbone, backbone.feature_info.channels()


def _maker(name: str) -> Callable[..., Any]:
    """What builds a model of this name."""
    if name == "FocalNet":
        return FocalNet
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"{name[:6]}*")[:8]) or "see timm.list_models()"
        raise UserError(f"model.backbone.name={name}: timm has no such model; near: {near}")
    return partial(timm.create_model, name)


def _create(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
    make = _maker(name)
    if pretrained:
        kwargs["pretrained"] = True
    try:
        return make(**kwargs)
    except TypeError as error:
        raise UserError(
            f"model.backbone: timm's {name} cannot be built so ({error}); correct "
            "model.backbone.kwargs, or choose model.backbone.layout=timm"
        ) from error
    except OSError as error:
        raise UserError(
            f"model.backbone.pretrained: weights of {name} cannot be fetched ({error}); fetch them "
            "where there is a network into the folder that HF_HOME names, or choose false"
        ) from error


def _indices(name: str, kwargs: dict[str, Any]) -> list[int]:
    """Find the outputs of strides 4, 8, 16 and 32 without building any weights."""
    with torch.device("meta"):
        probe = _create(name, features_only=True, **kwargs)
    strides = probe.feature_info.reduction()
    if missing := [stride for stride in STRIDES if stride not in strides]:
        raise UserError(
            f"model.backbone.name={name} has maps at strides {strides}, but none at {missing}; "
            "choose a hierarchical model, e.g. resnet50 or convnext_tiny"
        )
    own = probe.feature_info.out_indices
    return [own[len(strides) - 1 - strides[::-1].index(stride)] for stride in STRIDES]


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics and affine map are buffers: constants, not parameters."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ):
        super().__init__()
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            constant = torch.full((channels,), float(value), device=device, dtype=dtype)
            self.register_buffer(name, constant)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class SwinFeatures(nn.Module):
    """A timm Swin transformer with a norm for every output, as in detectron2-style detectors."""

    def __init__(self, swin: SwinTransformer):
        super().__init__()
        self.patch_embed = swin.patch_embed
        self.layers = nn.ModuleList(swin.layers)
        self.channels = [int(info["num_chs"]) for info in swin.feature_info]
        for i, channels in enumerate(self.channels):
            self.add_module(f"norm{i}", nn.LayerNorm(channels))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C_i, H_i, W_i) of all stages"""
        x, maps = self.patch_embed(images), []  # (B, H/4, W/4, C)
        for i, stage in enumerate(self.layers):
            x = stage.get_submodule("downsample")(x)
            for block in stage.get_submodule("blocks").children():
                x = _shifted_window(cast("SwinTransformerBlock", block), x)
            maps.append(self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2).contiguous())
        return maps


def _shifted_window(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Run a timm block on (B, H, W, C), padding to whole windows before the shift.

    timm shifts first and pads then, which mixes other cells at the border.
    """
    height, width = x.shape[1:3]
    down, right = -height % block.window_size[0], -width % block.window_size[1]
    padded = F.pad(block.norm1(x), (0, 0, 0, right, 0, down))
    x = x + block.drop_path1(block._attn(padded)[:, :height, :width])
    return x + block.drop_path2(block.mlp(block.norm2(x)))
