"""COCO average precision: the numbers of pycocotools, in percent, and no number where none is."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.data.loader import Batch
from segsweep.metrics.base import of_classes
from segsweep.metrics.coco import KINDS, CocoAP
from segsweep.model.found import Instances
from tests.small_coco import REAL, REAL_SETS, real

SIDE = 128


class Boxes(DataSet):
    """Images of rectangles, with three classes."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(name="boxes")
        self.listed = records

    def classes(self) -> list[str]:
        return ["a", "b", "c"]

    def records(self, split: str) -> list[Record]:
        return self.listed


def block(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, y : y + h, x : x + w] = True
    return masks.encode(mask)[0]


def truth(number: int, category: int, box: list[int], crowd: bool = False) -> Annotation:
    rle = block(*box)
    return Annotation(category, rle, masks.bbox(rle), masks.area(rle), crowd, number)


def guess(category: int, box: list[int], score: float) -> dict[str, Any]:
    rle = block(*box)
    return {
        "category_id": category, "score": score, "segmentation": rle, "bbox": masks.bbox(rle)
    }  # fmt: skip


def record(image_id: int, annotations: list[Annotation]) -> Record:
    return Record(image_id, f"{image_id}.png", SIDE, SIDE, annotations)


def evaluated(
    records: list[Record], guesses: list[list[dict[str, Any]]], **options: Any
) -> dict[str, float | None]:
    evaluator = CocoAP(name="coco", **options).evaluator(Boxes(records), "val")
    for r, found in zip(records, guesses, strict=True):
        evaluator.add(r.image_id, found)
    return evaluator.compute()


def by_pycocotools(
    records: list[Record], guesses: list[list[dict[str, Any]]], max_dets: int = 100
) -> dict[str, float | None]:
    """The same values from pycocotools; its means are taken here, as its summary fixes maxDets."""
    annotations, results = [], []
    for r, found in zip(records, guesses, strict=True):
        for a in r.annotations:
            entry = {"id": len(annotations) + 1, "image_id": r.image_id, "category_id": a.category}
            entry |= {"bbox": a.bbox, "area": a.area, "iscrowd": int(a.iscrowd)}
            annotations.append({**entry, "segmentation": dict(a.segmentation)})
        results += [{**g, "image_id": r.image_id} for g in found]
    values: dict[str, float | None] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        sizes = [{"id": r.image_id, "height": r.height, "width": r.width} for r in records]
        kinds = [{"id": k, "name": str(k)} for k in range(3)]
        gt.dataset = {"images": sizes, "annotations": annotations, "categories": kinds}
        gt.createIndex()
        for kind in KINDS:
            other = "bbox" if kind == "segm" else "segmentation"
            dt = gt.loadRes([{k: v for k, v in r.items() if k != other} for r in results])
            ev = COCOeval(gt, dt, kind)
            ev.params.maxDets = [1, min(10, max_dets), max_dets]
            ev.evaluate()
            ev.accumulate()
            p = ev.eval["precision"][..., -1]
            parts = [p[..., 0], p[0, ..., 0], p[5, ..., 0], *(p[..., k] for k in (1, 2, 3))]
            for name, part in zip(("AP", "AP50", "AP75", "APs", "APm", "APl"), parts, strict=True):
                known = part[part > -1]
                values[f"{kind}_{name}"] = 100 * known.mean() if known.size else None
    return values


