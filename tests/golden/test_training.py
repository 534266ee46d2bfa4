"""One training step of the head gives the official loss terms, gradients and random draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks.criterion import Dense
from benchmarks.whole_step import plainly
from segsweep.data.loader import Target
from segsweep.loss import maskdino as losses
from segsweep.loss.maskdino import MaskDINOCriterion
from tests.golden.test_heads import check_outputs
from tests.golden.test_losses import padded_targets, pin_denoising

pytestmark = pytest.mark.golden
HEAD = "sem_seg_head."


class Pinned(MaskDINOCriterion):
    """Compares masks at the same recorded points everywhere."""

    def __init__(self, classes: int, matcher: Tensor, loss: Tensor):
        super().__init__(classes)
        self.pinned_matcher, self.pinned_loss = matcher, loss

    def matcher_points(self, images, device):
        return self.pinned_matcher.expand(images, -1, -1)

    def candidates(self, masks, device):
        return torch.empty(0), torch.empty(0)

    def loss_points(self, logits, drawn):
        return self.pinned_loss.expand(len(logits), -1, -1)


class Recorded(TorchFunctionMode):
    """Collects every random draw made under it."""

    def __init__(self):
        super().__init__()
        self.draws: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in (torch.rand, torch.randint, torch.rand_like, torch.randint_like):
            self.draws.append(result)
        return result


@pytest.fixture
def pinned(golden, monkeypatch) -> MaskDINOCriterion:
    arrays = golden.arrays("train_pinned")
    pin_denoising(monkeypatch, arrays, "in/dn_", "p_label")
    points = arrays["in/points_matcher"], arrays["in/points_loss"]
    return Pinned(golden.config["classes"], *points)


@pytest.fixture
def targets(golden) -> list[Target]:
    return padded_targets(golden, golden.arrays("model"))


@pytest.fixture
def matched(monkeypatch) -> list:
    """The pairs of the matcher, as they are found."""
    found = []

    def match(*args):
        found.append(original(*args))
        return found[-1]

    original = losses.match
    monkeypatch.setattr(losses, "match", match)
    return found


def check_terms(golden, criterion: MaskDINOCriterion, terms, arrays, prefix: str = "") -> Tensor:
    names = [k for k in arrays if k.startswith(f"{prefix}loss_raw/")]
    assert {k.removeprefix(f"{prefix}loss_raw/") for k in names} == set(terms)
    for name in names:
        term = terms[name.removeprefix(f"{prefix}loss_raw/")]
        golden.check(term, arrays[name], "losses")
    total = criterion.total(terms)
    golden.check(total, arrays[f"{prefix}total_weighted"], "total_weighted")
    return total


def check_pairs(golden, pairs, targets: list[Target], arrays) -> None:
    """Compare with `match/<set>/<image>`, rows query and target."""
    layers = len({k.split("/")[1] for k in arrays if k.startswith("match/aux")})
    sets = ["final", *(f"aux{i}" for i in range(layers)), "interm"]
    assert len(pairs.query) == len(sets)
    first = [sum(len(t.labels) for t in targets[:b]) for b in range(len(targets))]
    for s, name in enumerate(sets):
        rows = torch.stack([pairs.query[s], pairs.target[s]])
        for b, (query, target) in enumerate(rows.split(pairs.counts, dim=1)):
            assert torch.stack([query, target - first[b]]).equal(arrays[f"match/{name}/{b}"])


def test_pinned(golden, features, targets, pinned, matched):
    head, arrays = golden.head().train(), golden.arrays("train_pinned")
    output = head(features, targets)
    assert check_outputs(golden, output, arrays, "out/") > 1
    total = check_terms(golden, pinned, pinned(output, targets), arrays)
    check_pairs(golden, matched[0], targets, arrays)
    total.backward()
    check_gradients(golden, head, arrays)


def check_gradients(golden, head, arrays) -> None:
    gradients = {
        HEAD + name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in head.named_parameters(remove_duplicate=False)
    }
    names = golden.info("train_pinned")["grad_norm_names"]
    assert len(names) == len(list(head.parameters()))
    norms = torch.stack([gradients[name].norm() for name in names])
    golden.check(norms, arrays["grad_norm_values"], "gradients")
    for name in (k for k in arrays if k.startswith("grad/")):
        golden.check(gradients[name.removeprefix("grad/")], arrays[name], "gradients")


class PinnedDense(Pinned, Dense):
    """The same in the plain formulation."""


def test_plain_formulation_of_benchmarks(golden, features, targets, pinned):
    head, arrays = golden.head().train(), golden.arrays("train_pinned")
    dense = PinnedDense(golden.config["classes"], pinned.pinned_matcher, pinned.pinned_loss)
    with plainly():
        output = head(features, targets)
        check_outputs(golden, output, arrays, "out/")
        check_terms(golden, dense, dense(output, targets), arrays).backward()
    check_gradients(golden, head, arrays)


def test_weights(golden):
    criterion = MaskDINOCriterion(golden.config["classes"])
    for name, weight in golden.info("train_pinned")["weight_dict"].items():
        assert criterion.total({name: torch.tensor(1.0)}) == weight


@pytest.mark.parametrize(("case", "empty"), [("empty_img1", [1]), ("empty_all", None)])
def test_images_without_objects(golden, features, targets, pinned, case, empty):
    for b in range(len(targets)) if empty is None else empty:
        targets[b] = Target(targets[b].labels[:0], targets[b].boxes[:0], targets[b].masks[:0])
    head, arrays = golden.head().train(), golden.arrays("train_pinned")
    terms = pinned(head(features, targets), targets)
    total = check_terms(golden, pinned, terms, arrays, f"{case}/")
    total.backward()
    for parameter in head.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


def test_random_draws(golden, features, targets, matched):
    head, arrays = golden.head().train(), golden.arrays("train_rng")
    criterion = MaskDINOCriterion(golden.config["classes"], points=golden.config["points"])
    torch.manual_seed(golden.info("train_rng")["seed"])
    with Recorded() as recorded:
        terms = criterion(head(features, targets), targets)
    # the matcher's draws of all images of a set are one draw here: compare the streams
    wanted = [arrays[name] for name in sorted(k for k in arrays if k.startswith("draw/"))]
    stream, ours = (
        torch.cat([draw.flatten().double() for draw in draws]) for draws in (wanted, recorded.draws)
    )
    assert ours.equal(stream)
    check_terms(golden, criterion, terms, arrays)
    check_pairs(golden, matched[0], targets, arrays)
