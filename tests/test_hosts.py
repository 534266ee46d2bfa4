"""Hosts have timm's names and are right at image sizes for which timm is not."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import sam, swin, vit
from segsweep.model.backbones.timm import create
from segsweep.model.layers.block import WindowBlock
from segsweep.model.layers.seam import Tokens
from tests.small_hosts import blocks, cubic, example, images, layouts, small_host


def of_timm(layout: str, **changes: Any) -> Any:
    """timm's own model of the same sizes."""
    extra = {"always_partition": True} if layout == "swin" else {"num_classes": 0}
    small = example(layout)
    return create(small["name"], **{**small["kwargs"], **extra, **changes}).double().eval()


@layouts
def test_names_are_those_of_timm(layout: str) -> None:
    """But for the norms of a Swin's outputs, which are those of detectors."""
    skipped = ("norm", "head.") if layout == "swin" else ("fc_norm.",)
    kwargs = {} if layout == "swin" else {"global_pool": ""}
    ours, names = small_host(layout).state_dict(), of_timm(layout, **kwargs).state_dict()
    assert [(n, t.shape) for n, t in ours.items() if not n.startswith(skipped)] == [
        (n, t.shape) for n, t in names.items() if not n.startswith(skipped)
    ]


def fitted(state: dict[str, Tensor], prefix: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    """Resample a position code, and tables of relative positions linearly, for a grid."""
    code = state["pos_embed"]
    ahead, code = (code[:, :prefix], code[0, prefix:]) if code.ndim == 3 else (None, code[0])
    code = code.reshape(-1, code.shape[-1]) if ahead is not None else code.flatten(0, 1)
    old = int(len(code) ** 0.5)
    rows, columns = (cubic(old, size) for size in grid)
    code = torch.einsum("hy,wx,yxc->hwc", rows, columns, code.unflatten(0, (old, old)))[None]
    code = code if ahead is None else torch.cat((ahead, code.flatten(1, 2)), dim=1)
    fit = {**state, "pos_embed": code}
    for name, table in state.items():
        size = 2 * grid[name.endswith("w")] - 1
        if "rel_pos" in name and len(table) == 2 * old - 1:  # of a global block
            at = (np.arange(size) + 0.5) * len(table) / size - 0.5
            lines = [np.interp(at, np.arange(len(table)), line) for line in table.T.numpy()]
            fit[name] = torch.tensor(np.array(lines)).T
    return fit


@pytest.mark.parametrize("layout", ["vit", "sam"])
@pytest.mark.parametrize("size", [(48, 112), (80, 80)])
@torch.no_grad()
def test_any_grid(layout: str, size: tuple[int, int]) -> None:
    """As timm's model made for this size, whose code and tables were resampled otherwise."""
    host, grid = small_host(layout), (size[0] // 16, size[1] // 16)
    extra = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)} if layout == "sam" else {}
    plain = of_timm(layout, img_size=size, global_pool="", **extra)
    plain.load_state_dict(fitted(host.state_dict(), host.prefix, grid))
    expected = plain.forward_features(images(*size))
    if layout == "vit":
        expected = expected[:, host.prefix :].transpose(1, 2).unflatten(2, grid)
    torch.testing.assert_close(host(images(*size))[0], expected, atol=1e-10, rtol=0)


@layouts
@torch.no_grad()
def test_images_are_padded_to_whole_patches(layout: str) -> None:
    host = small_host(layout)
    patch = host.patch_embed.patch_size[0]
    padded = F.pad(images(65, 90), (0, -90 % patch, 0, -65 % patch))
    for a, b in zip(host(images(65, 90)), host(padded), strict=True):
        assert torch.equal(a, b)


