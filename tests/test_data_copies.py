"""`data.longest` of sets in COCO form: smaller copies of pictures, with their objects."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.check.report import look_at
from segsweep.data.formats import masks
from segsweep.data.sets.coco import Coco
from segsweep.sweeps.plan import bound, composed
from tests.small_coco import HEIGHT, WIDTH, content, write

LONGEST = 32  # half of the pictures


@pytest.fixture
def large(tmp_path: Path) -> Coco:
    """A set with a JPEG, a small picture, run lengths and a test part, at half of its size."""
    what = content()
    rle = masks.to_rle(what["annotations"][0]["segmentation"], (HEIGHT, WIDTH))
    what["annotations"][1]["segmentation"] = masks.listed(rle)
    what["annotations"].append(what["annotations"][0] | {"id": 99, "iscrowd": 1})
    write(tmp_path / "set", what, what)
    (tmp_path / "set/test.json").write_text(json.dumps(what))
    return coco(tmp_path, longest=LONGEST)


def coco(folder: Path, **options: Any) -> Coco:
    return Coco(name="coco", root=str(folder / "set"), cache=str(folder / "cache"), **options)


def test_pictures_and_objects_are_those_of_the_copies(large: Coco, tmp_path: Path) -> None:
    for split in ("val", "test"):
        whole, small = coco(tmp_path).records(split), large.records(split)
        assert [(r.image_id, r.file) for r in small] == [(r.image_id, r.file) for r in whole]
        assert {(r.height, r.width) for r in small} == {(HEIGHT // 2, WIDTH // 2)}
        expected = [[(a.id, a.category, a.iscrowd) for a in r.annotations] for r in whole]
        assert [[(a.id, a.category, a.iscrowd) for a in r.annotations] for r in small] == expected
        for a in (a for r in small for a in r.annotations):
            block = np.zeros((HEIGHT // 2, WIDTH // 2), bool)
            block[4:15, 5:20] = True
            assert (masks.to_mask(a.segmentation, block.shape) == block).all()
            assert a.bbox == [5, 4, 15, 11]
            assert a.area == 165
        for record in small:
            assert large.image(record).shape == (HEIGHT // 2, WIDTH // 2, 3)
            assert large.image(record)[6:13, 7:18].min() > 250
        assert large.image(whole[0]).shape == (HEIGHT, WIDTH, 3)  # as check-data reads it
    assert pickle.loads(pickle.dumps(large)).image(small[0]).shape[:2] == (HEIGHT // 2, WIDTH // 2)
    assert large.fingerprint() == coco(tmp_path).fingerprint()


def test_the_copies_of_test_serve_alone(large: Coco) -> None:
    """Its pictures are those of train, too, whose copies are not made yet."""
    assert large.image(large.records("test")[0]).shape == (HEIGHT // 2, WIDTH // 2, 3)


def test_copies_are_made_once_and_anew_for_what_changed(
    large: Coco, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    large.records("train")
    assert "2 train and 2 val" in capfd.readouterr().err
    coco(tmp_path, longest=LONGEST).records("val")
    assert "converting" not in capfd.readouterr().err
    val = json.loads((tmp_path / "set/val.json").read_text())
    val["annotations"].pop()
    (tmp_path / "set/val.json").write_text(json.dumps(val))
    changed = coco(tmp_path, longest=LONGEST).records("val")
    assert "converting" in capfd.readouterr().err
    assert sum(len(r.annotations) for r in changed) == 2


def test_smaller_pictures_stay_where_they_are(large: Coco, tmp_path: Path) -> None:
    data = coco(tmp_path, longest=WIDTH)
    shapes = [
        [[*map(list, a.segmentation)] for r in d.records("train") for a in r.annotations]
        for d in (data, coco(tmp_path))
    ]
    assert shapes[0] == shapes[1]
    assert data.picture(data.records("val")[0]) == tmp_path / "set/images/first.png"
    assert not [*(tmp_path / "cache").rglob("*.png")]


def test_a_picture_whose_objects_are_too_small_for_its_copy_is_no_negative(tmp_path: Path) -> None:
    what = content()
    small = [1.2, 1.2, 2.2, 1.2, 2.2, 2.2, 1.2, 2.2]
    what["annotations"][0] |= {"segmentation": [small], "bbox": [1.2, 1.2, 1, 1], "area": 1}
    del what["annotations"][1]
    write(tmp_path / "set", what)
    first, second = coco(tmp_path, longest=8).records("train")
    assert not first.annotations
    assert not first.negative
    assert second.negative


def test_a_run_has_its_name_unless_something_is_copied(tmp_path: Path) -> None:
    write(tmp_path / "set")
    words = ["data=coco", f"data.root={tmp_path / 'set'}", "model.weights=null"]
    ids = [fingerprint(compose([*words, *more])) for more in ([], ["data.longest=0"])]
    ids.append(fingerprint(compose([*words, f"data.cache={tmp_path}"])))
    assert len(set(ids)) == 1
    assert fingerprint(compose([*words, "data.longest=40"])) not in ids
    with pytest.raises(UserError, match=r"data\.longest=-1"):
        compose([*words, "data.longest=-1"])


def test_pictures_of_many_bits_have_one_brightness(tmp_path: Path) -> None:
    """Of a whole set, also where its test part is copied apart."""
    write(tmp_path / "set")
    (tmp_path / "set/test.json").write_text(json.dumps(content()))
    for value, name in ((1000, "first.png"), (4000, "sub/second.png")):
        deep = np.full((HEIGHT, WIDTH), value, np.uint16)
        Image.fromarray(deep).save(tmp_path / "set/images" / name)
    data = coco(tmp_path, longest=LONGEST)
    for split in ("train", "test"):
        shown = {r.file: int(data.image(r).max()) for r in data.records(split)}
        assert shown == {"first.png": 62, "sub/second.png": 249}


def test_a_set_that_training_would_refuse_is_checked_all_the_same(tmp_path: Path) -> None:
    broken = content()
    broken["annotations"][0]["category_id"] = 77
    write(tmp_path / "set", broken, content())
    data = coco(tmp_path, longest=LONGEST)
    looks, _ = look_at(data, 1, quiet=True)
    codes = {finding.code for part, _ in looks for finding in part.findings()}
    assert "category-unknown" in codes
    assert not (tmp_path / "cache").exists()


def test_a_plan_makes_no_copies(large: Coco, tmp_path: Path) -> None:
    words = ["data=coco", f"data.root={tmp_path}/set", f"data.cache={tmp_path}/cache"]
    _, entries = composed([*words, f"data.longest={LONGEST}", "model.queries=1"], fetch=False)
    bound(entries)
    assert entries[0].ceiling is None
    assert not (tmp_path / "cache").exists()
    large.records("train")
    bound(entries)
    assert entries[0].ceiling is not None
