"""Losses that modules of a method leave: added by name in training, and gone after that."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segsweep.base.config import compose
from segsweep.data.loader import Batch, TrainLoader
from segsweep.model.layers.seam import seams
from segsweep.model.segmenter import Segmenter
from segsweep.peft.places import Places

BALANCE, LOAD = 3.0, 0.5


class Balanced(nn.Module):
    """Passes what comes, and leaves two losses; one of them by a module inside."""

    def __init__(self, width: int, always: bool) -> None:
        super().__init__()
        self.weight, self.always = nn.Parameter(torch.tensor(BALANCE)), always
        self.inner = nn.Identity()

    def forward(self, y: Tensor, *passing: Any) -> Tensor:
        if self.training or self.always:
            self.auxiliary = {"balance": self.weight.square()}
            self.inner.auxiliary = {"load": LOAD * self.weight}  # type: ignore[assignment]
        return y


@pytest.fixture(scope="module", params=[False, True], ids=["in training", "always"])
def model(request: pytest.FixtureRequest) -> Segmenter:
    config = compose(["model.weights=null", "model.queries=8", "model.points=16"])
    model = config.model.build(config.data.subject())
    model.requires_grad_(False)
    places = Places(model, config.model.roles)
    places.fill(["seams"], lambda width: Balanced(width, request.param))
    return model


@pytest.fixture(scope="module")
def batch() -> Batch:
    data = compose(["data.train=2", "data.val=2", "data.size=[64,64]"]).data
    return next(TrainLoader(data, 2, seed=0).batches(0, 1))


def losses(model: Segmenter, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return model.loss(model(batch.images, batch.targets), batch.targets)


def left(model: Segmenter) -> list[nn.Module]:
    return [module for module in model.modules() if vars(module).get("auxiliary")]


def emptied(model: Segmenter) -> Segmenter:
    model = copy.deepcopy(model)
    for seam in seams(model).values():
        seam.filling = None
    return model


def test_they_are_added_by_name_and_nothing_is_left(model: Segmenter, batch: Batch) -> None:
    fillings = [module for module in model.modules() if isinstance(module, Balanced)]
    terms = losses(model.train(), batch)
    assert len(fillings) > 1
    assert terms["loss_balance"] == len(fillings) * BALANCE**2
    assert terms["loss_load"] == len(fillings) * LOAD * BALANCE
    (gradient,) = torch.autograd.grad(terms["loss"], fillings[0].weight)
    assert gradient == 2 * BALANCE + LOAD
    assert not terms["loss_balance"].requires_grad
    assert not left(model)
    again = losses(model, batch)
    assert all(again[name].equal(term) for name, term in terms.items())
    bare = losses(emptied(model), batch)
    assert terms.keys() - bare.keys() == {"loss_balance", "loss_load"}
    added = terms["loss_balance"] + terms["loss_load"]
    torch.testing.assert_close(bare["loss"] + added, terms["loss"])


def test_an_evaluation_adds_none_and_takes_away_what_was_never_asked_for(
    model: Segmenter, batch: Batch
) -> None:
    model.train()(batch.images, batch.targets)  # whose loss nobody takes
    assert left(model)
    with torch.no_grad():
        terms = losses(model.eval(), batch)
    assert not {"loss_balance", "loss_load"} & terms.keys()
    assert not left(model)
    losses(model.train(), batch)
    copied = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert not any(left(other) for other in copied)
