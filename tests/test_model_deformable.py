from __future__ import annotations

import pytest
import torch
from reference import read_by_level
from torch import Tensor

from segsweep.model.layers.deformable import DeformableAttention, read

SHAPES = [(5, 7), (3, 2), (1, 1)]


def case(seed: int, spread: float, batch: int = 2, heads: int = 2, dim: int = 3) -> list[Tensor]:
    """Values, places x and y (in cells, some outside), and weights, in double precision."""
    random = torch.Generator().manual_seed(seed)
    reads = (batch, 6, heads * len(SHAPES) * 4)
    tokens = sum(h * w for h, w in SHAPES)
    value = torch.randn(batch, tokens, heads, dim, generator=random, dtype=torch.double)
    x, y = (3 + spread * torch.randn(2, *reads, generator=random, dtype=torch.double)).unbind()
    weights = torch.rand(reads, generator=random, dtype=torch.double)
    return [tensor.requires_grad_() for tensor in (value, x, y, weights)]


@pytest.mark.parametrize("spread", [1.0, 5.0, 1e4])
def test_read_agrees_with_grid_sample(spread):
    results = []
    for function in (read, read_by_level):
        value, *rest = inputs = case(0, spread)
        out = function(value, SHAPES, *rest)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).double())
        results.append([out, *(tensor.grad for tensor in inputs)])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


def test_gradient_is_exact():
    value, *rest = case(2, spread=2.0, batch=1, heads=1, dim=2)
    assert torch.autograd.gradcheck(lambda v, *r: read(v, SHAPES, *r), (value, *rest))


def test_values_may_be_frozen():
    value, x, y, weights = case(3, spread=2.0)
    read(value.detach(), SHAPES, x, y, weights).sum().backward()
    expected = case(3, spread=2.0)
    read_by_level(expected[0], SHAPES, *expected[1:]).sum().backward()
    for ours, reference in zip((x, y, weights), expected[1:], strict=True):
        torch.testing.assert_close(ours.grad, reference.grad)


def test_values_places_and_weights_are_all_that_is_kept():
    inputs, kept = case(5, spread=2.0), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        read(inputs[0], SHAPES, *inputs[1:])
    assert {tensor.data_ptr() for tensor in kept} == {tensor.data_ptr() for tensor in inputs}


def test_images_of_a_batch_do_not_mix():
    value, *rest = case(4, spread=2.0)
    whole = read(value, SHAPES, *rest)
    for image in range(len(value)):
        one = slice(image, image + 1)
        alone = read(value[one], SHAPES, *(tensor[one] for tensor in rest))
        torch.testing.assert_close(alone, whole[one])


def test_attention_without_offsets_reads_at_its_reference():
    attention = DeformableAttention(channels=4, heads=2, levels=1, points=2)
    with torch.no_grad():
        for layer in (attention.value_proj, attention.output_proj):
            layer.weight.copy_(torch.eye(4))
        attention.sampling_offsets.bias.zero_()
        memory = torch.arange(24.0).view(1, 6, 4)  # a map of 2 x 3
        reference = torch.tensor([[[0.5, 0.25], [5 / 6, 0.75], [1 / 3, 0.25]]])[:, :, None]
        out = attention(torch.zeros(1, 3, 4), reference, memory, [(2, 3)])
    expected = torch.stack([memory[0, 1], memory[0, 5], (memory[0, 0] + memory[0, 1]) / 2])
    torch.testing.assert_close(out[0], expected)
