"""Methods that live in blocks, in every kind of host: class tokens, windows, stages, any grid."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import pytest
import torch

from segsweep.base.errors import Unfit
from segsweep.base.words import files
from segsweep.model.backbones.host import Host
from segsweep.model.layers.seam import Tokens
from segsweep.peft.delta import trained
from tests.small_hosts import applied, images, layouts, small_host
from tests.words import class_of, compose

SAM = ("model=sam_tiny", "data=digits_binary")
MODELS = {"vit": SAM, "sam": SAM, "swin": ("model=maskdino_swinl", "data=digits")}
WORDS = [word for word in files("peft") if getattr(class_of("peft", word), "in_blocks", False)]


def lodged(layout: str, word: str) -> tuple[Host, Any]:
    """A small host with a method in it whose tensors are no longer those of the start."""
    method = compose([f"peft={word}", "peft.train=[]", *MODELS[layout]]).peft
    for size in ("reduction", "rank", "hidden"):
        if isinstance(getattr(method, size, None), int):
            setattr(method, size, 2)
    host = small_host(layout)
    torch.manual_seed(0)
    applied(host, method)
    for _, tensor in trained(host):
        tensor.add_(torch.randn_like(tensor), alpha=0.1)
    return host.eval(), method


def read_in_fillings(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Which fields of `Tokens` are read by files of methods, from now on."""
    seen: set[str] = set()

    class Watched(Tokens):
        def __getattribute__(self, name: str) -> Any:
            if "/peft/" in sys._getframe(1).f_code.co_filename:
                seen.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(import_module("segsweep.model.backbones.host"), "Tokens", Watched)
    return seen


@layouts
@pytest.mark.parametrize("word", WORDS)
@torch.no_grad()
def test_images_do_not_mix_on_any_grid(layout, word, monkeypatch):
    try:
        host, method = lodged(layout, word)
    except Unfit as error:
        pytest.skip(str(error))
    seen = read_in_fillings(monkeypatch)
    both = images(64, 40)
    together = host(both)
    for i, image in enumerate(both):
        for a, b in zip(together, host(image[None]), strict=True):
            torch.testing.assert_close(a[i], b[0])
    assert ("grid" in seen) <= method.needs_grid
