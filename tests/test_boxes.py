"""Boxes without masks are a result: learnt, found, judged, kept, matched and drawn as boxes."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segsweep.base.config import compose
from segsweep.base.errors import Unfit, UserError
from segsweep.check.report import chosen
from segsweep.data import inputs
from segsweep.data.geometry import Geometry
from segsweep.data.loader import TrainLoader
from segsweep.data.sets.coco import Coco
from segsweep.data.transforms import sample
from segsweep.metrics.ceiling import ceiling
from segsweep.metrics.coco import CocoBoxes, quantities_of
from segsweep.model.found import Instances
from segsweep.pages.compared.base import compared
from segsweep.pages.gallery import predict_inputs
from segsweep.pages.outlines import Outline
from segsweep.pages.painter import overlay
from segsweep.run import predictions
from segsweep.run.folder import file_facts
from segsweep.run.identity import Run
from segsweep.story import all_ready, train
from tests.small_boxes import tiny_boxes
from tests.small_coco import HEIGHT, REAL, WIDTH, content, real, write

BOX = [10.5, 8, 30, 21.5]


@pytest.fixture(autouse=True, scope="module")
def _word(tmp_path_factory: pytest.TempPathFactory, _folders_of_modules: None) -> None:
    tiny_boxes(tmp_path_factory.mktemp("words"))


def boxed(*numbers: int) -> dict[str, Any]:
    """The content of `small_coco` whose annotations of some numbers are boxes alone."""
    what = content()
    for entry in what["annotations"]:
        if entry["id"] in numbers:
            entry |= {"segmentation": [], "bbox": BOX, "area": 645}
    return what


def opened(folder: Path, needs_masks: bool) -> Coco:
    return Coco(name="coco", root=str(folder), size=[HEIGHT, WIDTH], needs_masks=needs_masks)


def test_what_is_found_has_boxes_alone() -> None:
    boxes = torch.tensor([[1.0, 2, 5, 9], [0, 0, 3, 3]])
    found = Instances(torch.tensor([0.9, 0.2]), torch.tensor([1, 0]), boxes, None, (20, 30))
    entry = {"category_id": 1, "score": pytest.approx(0.9), "bbox": [1, 2, 4, 7]}
    assert found.masks is None
    assert found.above(0.5).coco == [entry]


# --- the metric


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        (["data=digits"], "coco_boxes"),
        (["data=cityscapes"], "coco_boxes"),  # which names a metric itself
        (["metrics=coco_boxes", "data=cityscapes"], "coco_boxes"),
    ],
)
def test_a_model_of_boxes_is_judged_by_boxes(words: list[str], metric: str) -> None:
    assert compose(["model=tiny_boxes", *words]).metrics.name == metric


def test_data_keep_their_metric_for_models_of_masks() -> None:
    assert compose(["data=cityscapes"]).metrics.name == "cityscapes"
    assert compose([]).metrics.name == "coco"


@pytest.mark.parametrize("metric", ["coco", "coco_255", "cityscapes"])
def test_a_metric_of_masks_is_refused_for_boxes(metric: str) -> None:
    with pytest.raises(Unfit, match=f"metrics={metric} .* model=tiny_boxes .* metrics=coco_boxes"):
        compose(["model=tiny_boxes", "data=digits", f"metrics={metric}"])


def real_guesses(data: Coco) -> dict[int, list[dict[str, Any]]]:
    """The boxes of real predictions, by image."""
    numbers = {category: k for k, category in enumerate(data.category_ids())}
    guesses: dict[int, list[dict[str, Any]]] = {r.image_id: [] for r in data.records("val")}
    for g in json.loads((REAL / "coco_tiny/reference/predictions.json").read_text()):
        own = {"category_id": numbers[g["category_id"]], "score": g["score"], "bbox": g["bbox"]}
        guesses[g["image_id"]].append(own)
    return {i: sorted(several, key=lambda g: -g["score"]) for i, several in guesses.items()}


def test_ap_of_kept_boxes_is_that_of_pycocotools(tmp_path: Path) -> None:
    data = real("coco_tiny")
    path = tmp_path / predictions.FILE
    with predictions.writing(path, {"data": "f", "classes": data.classes()}, schema=3) as writer:
        for image_id, several in real_guesses(data).items():
            writer.add(image_id, several)
    kept, records = predictions.read(path), data.records("val")
    assert dict(kept) == real_guesses(data)
    for record in records:  # the truth has no masks either, and sizes are those of boxes
        for a in record.annotations:
            a.segmentation, a.area = None, a.bbox[2] * a.bbox[3]
    evaluator = CocoBoxes(name="coco_boxes").evaluator(data, "val")
    for image_id, several in kept:
        evaluator.add(image_id, several)
    got = evaluator.compute()
    assert list(got) == list(quantities_of("bbox"))
    truth = [
        {"id": n, "image_id": r.image_id, "category_id": a.category, "bbox": a.bbox,
         "area": a.area, "iscrowd": int(a.iscrowd)}
        for n, (r, a) in enumerate(((r, a) for r in records for a in r.annotations), start=1)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        kinds = [{"id": k} for k in range(len(data.classes()))]
        images = [{"id": r.image_id} for r in records]
        gt.dataset = {"images": images, "annotations": truth, "categories": kinds}
        gt.createIndex()
        rows = [{**g, "image_id": i} for i, several in kept for g in several]
        theirs = COCOeval(gt, gt.loadRes(rows), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    expected = [100 * value for value in theirs.stats[:6]]
    assert [-100 if v is None else v for v in got.values()] == pytest.approx(expected, abs=1e-6)
    assert got["bbox_AP"] != 0


def test_a_line_holds_boxes_and_no_size(tmp_path: Path) -> None:
    with predictions.writing(tmp_path / "a.gz", {"data": "f"}, schema=3) as writer:
        writer.add(7, [{"category_id": 0, "score": 0.5, "bbox": [1.0, 2.0, 3.5, 4.0]}])
        writer.add(3, [])
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).decode().splitlines() == [
        '{"schema":3,"data":"f"}',
        '{"image_id":7,"found":[[0,0.5,[1.0,2.0,3.5,4.0]]]}',
        '{"image_id":3,"found":[]}',
    ]
    assert not predictions.read(tmp_path / "a.gz").masks


# --- sets


def test_a_set_of_boxes_is_learnt_by_models_of_boxes_alone(tmp_path: Path) -> None:
    write(tmp_path, boxed(11, 12), boxed(11, 12))
    own, other = opened(tmp_path, needs_masks=False), opened(tmp_path, needs_masks=True)
    (annotation,) = own.records("train")[0].annotations
    assert (annotation.segmentation, annotation.bbox, annotation.area) == (None, BOX, 645)
    assert [f.code for f in own.survey("train")[1]] == ["box-alone"]
    with pytest.raises(UserError, match=r"boxes, not masks: model=.*tiny_boxes.*choose a model"):
        other.records("train")
    assert own.fingerprint() == other.fingerprint()
    assert replace(own, size=[32, 32]).records("train") == own.records("train")
    words = ["data=coco", f"data.root={tmp_path}", "data.size=[64,64]", "model.weights=null"]
    models = [compose([f"model={model}", *words]) for model in ("tiny_boxes", "maskdino_tiny")]
    all_ready(models[:1])
    with pytest.raises(UserError, match="these are boxes, not masks"):
        all_ready(models)
    batch = next(TrainLoader(own, batch_size=2, seed=0).batches(0))
    x = (10.5 + 15) / WIDTH
    for target in batch.targets:
        cx = target.boxes[0, 0].item()
        assert cx == pytest.approx(x, abs=1e-6) or cx == pytest.approx(1 - x, abs=1e-6)
        assert target.boxes[0, 1:].tolist() == pytest.approx(
            [(8 + 21.5 / 2) / HEIGHT, 30 / WIDTH, 21.5 / HEIGHT]
        )


def test_where_some_have_no_mask_models_of_boxes_use_all(tmp_path: Path) -> None:
    write(tmp_path, boxed(12))
    every = opened(tmp_path, needs_masks=False).records("train")
    with pytest.warns(UserWarning, match=r"1 annotations left out \(1 no mask\): 12"):
        some = opened(tmp_path, needs_masks=True).records("train")
    assert [len(r.annotations) for r in every] == [1, 1]
    assert [len(r.annotations) for r in some] == [1, 0]
    assert [r.complete for r in some] == [True, False]
    assert every[0].annotations[0].segmentation is not None
    black, size = np.zeros((HEIGHT, WIDTH, 3), np.uint8), (HEIGHT, WIDTH)
    assert sample(black, every[0], Geometry(size, size)).masks.sum() == 660


@pytest.mark.parametrize(
    ("box", "code"),
    [
        (None, "box-missing"), ([1, 2, 3], "box-missing"), (["a", 1, 2, 3], "box-missing"),
        ([1, 2, 0, 5], "no-area"), ([99, 2, 5, 5], "outside"), ([1, 2, 1e9, 5], "far-away"),
    ],
)  # fmt: skip
def test_a_box_that_is_none_is_left_out_and_told(tmp_path: Path, box: Any, code: str) -> None:
    what = boxed(11, 12)
    what["annotations"][1]["bbox"] = box
    write(tmp_path, what)
    records, findings = opened(tmp_path, needs_masks=False).survey("train")
    assert [(f.code, f.ids) for f in findings if f.level == "warning"] == [(code, [12])]
    assert [len(r.annotations) for r in records] == [1, 0]


def test_lines_of_yolo_with_four_numbers_are_boxes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "labels").mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / split / "images/a.png")
        (tmp_path / split / "labels/a.txt").write_text("1 0.5 0.25 0.25 0.5\n0 0.5 0.5 0.1 0.2 7\n")
    yaml = "names: [nut, bolt]\ntrain: train/images\nval: val/images\n"
    (tmp_path / "data.yaml").write_text(yaml)
    data = opened(tmp_path, needs_masks=False)
    (record,) = data.records("val")
    assert [a.bbox for a in record.annotations] == [
        pytest.approx([24, 0, 16, 24]), pytest.approx([28.8, 19.2, 6.4, 9.6])
    ]  # fmt: skip
    assert [data.classes()[a.category] for a in record.annotations] == ["bolt", "nut"]
    assert {a.segmentation for a in record.annotations} == {None}
    with pytest.raises(UserError, match="these are boxes, not masks"):
        opened(tmp_path, needs_masks=True).records("val")


def test_copies_keep_boxes(tmp_path: Path) -> None:
    write(tmp_path / "set", boxed(11, 12), boxed(11, 12))
    data = Coco(name="coco", root=str(tmp_path / "set"), longest=32, cache=str(tmp_path / "cache"))
    data.needs_masks = False
    (annotation,) = data.records("val")[0].annotations
    assert annotation.segmentation is None
    assert annotation.bbox == [5.25, 4, 15, 10.75]
    assert annotation.area == pytest.approx(5.25 * 4 * 7.5, rel=0.1)


def test_boxes_lose_nothing_at_the_input_size(tmp_path: Path) -> None:
    write(tmp_path / "set", boxed(11, 12), boxed(11, 12))
    words = ["model=tiny_boxes", "data=coco", f"data.root={tmp_path / 'set'}"]
    limit = ceiling(compose([*words, "data.size=[32,32]"]))
    assert limit is not None
    assert (limit.metric, limit.value) == ("bbox_AP", pytest.approx(100))


def test_a_check_says_what_a_set_has(tmp_path: Path) -> None:
    write(tmp_path, boxed(11, 12), boxed(11, 12))
    config = chosen([str(tmp_path), "model=tiny_boxes"], None)
    assert [f.code for f in config.data.survey("train")[1]] == ["box-alone"]
    codes = [f.code for f in chosen([str(tmp_path)], None).data.survey("train")[1]]
    assert {"boxes-only", "mask-missing"} <= {*codes}


# --- pages


def test_a_box_is_outlined_and_not_filled() -> None:
    pixels = np.full((720, 720, 3), 200, np.uint8)
    drawn = np.array(overlay(pixels, [Outline(0, None, box=[100, 200, 300, 150])]))
    assert (drawn[200:350, 100:400] == 200).all()  # inside
    changed = (drawn != 200).any(-1)
    assert changed[199, 100:400].all()
    assert changed[350, 100:400].all()
    assert changed[200:350, 99].all()
    assert changed[200:350, 400].all()
    for odd in ([-50, -50, 20, 20], [9, 9, 0.1, 0.1], [719.9, 0, 90, 900]):
        assert (np.array(overlay(pixels, [Outline(0, None, box=odd)])) != 200).any()


def kept_run(results: Path, seed: int, model: str, masks: bool) -> Path:
    """Leave a run with real predictions of three images, with or without masks."""
    data = real("nuclei")
    words = ["data=coco", f"data.root={data.root}", f"io.results={results}", f"seed={seed}"]
    run = Run(compose([f"model={model}", *words]))
    run.directory.mkdir(parents=True)
    run.prepare()
    numbers = {category: k for k, category in enumerate(data.category_ids())}
    found: dict[int, list[dict[str, Any]]] = {r.image_id: [] for r in data.records("val")[:3]}
    for g in json.loads((REAL / "nuclei/reference/predictions.json").read_text()):
        if g["image_id"] in found:
            own = {**g, "category_id": numbers[g["category_id"]]}
            left = own.keys() - (set() if masks else {"segmentation"})
            found[g["image_id"]].append({key: own[key] for key in left})
    head = {"run": run.id, "split": "val", "data": data.fingerprint(), "classes": data.classes()}
    schema = 1 if masks else 3
    with predictions.writing(run.directory / predictions.FILE, head, schema) as writer:
        for image_id, several in found.items():
            writer.add(image_id, sorted(several, key=lambda g: -g["score"]))
    metric = run.config.metrics.key
    record = run.head() | {
        "status": "done",
        "files": file_facts(run.directory),
        "metrics": {metric: {"value": 50.0 - seed}},
        "data": {"fingerprint": data.fingerprint(), "classes": data.classes()},
    }
    (run.directory / "record.json").write_text(json.dumps(record))
    return run.directory


def iou(a: list[float], b: list[float]) -> float:
    """The IoU of two boxes [x, y, w, h]."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(across, 0) * max(down, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_runs_of_boxes_are_matched_by_boxes_and_the_page_says_so(tmp_path: Path) -> None:
    boxes = kept_run(tmp_path, 0, "tiny_boxes", masks=False)
    masks = kept_run(tmp_path, 1, "maskdino_tiny", masks=True)
    mixed = compared([masks, boxes], [], 0.5, 0.75)
    assert not any(run.matches.by_masks for run in mixed.runs)
    assert "a predicted box counts as right" in mixed.about()[0]
    assert "not all of these runs find masks" in mixed.about()[0]
    assert [s["metric"] for s in mixed.summaries()] == ["mask AP 49.00", "box AP 50.00"]
    assert "found boxes without masks" in mixed.about()[2]
    first, second = mixed.runs
    assert (first.matches.finders == second.matches.finders).all()  # the boxes are the same
    assert all(run.matches.by_masks for run in compared([masks, masks], [], 0.5, 0.75).runs)
    for (record, annotation), score in zip(first.objects, first.matches.finders, strict=True):
        if score >= 0:
            guesses = [g for i, own in second.predicted for g in own if i == record.image_id]
            finder = [g for g in guesses if g["score"] == score]
            assert max(iou(g["bbox"], annotation.bbox) for g in finder) >= 0.75
    rows, ways = mixed.pictures(1, 2)
    assert len(rows[0].panels) == 3
    assert len(ways) == 1


def test_a_run_of_boxes_from_its_words_to_its_pages(tmp_path: Path) -> None:
    write(tmp_path / "set", boxed(11, 12), boxed(11, 12))
    words = ["model=tiny_boxes", "peft=fix", "data=coco", f"data.root={tmp_path / 'set'}"]
    more = ["hparams.epochs=1", "hparams.batch_size=2", f"io.results={tmp_path / 'results'}"]
    run = Run(compose([*words, *more, "io.progress=false"]))
    record = run.once(train)
    assert list(record["metrics"]) == list(quantities_of("bbox"))
    assert record["analysis"]["matched"] == "boxes"
    assert predictions.of_run(run.directory).head["schema"] == 3
    found = inputs.find([str(tmp_path / "set/images")], tmp_path / "out")
    list(predict_inputs(run.directory, found, tmp_path / "out", [], threshold=0.0))
    page = (tmp_path / "out/index.html").read_text()
    assert "as boxes: this model finds no masks" in page
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert results
    keys = {"image_id", "file_name", "category_id", "score", "bbox"}
    assert all(entry.keys() == keys for entry in results)
