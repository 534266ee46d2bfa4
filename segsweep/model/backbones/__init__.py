"""Backbones: one file per `model.backbone.layout`, the only ones that import timm.

Each has one function and one example:

    build(name, kwargs, drop_path, pretrained) -> module, channels of its maps
    SMALL = {"name": ..., "kwargs": ...}    a small one of its kind, for trying out and for tests

The module turns images (B, 3, H, W) into maps (B, C_i, H_i, W_i) at STRIDES.
"""

from __future__ import annotations

import pkgutil

STRIDES = (4, 8, 16, 32)


def layouts() -> list[str]:
    """Return the words that `model.backbone.layout` may have: the files beside this one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))
