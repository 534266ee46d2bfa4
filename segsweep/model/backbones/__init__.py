"""Backbones: one file per `model.backbone.layout`, the only ones that import timm.

Each has one function and one example:

    build(name, kwargs, drop_path, pretrained) -> Backbone, see `base`
    SMALL = {"name": ..., "kwargs": ...}    a small one of its kind, for trying out and for tests

A layout whose maps do not stand at STRIDES says so in its file, where it is read without importing
it: `PYRAMID = False`.
"""

from __future__ import annotations

import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

STRIDES = (4, 8, 16, 32)


def layouts() -> list[str]:
    """Return the words that `model.backbone.layout` may have: the files beside this one."""
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} - {"base"})


def is_pyramid(layout: str) -> bool:
    """Say whether the backbones of a layout have maps at STRIDES; importing it would need torch."""
    spec = find_spec(f"{__name__}.{layout}")
    text = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return not re.search(r"^PYRAMID = False\b", text, re.MULTILINE)
