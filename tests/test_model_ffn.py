from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segsweep.model.layers import ffn
from segsweep.model.layers.ffn import feed_forward

C, HIDDEN = 3, 8


def plain(x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
    return second(first(x).relu())


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Tokens are taken five at a time."""
    monkeypatch.setattr(ffn, "CELLS", 5 * HIDDEN)


def layers(dtype: torch.dtype = torch.float32) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(C, HIDDEN, dtype=dtype), nn.Linear(HIDDEN, C, dtype=dtype)]


def kept(function, x: Tensor, pair: list[nn.Linear]) -> tuple[Tensor, list[Tensor]]:
    """What a function returns, and the tensors that it keeps for the gradient."""
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        return function(x, *pair), saved


@pytest.mark.parametrize("frozen", [(), ("x",), ("weight",), ("weight", "bias")])
def test_gradients_are_those_of_the_layers_called(frozen):
    results = []
    for function in (feed_forward, plain):
        pair = layers()
        x = torch.randn(2, 6, C, generator=torch.Generator().manual_seed(1))
        x.requires_grad_("x" not in frozen)
        for layer in pair:
            for name, parameter in layer.named_parameters():
                parameter.requires_grad_(name not in frozen)
        out = function(x, *pair)
        out.square().sum().backward()
        parameters = [p for layer in pair for p in layer.parameters()]
        results.append([out, *(t.grad for t in (x, *parameters) if t.requires_grad)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference)


def test_gradient_is_exact():
    pair = layers(torch.double)
    x = torch.randn(7, C, dtype=torch.double, requires_grad=True)
    weights = [p for layer in pair for p in layer.parameters()]
    assert torch.autograd.gradcheck(lambda x, *_: feed_forward(x, *pair), (x, *weights))


def test_the_hidden_layer_is_not_kept():
    x, pair = torch.randn(7, C, requires_grad=True), layers()
    out, saved = kept(feed_forward, x, pair)
    assert type(out.grad_fn).__name__ == "_FeedForwardBackward"
    sizes = {tensor.numel() for tensor in saved}
    assert 7 * HIDDEN not in sizes
    assert 7 * HIDDEN in {tensor.numel() for tensor in kept(plain, x, pair)[1]}


class Twice(nn.Module):
    """An edit of a weight that learns."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, weight: Tensor) -> Tensor:
        return self.factor * weight


def test_an_edited_weight_learns():
    gradients = []
    for function in (feed_forward, plain):
        pair = layers()
        for layer in pair:
            layer.requires_grad_(False)
            parametrize.register_parametrization(layer, "weight", Twice())
        out, saved = kept(function, torch.ones(7, C), pair)
        assert (7 * HIDDEN in {t.numel() for t in saved}) == (function is plain)
        out.square().sum().backward()
        gradients.append([layer.parametrizations.weight[0].factor.grad for layer in pair])
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference)


def test_layers_that_are_more_than_their_weights_are_called():
    class Shifted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    x, pair = torch.randn(7, C, requires_grad=True), layers()
    shifted, passed = Shifted(HIDDEN, C), []
    assert feed_forward(x, pair[0], shifted).equal(plain(x, pair[0], shifted))
    hooked = copy.deepcopy(pair[1])
    hooked.register_forward_hook(lambda *call: passed.append(call))
    feed_forward(x, pair[0], hooked)
    assert len(passed) == 1
    bare = nn.Linear(C, HIDDEN, bias=False)
    assert feed_forward(x, bare, pair[1]).equal(plain(x, bare, pair[1]))


def test_under_autocast_products_are_cast():
    x, pair = torch.randn(7, C, requires_grad=True), layers()
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward(x, *pair).dtype == torch.bfloat16
