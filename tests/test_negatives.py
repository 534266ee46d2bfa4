"""Pictures without objects are told, kept or left out as asked, and always evaluated.

And pictures that train and val share are told before anything is trained.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.check.fix import fix
from segsweep.check.report import look_at
from segsweep.data.base import Negatives, trainable
from segsweep.data.formats import masks
from segsweep.data.loader import EvalLoader, TrainLoader
from segsweep.data.sets.coco import Coco
from segsweep.metrics.coco import CocoEvaluator
from segsweep.run.messages import negatives_line
from segsweep.run.record import data_facts
from segsweep.sweeps.cost import trained_on
from segsweep.verbs.check_data import main
from tests.layouts import make, source
from tests.small_coco import content, real, real_folder, write

KEEP = Negatives["keep"]


def reported(**options: Any) -> Coco:
    """The reported set: 8 of its 12 training pictures have no object."""
    root = str(real_folder("reported_cases") / "negatives")
    return Coco(name="coco", root=root, size=[64, 64], **options)


def test_what_is_not_learnt_from_is_told_with_the_cure() -> None:
    facts = data_facts(reported())
    assert facts["negatives"] == {"rule": "drop", "train": 8, "val": 0}
    assert facts["trained_on"] == 4
    assert negatives_line(facts).strip() == (
        "8 of 12 training pictures have no object and are not used; "
        "data.negatives=keep trains on them, too"
    )
    kept = data_facts(reported(negatives=KEEP))
    assert kept["negatives"] == {"rule": "keep", "train": 8, "val": 0}
    assert kept["trained_on"] == 12
    assert [trained_on({"data": told}) for told in (facts, kept)] == [4, 12]  # what a run costs
    del facts["trained_on"]  # as earlier versions
    assert trained_on({"data": facts}) == 12
    assert "are trained on, too" in negatives_line(kept)
    assert negatives_line(facts | {"negatives": {"train": 0}}) == ""


def test_an_epoch_has_what_was_asked_for() -> None:
    for data, names in ((reported(), ("p",)), (reported(negatives=KEEP), ("p", "b"))):
        shown = {r.image_id for r in data.records("train") if r.file.startswith(names)}
        batches = TrainLoader(data, 1, seed=0).batches(0, len(shown))
        assert {i for batch in batches for i in batch.image_ids} == shown
    assert len(shown) == 12


def test_the_default_names_runs_as_before() -> None:
    words = ["data=coco", f"data.root={real_folder('reported_cases') / 'negatives'}"]
    names = {
        option: fingerprint(compose([*words, *option.split()]))
        for option in ("", "data.negatives=drop", "data.negatives=keep")
    }
    assert names[""] == names["data.negatives=drop"] != names["data.negatives=keep"]


def test_only_what_is_known_to_be_empty_is_kept(tmp_path: Path) -> None:
    """A crowd is no background, nor is an object whose mask cannot be read."""
    what = content()
    spare = {"height": 48, "width": 64}
    what["images"] += [{"id": n, "file_name": f"{n}.png", **spare} for n in (20, 21, 22)]
    what["annotations"] += [
        {**what["annotations"][0], "id": 30, "image_id": 20, "iscrowd": 1},
        {**what["annotations"][0], "id": 31, "image_id": 21, "segmentation": [[1, 1, 5, 5]]},
    ]
    data = write(tmp_path, train=what, negatives=KEEP)
    for number in (20, 21, 22):
        Image.new("RGB", (64, 48)).save(tmp_path / f"images/{number}.png")
    with pytest.warns(UserWarning, match="1 annotations left out"):
        assert {r.image_id for r in trainable(data)} == {7, 3, 22}
    assert [r.image_id for r in data.records("train") if r.negative] == [22]


def test_a_clean_copy_makes_no_empty_picture_of_what_cannot_be_read(tmp_path: Path) -> None:
    what = content()
    what["annotations"][0]["segmentation"] = [[1, 1, 5, 5]]
    spare = {"id": 9, "file_name": "bare.png", "height": 48, "width": 64}
    what["images"].append(spare)
    data = write(tmp_path / "set", train=what)
    Image.new("RGB", (64, 48)).save(tmp_path / "set/images/bare.png")
    fix(data, look_at(data, 1, quiet=True)[0], tmp_path / "copy")
    copy = Coco(name="coco", root=str(tmp_path / "copy"), negatives=KEEP)
    assert [(r.file, r.negative) for r in copy.records("train")] == [
        ("sub/second.png", False), ("bare.png", True)
    ]  # fmt: skip
    changes = (tmp_path / "copy/changes.csv").read_text()
    assert "train,picture,first.png,left out: nothing that is annotated on it" in changes


def test_a_region_without_a_class_is_no_empty_picture() -> None:
    """The one picture of the original VIA file that has nothing but such regions."""
    folder = real_folder("rice_leaf")
    train, val = (f"original/{s}/via_region_data.json" for s in ("train", "val"))
    root, images = str(folder), "images"
    data = Coco(name="coco", root=root, images=images, train=train, val=val, negatives=KEEP)
    with pytest.warns(UserWarning, match="left out"):
        bare = [r for r in data.records("train") if not r.annotations]
    assert len(bare) == 1
    assert not bare[0].negative
    assert bare[0] not in trainable(data)


def test_converted_sets_know_it_too(tmp_path: Path) -> None:
    path = make("zerowaste", tmp_path / "set") / "train/labels.json"
    what = json.loads(path.read_text())
    bare, unread = (image["id"] for image in what["images"][1:])
    what["annotations"] = [
        a
        for a in what["annotations"]
        if a["image_id"] != bare and (a["image_id"] != unread or not a["segmentation"])
    ]
    path.write_text(json.dumps(what))
    data = source("zerowaste", tmp_path / "set", tmp_path / "cache", "negatives=keep")
    with pytest.warns(UserWarning, match="2 annotations left out"):
        records = data.records("train")
    assert [(len(r.annotations) > 0, r.negative) for r in records] == [
        (True, False), (False, True), (False, False),
    ]  # fmt: skip
    assert trainable(data) == records[:2]


def test_label_maps_have_no_such_choice() -> None:
    word = "data=semantic"
    with pytest.raises(UserError, match=r"data\.negatives=keep.*is for sets of instances"):
        compose([word, "data.root=x", "data.negatives=keep"])


def test_a_set_of_negatives_alone_teaches_nothing() -> None:
    data = reported(negatives=KEEP)
    for record in data.records("train"):
        record.annotations = []
    with pytest.raises(UserError, match="no training image has an annotated instance"):
        TrainLoader(data, 2, seed=0)


@pytest.mark.parametrize("model", ["maskdino_tiny", "seem_tiny"])
def test_a_step_on_pictures_without_objects_lowers_every_score(model: str) -> None:
    data = reported(negatives=KEEP)
    built = compose([f"model={model}", "model.weights=null"]).model.build(data.subject()).train()
    batches = TrainLoader(data, 2, seed=0).batches(0, 30)
    batch = next(b for b in batches if not any(len(t.labels) for t in b.targets))
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-4)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        terms = built.loss(built(batch.images, batch.targets), batch.targets)
        optimizer.zero_grad()
        terms["loss"].backward()
        gradients = [p.grad for p in built.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)
        optimizer.step()
        losses.append(float(terms["loss"].detach()))
        objects = {n: float(t) for n, t in terms.items() if n != "loss" and "_ce" not in n}
        assert set(objects.values()) == {0.0}
    assert losses == sorted(losses, reverse=True)


def test_what_is_found_where_nothing_is_counts_against() -> None:
    data = reported()
    assert [i for b in EvalLoader(data, "train", 5) for i in b.image_ids] == [
        r.image_id for r in data.records("train")
    ]
    scores = []
    for false in ([], [{"category_id": 0, "score": 1.0, "bbox": [4, 4, 20, 20]}]):
        evaluator = CocoEvaluator(data, "train")
        for record in data.records("train"):
            size = (record.height, record.width)
            right = [
                {"category_id": a.category, "score": 0.5, "bbox": a.bbox,
                 "segmentation": masks.to_rle(a.segmentation, size)}
                for a in record.annotations
            ]  # fmt: skip
            square = masks.to_rle([[4, 4, 24, 4, 24, 24, 4, 24]], size)
            wrong = [entry | {"segmentation": square} for entry in false]
            evaluator.add(record.image_id, right or wrong)
        scores.append(evaluator.compute()["segm_AP"])
    assert scores[0] == 100
    assert scores[1] is not None
    assert scores[1] < 80


def test_check_data_tells_how_many_there_are(tmp_path: Path) -> None:
    root = real_folder("reported_cases") / "negatives"
    assert main([str(root), "--quiet", "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    (finding,) = [f for f in report["findings"] if f["code"] == "image-empty"]
    assert finding["level"] == "note"
    assert "(8)" in finding["what"]
    assert "data.negatives=keep" in finding["cure"]


def test_pictures_that_both_splits_have_are_told_before_training(tmp_path: Path) -> None:
    """By their bytes, under whatever name; files of one size alone are no copies."""
    source = real("coco_tiny")
    shutil.copytree(Path(str(source.root)), tmp_path / "set")
    val = json.loads((tmp_path / "set/val.json").read_text())
    first, second, third = (tmp_path / "set/images" / i["file_name"] for i in val["images"][:3])
    train = json.loads((tmp_path / "set/train.json").read_text())["images"]
    same = tmp_path / "set/images" / train[0]["file_name"]
    first.write_bytes(same.read_bytes())
    other = second.read_bytes()
    third.write_bytes(other[:-1] + bytes([other[-1] ^ 1]))
    (tmp_path / "set/images" / train[1]["file_name"]).write_bytes(other)
    with pytest.warns(UserWarning, match="in train, too") as told:
        facts = data_facts(Coco(name="coco", root=str(tmp_path / "set")))
    (sentence,) = [str(w.message) for w in told if "in train, too" in str(w.message)]
    assert sentence.startswith(f"data=coco: 2 ({first.name} is {same.name}, {second.name} is ")
    assert "of 32 pictures of val" in sentence
    assert "split again by photograph" in sentence
    assert facts["leaks"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data_facts(source)["leaks"] == 0


def test_a_file_that_both_splits_name_is_told(tmp_path: Path) -> None:
    data = write(tmp_path)
    with pytest.warns(UserWarning, match=r"2 \(first\.png, second\.png is first\.png\) of 2"):
        assert data_facts(data)["leaks"] == 2
    findings = [f for part, _ in look_at(data, 1, quiet=True)[0] for f in part.findings()]
    assert "leak" in {f.code for f in findings}