def dense(block: WindowBlock, u: Tensor, tokens: Tokens) -> Tensor:
    """Attention in windows without windows: of all pairs of cells of the padded map, some count."""
    (height, width), prefix, attn = tokens.grid, tokens.prefix, block.attn
    rows, columns = block.window if any(block.window) else tokens.grid
    cells = u[:, prefix:].unflatten(1, tokens.grid)
    cells = F.pad(cells, (0, 0, 0, -width % columns, 0, -height % rows))
    whole = (cells.shape[1], cells.shape[2])
    u = torch.cat((u[:, :prefix], cells.flatten(1, 2)), dim=1)
    q, k, v = attn.qkv(u).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    y, x = torch.meshgrid(*map(torch.arange, whole), indexing="ij")
    y, x = (  # where a cell is after the shift
        ((at - by) % size).flatten()
        for at, by, size in zip((y, x), block.shift, whole, strict=True)
    )
    window = y // rows * whole[1] + x // columns
    wrapped = 2 * (y >= whole[0] - block.shift[0]) + (x >= whole[1] - block.shift[1])
    pairs = torch.nonzero((window[:, None] == window) & (wrapped[:, None] == wrapped)).T
    i, j = pairs  # a query and a key beside each other
    bias = torch.full_like(logits[:, :, prefix:, prefix:], -torch.inf)
    bias[:, :, i, j] = between(attn, q[:, :, prefix:], i, (y[i] - y[j], x[i] - x[j]), rows, columns)
    logits[:, :, prefix:, prefix:] += bias
    mixed = logits.softmax(-1) @ v
    alone = []  # prefix tokens see each window by itself
    for w in window.unique():
        some = torch.cat((torch.arange(prefix), prefix + torch.nonzero(window == w)[:, 0]))
        alone.append(logits[:, :, :prefix, some].softmax(-1) @ v[:, :, some])
    mixed[:, :, :prefix] = torch.stack(alone).mean(0)
    out = attn.proj(mixed.transpose(1, 2).flatten(2))
    cells = out[:, prefix:].unflatten(1, whole)[:, :height, :width]
    return torch.cat((out[:, :prefix], cells.flatten(1, 2)), dim=1)


def between(
    attn: Any, q: Tensor, i: Tensor, away: tuple[Tensor, Tensor], rows: int, columns: int
) -> Tensor:
    """What queries i get for keys so many rows and columns away, by SAM's rule or by Swin's."""
    down, across = away[0] + rows - 1, away[1] + columns - 1
    if hasattr(attn, "relative_position_bias_table"):
        return attn.relative_position_bias_table[down * (2 * columns - 1) + across].T
    tables = (
        F.interpolate(table.T[None], 2 * size - 1, mode="linear")[0].T
        for table, size in ((attn.rel_pos_h, rows), (attn.rel_pos_w, columns))
    )
    terms = zip(tables, (down, across), strict=True)
    return sum((q[:, :, i] * table[at]).sum(-1) for table, at in terms)


@pytest.mark.parametrize("layout", ["sam", "swin"])
@pytest.mark.parametrize("prefix", [0, 3])
@torch.no_grad()
def test_windows_are_pairs_of_near_cells(layout: str, prefix: int) -> None:
    """Maps that are not square, and no multiple of the window; prompts are in every window."""
    for block in blocks(small_host(layout))[:2]:
        assert isinstance(block, WindowBlock)
        tokens = Tokens((5, 10), prefix, images=2)
        u = torch.randn(2, prefix + 50, block.norm1.get_parameter("weight").numel()).double()
        torch.testing.assert_close(block.attend(u, tokens), dense(block, u, tokens))


class Own(nn.Module):
    """Prompts made of the image itself."""

    def forward(self, carried: Tensor, cells: Tensor, tokens: Tokens) -> Tensor:
        return cells[:, :2] if tokens.block == 0 else carried


@layouts
@torch.no_grad()
def test_prompts_stay_with_their_image(layout: str) -> None:
    host = small_host(layout)
    plain = host(images(80, 112))
    for block in blocks(host):
        block.prompts.filling = Own()
    both = host(images(80, 112))
    for i in range(2):
        alone = host(images(80, 112)[i : i + 1])
        for together, single, without in zip(both, alone, plain, strict=True):
            torch.testing.assert_close(together[i : i + 1], single)
            assert not torch.allclose(together[i], without[i])


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        (vit, "vit_relpos_small_patch16_224"),
        (vit, "vit_small_patch16_rope_224"),
        (vit, "samvit_base_patch16"),
        (vit, "vit_tiny_r_s16_p8_224"),
        (sam, "vit_tiny_patch16_224"),
        (swin, "swinv2_tiny_window8_256"),
    ],
)
def test_models_whose_blocks_are_others_are_refused(layout: Any, name: str) -> None:
    kind = layout.__name__.rpartition(".")[2]
    said = rf"model\.backbone\.name={name} is no .* as model\.backbone\.layout={kind} wants"
    with torch.device("meta"), pytest.raises(UserError, match=said):
        layout.build(name, {})
