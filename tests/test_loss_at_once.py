from __future__ import annotations

from functools import partial
from weakref import WeakSet

import pytest
import torch
from torch import Tensor

from segsweep.loss.at_once import AtOnce
from segsweep.loss.maskdino import MaskDINOCriterion
from tests.test_loss import LAYERS, leaves, random_output
from tests.test_loss_parts import CLASSES, random_targets

WEIGHTS = {"mask": 5.0, "dice": 3.0}
POINTS = 64


def compared(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Losses of some kinds, of each row."""
    return {"mask": (a @ b).square().sum(1), "dice": (a.sin() @ b).sum(1)}


def of_rows(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    losses = AtOnce(WEIGHTS, [a, b])
    rows, other = losses.leaves
    for part in rows.split(2):
        losses.add(compared(part, other))
    parts = losses.losses()
    return {kind: torch.cat([part[kind] for part in parts]) for kind in WEIGHTS}


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([WEIGHTS[kind] * term.sum() for kind, term in terms.items()]).sum()


def inputs() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = (5, 4), (4, 3)
    return [torch.randn(s, generator=random, dtype=torch.double).requires_grad_() for s in shapes]


def test_gradient_is_exact():
    assert torch.autograd.gradcheck(lambda *tensors: 3 * total(of_rows(*tensors)), inputs())


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_none(frozen):
    gradients = []
    for function in (of_rows, compared):
        tensors = inputs()
        tensors[frozen].requires_grad_(False)
        total(function(*tensors)).backward()
        assert tensors[frozen].grad is None
        gradients.append(tensors[1 - frozen].grad)
    torch.testing.assert_close(*gradients)


def test_without_gradients_there_are_losses_all_the_same():
    with torch.no_grad():
        assert total(of_rows(*inputs())).equal(total(compared(*inputs())))


@pytest.mark.parametrize("wrong", [lambda t: t["mask"].sum(), lambda t: total(t) + t["dice"][0]])
def test_other_weights_are_refused(wrong):
    with pytest.raises(RuntimeError, match="other weights than their own"):
        wrong(of_rows(*inputs())).backward()


class Kept:
    """A tensor that the graph keeps, counted for as long as it does."""

    def __init__(self, alive: WeakSet[Kept], tensor: Tensor) -> None:
        self.tensor = tensor
        alive.add(self)


class Plain(MaskDINOCriterion):
    """The same loss with a graph that reaches the predictions."""

    def _terms(self, output, targets):
        class Through(AtOnce):
            def __init__(self, weights, inputs):
                self.leaves, self.added = inputs, []

            def add(self, losses):
                self.added.append(losses)

            def losses(self):
                return self.added

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("segsweep.loss.maskdino.AtOnce", Through)
            return super()._terms(output, targets)


def test_the_loss_of_a_step_keeps_no_points_and_has_the_same_gradients():
    torch.manual_seed(0)
    targets = random_targets([2, 3])
    output = random_output(targets)
    results, kept = [], []
    for kind in (MaskDINOCriterion, Plain):
        criterion = kind(CLASSES, points=POINTS)
        torch.manual_seed(1)
        alive: WeakSet[Kept] = WeakSet()
        pack = partial(Kept, alive)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
            terms = criterion(output, targets)
        kept.append(sum({k.tensor.data_ptr(): k.tensor.numel() for k in alive}.values()))
        whole = 1024 * criterion.total(terms)  # as precision scales it
        results.append([*terms.values(), *torch.autograd.grad(whole, leaves(output))])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-4)
    gradients = sum(leaf.numel() for leaf in leaves(output) if leaf.shape[-1] != 4)
    points = 4 * POINTS * (5 * (LAYERS + 1) + 15 * LAYERS)  # two numbers, truth and probability
    assert kept[0] < kept[1] - points + gradients
    assert kept[1] > points
