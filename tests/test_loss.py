"""Properties of the criterion: what it must not depend on, and the ends of its range."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from segsweep.data.loader import Target
from segsweep.loss.criterion import num_masks
from segsweep.loss.denoising import denoising_queries
from segsweep.loss.maskdino import MaskDINOCriterion
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.loss.pairs import Truth
from tests.test_loss_parts import CHANNELS, CLASSES, QUERIES, SIDE, quick, random_targets, seeds

LAYERS = 3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def random_output(targets: list[Target], denoise: bool = True) -> Output:
    """PredictionSets of all sets, leaves of the graph."""
    images = len(targets)

    def predictions(sets: int, queries: int) -> PredictionSets:
        shape = sets, images, queries
        logits, places = torch.randn(*shape, CLASSES), torch.rand(*shape, 4)
        leaves = logits, places, torch.randn(*shape, CHANNELS)
        return PredictionSets(*(leaf.requires_grad_() for leaf in leaves))

    label_enc = nn.Embedding(CLASSES, CHANNELS)
    queries = denoising_queries(targets, label_enc, QUERIES, CLASSES, 20) if denoise else None
    noised = predictions(LAYERS, queries.pad) if queries else None
    features = torch.randn(images, CHANNELS, SIDE // 4, SIDE // 4, requires_grad=True)
    return Output(predictions(LAYERS, QUERIES), predictions(1, QUERIES), noised, queries, features)


def leaves(output: Output) -> list[Tensor]:
    sets = [output.matching, output.interm, output.denoising]
    found = [field for part in sets if part for field in vars(part).values()]
    return [*found, output.mask_features]


def test_names_and_total():
    targets = random_targets([2, 3])
    criterion = MaskDINOCriterion(CLASSES, points=16)
    terms = criterion(random_output(targets), targets)
    layers = ["", "_0", "_1"]
    suffixes = [*layers, "_interm", *(f"_dn{layer}" for layer in layers)]
    kinds = ["ce", "mask", "dice", "bbox", "giou"]
    assert set(terms) == {f"loss_{kind}{suffix}" for kind in kinds for suffix in suffixes}
    weights = {"ce": 4, "mask": 5, "dice": 5, "bbox": 5, "giou": 2}
    expected = sum(weights[kind] * terms[f"loss_{kind}{s}"] for kind in kinds for s in suffixes)
    torch.testing.assert_close(criterion.total(terms), expected)
    assert criterion.state_dict()["empty_weight"].tolist() == pytest.approx([1, 1, 1, 0.1])


@quick
@given(seeds)
def test_order_of_targets_does_not_matter(seed):
    torch.manual_seed(seed)
    targets = random_targets([4, 2])
    output, criterion = random_output(targets, denoise=False), MaskDINOCriterion(CLASSES, points=16)
    shuffled = []
    for target in targets:
        order = torch.randperm(len(target.labels))
        shuffled.append(Target(target.labels[order], target.boxes[order], target.masks[order]))
    totals = []
    for case in (targets, shuffled):
        torch.manual_seed(seed)
        totals.append(criterion.total(criterion(output, case)))
    torch.testing.assert_close(*totals)


@quick
@given(seeds, st.sampled_from([0.0, 1e-7, 1e-3]))
def test_gradients_of_tiny_boxes_and_sure_logits_are_finite(seed, size):
    torch.manual_seed(seed)
    targets = random_targets([3, 1])
    output = random_output(targets)
    with torch.no_grad():
        for part in (output.matching, output.denoising):
            assert part is not None
            assert part.boxes is not None
            part.boxes[..., 2:] = size
            part.logits *= 100
            part.embeddings *= 100
    for target in targets:
        target.boxes[:, 2:] = size
    criterion = MaskDINOCriterion(CLASSES, points=16)
    criterion.total(criterion(output, targets)).backward()
    for leaf in leaves(output):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [QUERIES + 2, 1]])
def test_few_and_many_targets(counts):
    targets = random_targets(counts)
    output, criterion = random_output(targets), MaskDINOCriterion(CLASSES, points=16)
    terms = criterion(output, targets)
    criterion.total(terms).backward()
    assert all(term.isfinite() for term in terms.values())
    assert len(terms) == 5 * (2 * LAYERS + 1)
    assert terms["loss_ce"] > 0
    if not any(counts):
        others = [name for name in terms if not name.startswith("loss_ce") or "_dn" in name]
        assert all(terms[name] == 0 for name in others)


def test_autocast_is_left():
    targets = random_targets([2, 3])
    output, criterion = random_output(targets), MaskDINOCriterion(CLASSES, points=16)
    totals = []
    for low in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            totals.append(criterion.total(criterion(output, targets)))
    assert totals[1].dtype == torch.float32
    assert totals[0].equal(totals[1])
    half = replace(output.matching, logits=output.matching.logits.bfloat16())
    terms = criterion(replace(output, matching=half), targets)
    assert all(term.dtype == torch.float32 for term in terms.values())


def count_on_rank(rank: int, address: str) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    assert num_masks(Truth.of(random_targets([3 * rank, 2]))) == 3.5  # 2 and 5
    dist.destroy_process_group()


def test_number_of_masks_is_averaged_over_ranks(tmp_path):
    address = f"file://{tmp_path / 'rendezvous'}"
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=count_on_rank, args=(rank, address)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert num_masks(Truth.of(random_targets([0]))) == 1
