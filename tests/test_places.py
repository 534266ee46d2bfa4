"""Places of hosts: where they stand, what fillings are told and given, and their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones.base import at_rest, passed
from segsweep.model.backbones.host import Host
from segsweep.model.layers.block import WindowBlock
from segsweep.model.layers.seam import Place, Seam, Tokens, seams
from segsweep.peft.apply import apply, merge
from segsweep.peft.delta import delta_state_dict
from segsweep.peft.method import Method
from segsweep.peft.places import Places
from segsweep.run.feature_store import Disk
from segsweep.run.features import FeatureCache
from tests.small_hosts import blocks, images, layouts, small_host

PLACES = (
    *("prompts", "before_block", "after_norm1", "beside_qkv", "after_attn", "beside_attn"),
    *("after_attn_sum", "after_norm2", "after_mlp", "beside_mlp", "after_block"),
)
Seen = list[tuple[str, Tensor, Tensor, Tokens]]


class Witness(nn.Module):
    """A filling that tells what it is given and changes nothing, but adds prompts at first."""

    def __init__(self, name: str, seen: Seen, width: int):
        super().__init__()
        self.name, self.seen, self.bias = name, seen, nn.Parameter(torch.zeros(width))

    def forward(self, y: Tensor, residual: Tensor, tokens: Tokens) -> Tensor:
        self.seen.append((self.name, y, residual, tokens))
        tokens.computed.setdefault("first", self.name)
        if self.name.endswith(".prompts") and tokens.block == 0:
            y = torch.cat((y, y.new_ones(len(y), 2, y.shape[2])), dim=1)
        return y


def places(host: Host) -> dict[str, Place]:
    """Those that tell where tokens are; the neck of SAM has seams that do not."""
    return {name: seam for name, seam in seams(host).items() if isinstance(seam, Place)}


def watched(host: Host) -> Seen:
    """Fill all places, run the host, and return what fillings were given."""
    seen: Seen = []
    for name, place in places(host).items():
        place.filling = Witness(name, seen, place.width).double()
    host(images())
    return seen


def by_block(host: Host, seen: Seen) -> list[dict[str, tuple[str, Tensor, Tensor, Tokens]]]:
    n = len(PLACES)
    rows = [seen[n * i : n * (i + 1)] for i in range(len(blocks(host)))]
    return [dict(zip(PLACES, row, strict=True)) for row in rows]


@layouts
def test_every_place_is_met_once_in_every_block(layout: str) -> None:
    host = small_host(layout)
    names = {id(module): name for name, module in host.named_modules()}
    seen = watched(host)
    expected = [f"{names[id(block)]}.{place}" for block in blocks(host) for place in PLACES]
    assert [name for name, *_ in seen] == [*expected, "side"]
    assert {*expected, "side", "shared"} == places(host).keys()


@layouts
def test_fillings_are_told_where_the_tokens_are(layout: str) -> None:
    host = small_host(layout)
    for i, at in enumerate(by_block(host, watched(host))):
        block, whole = blocks(host)[i], at["before_block"][3].grid
        for place, (_, y, residual, tokens) in at.items():
            windowed = place == "beside_qkv" and isinstance(block, WindowBlock)
            assert tokens.grid == (block.window if windowed and any(block.window) else whole)
            prompts = 0 if place == "prompts" and i == 0 else 2
            assert (tokens.block, tokens.images, tokens.prompts) == (i, 2, prompts)
            assert tokens.prefix == host.prefix + prompts
            seam = block.get_submodule(place)
            assert isinstance(seam, Place)
            assert y.shape[2] == seam.width
            if place != "prompts":
                count = tokens.prefix + tokens.grid[0] * tokens.grid[1]
                assert y.shape[:2] == residual.shape[:2] == (len(y), count)
                assert len(y) % 2 == 0


@layouts
def test_fillings_share_what_a_forward_pass_has(layout: str) -> None:
    host = small_host(layout)
    seen = watched(host)
    *_, last = seen
    for *_, tokens in seen:
        assert tokens.computed == {"first": seen[0][0]}
        assert tokens.computed is last[3].computed
        assert tokens.embedded is last[3].embedded
        assert tokens.image is last[3].image
        assert tokens.shared is host.shared.filling
    rows, columns = host.patch_embed.patch_size
    assert last[3].embedded is not None
    assert last[3].embedded.shape[:3] == (2, 64 // rows, 96 // columns)
    assert last[3].image is not None
    assert torch.equal(last[3].image, images())
    assert len(last[3].outputs) == len(blocks(host)) + 1
    again = watched(host)
    assert again[0][3].computed is not seen[0][3].computed


@torch.no_grad()
def test_kept_states_hold_what_fillings_ask_for(tmp_path: Path) -> None:
    """Although as many steps with the same weights are at rest where no filling asks."""
    store = Disk(tmp_path, 2**24)
    for place, weight in (("side", "norm.bias"), ("blocks.1.before_block", "blocks.1.norm1.bias")):
        trained, filled, seen = small_host("vit"), small_host("vit"), []
        trained.requires_grad_(False).get_parameter(weight).requires_grad_(True)
        filled.requires_grad_(False).get_submodule(place).filling = Witness("", seen, 8).double()
        resting = {at_rest(host.steps()) for host in (trained, filled)}
        assert len(resting) == 1
        for host in (trained, filled):
            steps, count = host.steps(), min(resting)
            cache = FeatureCache("", store, entries=2, silent=True)
            passed(steps[count:], cache(steps[:count], images()))
        (tokens,) = (tokens for *_, tokens in seen)
        assert tokens.embedded is not None
        assert tokens.embedded.shape[3] == 8
        assert len(tokens.outputs) == (3 if place == "side" else 0)


@layouts
@torch.no_grad()
def test_streams_that_fillings_are_given(layout: str) -> None:
    """x goes into the block, s comes from attention; u and v are x and s behind their norms."""
    host = small_host(layout)
    for block, at in zip(blocks(host), by_block(host, watched(host)), strict=True):
        y, given = ({place: seen[k] for place, seen in at.items()} for k in (1, 2))
        x, u = y["before_block"], y["after_norm1"]
        s, v = y["after_attn_sum"], y["after_norm2"]
        for place in ("after_norm1", "after_attn", "after_attn_sum", "after_block"):
            assert torch.equal(given[place], x)
        assert torch.equal(u, block.norm1(x))
        assert torch.equal(y["beside_qkv"], block.attn.qkv(given["beside_qkv"]))
        assert torch.equal(given["beside_attn"], u)
        assert torch.equal(s, x + y["after_attn"])  # which LayerScale has scaled
        assert torch.equal(v, block.norm2(s))
        assert torch.equal(y["after_mlp"], block.ls2(block.mlp(v)))
        assert torch.equal(given["after_mlp"], s)
        assert torch.equal(given["beside_mlp"], v)
        assert torch.equal(y["after_block"], s + y["after_mlp"])


@layouts
@torch.no_grad()
def test_empty_places_are_nothing_and_full_ones_have_names(layout: str) -> None:
    host = small_host(layout)
    plain, before = host(images()), set(host.state_dict())
    chosen = ["*.prompts", "*side", "*shared"]
    added = Added(name="added", fills=chosen)
    apply(host, added, {})
    names = [name for name in seams(host) if name.endswith(("prompts", "side", "shared"))]
    assert len(names) == len(blocks(host)) + 2
    assert set(host.state_dict()) - before == {f"{name}.filling.bias" for name in names}
    assert delta_state_dict(host).keys() == {f"{name}.filling.bias" for name in names}
    assert merge(host) == names
    for a, b in zip(plain, host(images()), strict=True):
        torch.testing.assert_close(a, b)


@dataclass
class Added(Method):
    """A method of fillings that add a bias, zero at first; prompts without a token."""

    fills: Any = ()

    def inject(self, places: Places) -> dict[str, tuple[int, ...]]:
        return places.fill(self.fills, Bias)

    def size(self, shape: tuple[int, ...]) -> int:
        return shape[0]


class Bias(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, y: Tensor, residual: Tensor, tokens: Tokens | None = None) -> Tensor:
        return y + self.bias


class Placed(Added):
    needs_grid: ClassVar[bool] = True


class Model(nn.Module):
    """A host, and a head whose seam does not tell where tokens are."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.after_attn = small_host("vit"), Seam(8)


def test_a_method_that_needs_the_grid_fills_places_of_hosts_only() -> None:
    model = Model()
    counts = apply(model, Placed(name="placed", fills=["backbone.*.after_attn"]), {})
    assert counts.trainable == sum(8 for _ in blocks(model.backbone))
    said = r"peft=placed must know .* which 'after_attn' does not tell"
    with pytest.raises(UserError, match=said):
        apply(Model(), Placed(name="placed", fills=["*after_attn"]), {})
