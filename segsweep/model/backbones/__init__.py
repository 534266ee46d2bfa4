"""Backbones: one file per `model.backbone.layout`, the only ones that import timm.

Each has one function and one example:

    build(name, kwargs, drop_path, pretrained) -> Backbone, see `base`
    SMALL = {"name": ..., "kwargs": ...}    a small one of its kind, for trying out and for tests

A layout whose maps do not stand at STRIDES says so: `PYRAMID = False`. One whose backbones are
transformers with places in their blocks (`host`) says `BLOCKS = True`. One that adds norms to its
maps, `norm0` to `norm3`, which files of a classifier lack, says `OUTPUT_NORMS = True`.

Where weights have other names in files than in the module, a function `weights` finds them
(`names`); `SIGN` is a pattern of a name by which files of this kind are known, whoever wrote them.
"""

from __future__ import annotations

import pkgutil
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

STRIDES = (4, 8, 16, 32)


def layouts() -> tuple[str, ...]:
    """Return the words that `model.backbone.layout` may have: the files with `build`."""
    return _layouts(*__path__)


@cache
def _layouts(*folders: str) -> tuple[str, ...]:
    files = (module.name for module in pkgutil.iter_modules(folders))
    built = (file for file in files if re.search(r"^def build\(", _text(file), re.MULTILINE))
    return tuple(sorted(built))


def is_pyramid(layout: str) -> bool:
    """Say whether the backbones of a layout have maps at STRIDES."""
    return not re.search(r"^PYRAMID = False\b", _text(layout), re.MULTILINE)


def has_blocks(layout: str) -> bool:
    """Say whether the backbones of a layout have blocks with places for methods."""
    return bool(re.search(r"^BLOCKS = True\b", _text(layout), re.MULTILINE))


def has_output_norms(layout: str) -> bool:
    """Say whether the backbones of a layout have norms that files of a classifier lack."""
    return bool(re.search(r"^OUTPUT_NORMS = True\b", _text(layout), re.MULTILINE))


def _text(file: str) -> str:
    """Read what a file here says without importing it, which would need torch."""
    spec = find_spec(f"{__name__}.{file}")
    return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
