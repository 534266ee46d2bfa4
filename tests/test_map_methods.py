"""Methods that look at the whole map, on small hosts of every layout, with any weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from segsweep.base.config import compose
from segsweep.base.errors import Unfit
from segsweep.model.backbones import sam, vit
from segsweep.model.layers.seam import Tokens, seams
from segsweep.peft.convpass import Convpass
from segsweep.peft.delta import trained
from segsweep.peft.layers_spatial import convolved
from segsweep.peft.method import Method
from segsweep.peft.rein import Rein, TokenForm
from segsweep.peft.vfm_adapter import DPG, VFMAdapter
from tests.small_hosts import applied, images, layouts, small_host

NONE: Any = {"name": "", "train": []}  # nothing of the host itself
VFM: Any = {**NONE, "rank": 4, "embedding": 8, "meta_width": 8, "kernel_width": 8}
METHODS = {
    "convpass": Convpass(rank=4, **NONE),
    "bottleneck": VFMAdapter(hom=False, dpg=DPG.none, **VFM),
    **{f"vfm {dpg.name}": VFMAdapter(dpg=dpg, **VFM) for dpg in DPG},
    **{f"rein {form.name}": Rein(form=form, length=6, rank=2, **NONE) for form in TokenForm},
    "vfm in the last block": VFMAdapter(scope="last:1", **VFM),
    "rein in the last block": Rein(scope="last:1", length=6, rank=2, **NONE),
}
COUNTS = {  # added by methods with options, from the papers' formulas; one mask's embedding is 64
    "vit_base_patch16_224": {
        2_783_552 + 64: VFMAdapter(**NONE, masks=1),
        1_420_800: VFMAdapter(**NONE, dpg=DPG.none),
        327_552: Convpass(**NONE),
    },
    "samvit_huge_patch16": {
        27_789_568 + 64: VFMAdapter(**NONE, rank=128, masks=1),
        11_143_744 + 64: VFMAdapter(**NONE, masks=1),
        5_918_720: VFMAdapter(**NONE, dpg=DPG.none),
        1_430_528: Convpass(**NONE),
    },
    "vit_large_patch14_dinov2": {  # but for the link to queries, 256 (d + 1) + 256 (3 * 256 + 1)
        2_990_081 - 256 * 1025 - 256 * 769: Rein(**NONE),
    },
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def moved(layout: str, method: Method):
    """A small host with the method, every tensor of which has been moved."""
    host = small_host(layout)
    applied(host, method)
    torch.manual_seed(2)
    for _, parameter in trained(host):
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return host.eval()


@layouts
@methods
@torch.no_grad()
def test_images_together_are_each_alone(layout: str, method: Method) -> None:
    host, base = moved(layout, method), small_host(layout)
    for height, width in ((64, 96), (72, 40)):
        batch, changes = images(height, width), []
        for both, first, second, bare in zip(
            host(batch), host(batch[:1]), host(batch[1:]), base(batch), strict=True
        ):
            torch.testing.assert_close(both, torch.cat((first, second)), rtol=1e-9, atol=1e-9)
            changes.append((both - bare).abs().amax((1, 2, 3)).min())
        assert min(changes[-1:] if method.scope else changes) > 1e-3


@torch.no_grad()
def test_each_map_has_its_kernel_and_a_prefix_token_is_a_map() -> None:
    generator = torch.Generator().manual_seed(0)
    grid, prefix = (3, 5), 2
    x = torch.randn(2, prefix + 15, 4, generator=generator, dtype=torch.float64)
    kernels = torch.randn(2, 4, 4, 3, 3, generator=generator, dtype=torch.float64)
    for given in (kernels, kernels[:1]):  # one for each, one for all
        got = convolved(x, given, Tokens(grid, prefix))
        for tokens, result, kernel in zip(x, got, given.expand_as(kernels), strict=True):
            cells = tokens[prefix:].T.unflatten(1, grid)
            expected = torch.conv2d(cells, kernel, padding=1).flatten(1).T
            torch.testing.assert_close(result[prefix:], expected)
            for token, out in zip(tokens[:prefix], result[:prefix], strict=True):
                single = torch.conv2d(token[:, None, None], kernel, padding=1)
                torch.testing.assert_close(out, single.flatten())


def test_a_kernel_of_no_convolution_is_refused() -> None:
    words = ["model=sam_tiny", "peft=vfm_adapter", "data=digits_binary", "peft.hom=false"]
    with pytest.raises(Unfit, match=r"peft\.hom=false peft\.dpg=input_aware.+peft\.dpg=none"):
        compose(words)
    assert compose([*words, "peft.dpg=none"]).peft.hom is False


@pytest.mark.parametrize("word", COUNTS)
def test_parameters_are_as_many_as_published(word: str) -> None:
    with torch.device("meta"):
        host = (sam if word.startswith("sam") else vit).build(word, {})
    for added, method in COUNTS[word].items():
        assert applied(host, method).trainable == added
        for seam in seams(host).values():
            seam.filling = None