def same(got: dict[str, float | None], expected: dict[str, float | None]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name


def real_guesses(data: DataSet, name: str) -> dict[int, list[dict[str, Any]]]:
    number = {category: k for k, category in enumerate(data.category_ids())}
    guesses: dict[int, list[dict[str, Any]]] = {r.image_id: [] for r in data.records("val")}
    for g in json.loads((REAL / name / "reference/predictions.json").read_text()):
        guesses[g["image_id"]].append({**g, "category_id": number[g["category_id"]]})
    return guesses


@pytest.mark.parametrize("name", REAL_SETS)
def test_published_numbers_of_real_sets(name: str) -> None:
    data = real(name)
    expected = json.loads((REAL / name / "reference/expected.json").read_text())
    guesses = real_guesses(data, name)
    ids = [r.image_id for r in data.records("val")]
    for order in (ids, ids[::-1]):  # tied scores must not depend on the order of images
        evaluator = CocoAP(name="coco").evaluator(data, "val")
        for image_id in order:
            evaluator.add(image_id, guesses[image_id])
        for key, value in evaluator.compute().items():
            kind, _, column = key.partition("_")
            theirs = expected[kind]["summary"][column]
            assert value == (None if theirs == -1 else pytest.approx(100 * theirs, abs=1e-4)), key
        rows = of_classes(evaluator)
        assert [row["class"] for row in rows] == data.classes()
        for kind in KINDS:
            known = [row[f"{kind}_AP"] for row in rows if row[f"{kind}_AP"] is not None]
            theirs = expected[kind]["summary"]["AP"]
            assert sum(known) / len(known) == pytest.approx(100 * theirs, abs=1e-4)


corners = st.integers(0, 96)
sides = st.integers(1, 110)
boxes = st.tuples(corners, corners, sides, sides).map(list)
truths = st.lists(st.tuples(st.integers(0, 2), boxes, st.booleans()), max_size=4)
found = st.lists(
    st.tuples(st.integers(0, 2), boxes, st.sampled_from([0.2, 0.5, 0.5, 0.9])), max_size=6
)


@given(st.lists(st.tuples(truths, found, st.booleans()), min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_any_set_scores_as_with_pycocotools(images: list[Any], max_dets: int) -> None:
    """Ties, crowds, empty images, few detections, and predictions that copy the truth."""
    records, guesses = [], []
    for number, (objects, marks, copied) in enumerate(images, start=1):
        records.append(
            record(number, [truth(k, c, b, crowd) for k, (c, b, crowd) in enumerate(objects)])
        )
        marks = marks + [(c, b, 0.7) for c, b, _ in objects] if copied else marks
        guesses.append([guess(*mark) for mark in marks])
    if not any(guesses):
        return  # pycocotools cannot load an empty list of results
    got = evaluated(records, guesses, max_dets=max_dets)
    same(got, by_pycocotools(records, guesses, max_dets))


def test_more_detections_than_allowed_are_cut_by_score() -> None:
    objects = [[10 * k, 10 * k, 8, 8] for k in range(6)]
    records = [record(1, [truth(k, 0, box) for k, box in enumerate(objects)])]
    guesses = [[guess(0, box, 0.1 * k) for k, box in enumerate(objects, start=1)]]
    all_of_them = evaluated(records, guesses)
    two = evaluated(records, guesses, max_dets=2)
    assert all_of_them["segm_AP"] == pytest.approx(100)
    assert two["segm_AP"] == pytest.approx(100 * 34 / 101)  # recall 2/6: 34 of 101 points
    same(two, by_pycocotools(records, guesses, 2))


def test_nothing_found_is_zero_and_nothing_to_find_is_none() -> None:
    records = [record(1, [truth(1, 1, [0, 0, 20, 20])])]
    got = evaluated(records, [[]])
    assert [got[f"segm_{n}"] for n in ("AP", "AP50", "AP75", "APs")] == [0, 0, 0, 0]
    assert got["segm_APm"] is None
    assert got["bbox_APl"] is None
    assert set(evaluated([record(1, [])], [[]]).values()) == {None}


def test_crowds_neither_help_nor_hurt() -> None:
    box, crowd = [0, 0, 40, 40], [60, 60, 60, 60]
    records = [record(1, [truth(1, 0, box), truth(2, 0, crowd, crowd=True)])]
    inside = [guess(0, [60 + 10 * k, 60, 9, 9], 0.9) for k in range(5)]
    guesses = [[guess(0, box, 0.5), *inside]]
    assert evaluated(records, guesses)["segm_AP"] == pytest.approx(100)
    without = evaluated([record(1, records[0].annotations[:1])], guesses)["segm_AP"]
    assert without is not None
    assert without < 50


def test_annotation_ids_of_zero_and_twice_are_harmless() -> None:
    objects = [[0, 0, 20, 20], [40, 40, 20, 20]]
    records = [record(n, [truth(0, 0, box) for box in objects]) for n in (1, 2)]
    guesses = [[guess(0, box, 0.5) for box in objects] for _ in (1, 2)]
    assert evaluated(records, guesses)["segm_AP"] == pytest.approx(100)


def instances(count: int) -> Instances:
    """Overlapping blocks, the best first."""
    found = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for k in range(count):
        found[k, 4 * k : 4 * k + 20, 10:40] = True
    boxes = torch.tensor([[10.0, 4 * k, 40, 4 * k + 20] for k in range(count)]).reshape(-1, 4)
    scores, labels = torch.linspace(0.9, 0.1, count), torch.arange(count) % 3
    return Instances(scores, labels, boxes, masks.encode(found.numpy()), (SIDE, SIDE))


def test_instances_of_a_model_become_entries_of_a_results_file() -> None:
    entries = instances(2).coco
    json.dumps(entries)
    assert entries[1]["category_id"] == 1
    assert entries[1]["bbox"] == [10, 4, 30, 20] == masks.bbox(entries[1]["segmentation"])
    assert entries[0]["score"] == pytest.approx(0.9)
    assert instances(0).coco == []
    assert instances(0).masks.shape == (0, SIDE, SIDE)
    assert instances(2).above(0.5).masks[:, :20, 10:40].all()


def test_batches_feed_the_evaluator() -> None:
    records = [record(n, [truth(1, 0, [10, 0, 30, 20])]) for n in (8, 3)]
    evaluator = CocoAP(name="coco").evaluator(Boxes(records), "val")
    for r, count in zip(records, (1, 0), strict=True):
        batch = Batch(torch.zeros(1, 3, 32, 32), [(32, 32)], [(SIDE, SIDE)], [r.image_id], [])
        evaluator.update(batch, [instances(count)])
    # one of two found, no false positive: precision 1 up to recall 0.5
    assert evaluator.compute()["segm_AP"] == pytest.approx(100 * 51 / 101)


def test_values_have_names_and_the_key_is_one_of_them() -> None:
    metric = compose(["metrics=coco", "metrics.key=bbox_AP50", "metrics.max_dets=7"]).metrics
    assert metric.key in metric.names()
    assert set(metric.names()) == set(evaluated([record(1, [])], [[]]))
    assert set(metric.names().values()) == {("%", "higher")}
    for override in ("metrics.key=AP", "metrics.max_dets=0"):
        with pytest.raises(UserError, match=override):
            compose(["metrics=coco", override])
