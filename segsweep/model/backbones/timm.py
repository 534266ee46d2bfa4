"""Any model of timm that has maps at strides 4, 8, 16 and 32, and how the other files ask timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models import FocalNet
from torch import nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import STRIDES

SMALL = {"name": "resnet10t", "kwargs": {"stem_width": 8, "channels": [8, 16, 16, 32]}}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> tuple[nn.Module, list[int]]:
    """Build a model whose maps timm itself gives, and the channels of these maps.

    Raises UserError for a name that timm does not know or a model without maps at STRIDES.
    """
    indices = _indices(name, kwargs)
    backbone = create(name, pretrained, features_only=True, out_indices=indices, **kwargs)
    if backbone.output_fmt.value != "NCHW":
        raise UserError(
            f"model.backbone.name={name} gives maps in the form {backbone.output_fmt.value}; Swin "
            "transformers want model.backbone.layout=swin"
        )
    return backbone, backbone.feature_info.channels()


def create(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
    """Build the timm model of a name, or raise UserError saying what timm has against it.

    timm fixes the sizes of the FocalNets that it names: `FocalNet` is its class itself, with all
    sizes in `kwargs`.
    """
    make = _maker(name)
    if pretrained:
        kwargs["pretrained"] = True
    try:
        return make(**kwargs)
    except OSError as error:
        raise UserError(
            f"model.backbone.pretrained: weights of {name} cannot be fetched ({error}); fetch them "
            "where there is a network into the folder that HF_HOME names, or choose false"
        ) from error
    except Exception as error:  # what timm raises for sizes that do not fit is not listed anywhere
        raise UserError(
            f"model.backbone: timm's {name} cannot be built so ({type(error).__name__}: {error}); "
            "correct model.backbone.kwargs, or choose model.backbone.layout=timm"
        ) from error


def drop_paths(backbone: nn.Module) -> Iterator[nn.Module]:
    """Find the layers that drop whole residual branches in training."""
    return (module for module in backbone.modules() if isinstance(module, DropPath))


def _maker(name: str) -> Callable[..., Any]:
    """What builds a model of this name."""
    if name == "FocalNet":
        return FocalNet
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"{name[:6]}*")[:8]) or "see timm.list_models()"
        raise UserError(f"model.backbone.name={name}: timm has no such model; near: {near}")
    return partial(timm.create_model, name)


def _indices(name: str, kwargs: dict[str, Any]) -> list[int]:
    """Find the outputs at STRIDES without building any weights."""
    with torch.device("meta"):
        probe = create(name, features_only=True, **kwargs)
    strides = probe.feature_info.reduction()
    if missing := [stride for stride in STRIDES if stride not in strides]:
        raise UserError(
            f"model.backbone.name={name} has maps at strides {strides}, but none at {missing}; "
            "choose a hierarchical model, e.g. resnet50 or convnext_tiny"
        )
    indices = probe.feature_info.out_indices
    return [indices[len(strides) - 1 - strides[::-1].index(stride)] for stride in STRIDES]
