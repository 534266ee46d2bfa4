"""Data sets as people report them: each is read rightly, or it is said what is wrong with it.

The pictures show red squares (class bolt) and blue triangles (class nut) on grey noise, so a mask
can be judged by the pixels below it.
"""

from __future__ import annotations

import csv
import json
import random
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.check.fix import fix
from segsweep.check.report import look_at
from segsweep.data.base import SPLITS, DataSet
from segsweep.data.findings import Finding
from segsweep.data.folder import Folder
from segsweep.data.formats import images, masks
from segsweep.data.inputs import InputFile
from segsweep.data.sets.coco import Coco
from segsweep.run.record import data_facts
from tests.small_coco import real_folder

CHANNELS = {"bolt": 0, "nut": 2}  # of the colour of a class


def case(name: str, **options: Any) -> Coco:
    """A reported set."""
    return Coco(name="coco", root=str(real_folder("reported_cases") / name), **options)


def precision(data: DataSet, split: str) -> float:
    """The share of the mask pixels that have the colour of their class."""
    names, right = data.classes(), []
    for record in data.records(split):
        pixels = data.image(record).astype(int)
        for a in record.annotations:
            mask = masks.to_mask(a.segmentation, (record.height, record.width))
            own, other = CHANNELS[names[a.category]], 2 - CHANNELS[names[a.category]]
            right.append(pixels[mask][:, own] > pixels[mask][:, other] + 60)
    return float(np.concatenate(right).mean())


def looked_at(data: DataSet) -> tuple[dict[str, Finding], Any]:
    """Findings of both splits by code, and what was looked at."""
    looks, _ = look_at(data, 1, quiet=True)
    return {f.code: f for part, _ in looks for f in part.findings()}, looks


def fixed(data: DataSet, out: Path) -> tuple[Coco, list[tuple[str, str, str, str]]]:
    """The clean copy, and the rows of its changes."""
    fix(data, looked_at(data)[1], out)
    with (out / "changes.csv").open(newline="") as file:
        rows = [tuple(row) for row in csv.reader(file)]
    return Coco(name="coco", root=str(out)), rows[1:]


def test_val_is_matched_by_the_names_of_its_classes(tmp_path: Path) -> None:
    data = case("isaid_swapped")
    with pytest.warns(UserWarning, match=r"val\.json.*matched by name.*1 'nut'"):
        assert [precision(data, split) for split in SPLITS] == [1, 1]
    copy, rows = fixed(case("isaid_swapped"), tmp_path / "copy")
    assert [precision(copy, split) for split in SPLITS] == [1, 1]
    changed = [row for row in rows if row[1] == "category-renumbered"]
    assert ("val", "category-renumbered", "1", "nut is now 2") in changed
    assert len(changed) == 2 + 4  # both categories, each annotation


def changed(name: str, folder: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> Coco:
    """A reported set with another annotation file; its pictures stay where they are."""
    source = real_folder("reported_cases") / name
    content = json.loads((source / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    own = {Path(file).stem: str(folder / file)}
    return case(name, **own)


def test_names_that_do_not_settle_it_are_refused(tmp_path: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "screw"

    data = changed("isaid_swapped", tmp_path, "val.json", rename)
    with pytest.raises(
        UserError, match=r"other names.*1 'screw', 2 'bolt', in train 1 'bolt'"
    ) as e:
        data.records("train")
    assert "--fix" not in str(e.value)
    with pytest.raises(UserError, match="cannot be mended"):
        fixed(data, tmp_path / "copy")


def test_a_class_that_train_lacks_is_refused_if_used_and_the_copy_tells(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotation 9: 3 'washer'.*\n.*--fix"):
        case("cat_extra_used").records("val")
    copy, rows = fixed(case("cat_extra_used"), tmp_path / "copy")
    left_out = "left out: washer is no class of train"
    assert ("val", "category-other-split", "9", left_out) in rows
    assert ("val", "category-extra", "3", left_out) in rows
    assert not [row for row in rows if "picture" in row[3]]
    assert [precision(copy, split) for split in SPLITS] == [1, 1]


def test_a_class_that_train_lacks_is_a_note_if_unused(tmp_path: Path) -> None:
    def drop(content: dict[str, Any]) -> None:
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 3]

    data = changed("cat_extra_used", tmp_path, "val.json", drop)
    findings, _ = looked_at(data)
    assert findings["category-extra"].ids == [3]
    assert {f.level for f in findings.values()} == {"note"}
    assert [precision(data, split) for split in SPLITS] == [1, 1]


def greys(data: Coco) -> dict[str, np.ndarray]:
    """The pictures of both splits by name, one channel of each."""
    records = [record for split in SPLITS for record in data.records(split)]
    return {record.file: data.image(record)[..., 0].astype(int) for record in records}


DEEP = {  # black, white; of the values that are read, the least and the largest
    "depth_mixed": ((0, 16383), (28, 87)),
    "float01": ((0, 1), (90, 139)),
    "float_neg": ((-38, 11), (0, 255)),
    "rgb12in16": ((0, 4095), (20, 229)),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_pictures_are_scaled_by_one_range_of_the_whole_set(name: str) -> None:
    data, (levels, span) = case(name), DEEP[name]
    every = greys(data)
    assert (min(v.min() for v in every.values()), max(v.max() for v in every.values())) == span
    facts = data_facts(data)["levels"]
    assert (facts["black"], facts["white"], facts["pictures"]) == (*levels, 6)
    findings, _ = looked_at(data)
    assert f"{levels[0]} is black, {levels[1]} white" in findings["picture-deep"].what
    assert {f.level for f in findings.values()} == {"note"}


def test_a_value_has_one_brightness_in_a_set() -> None:
    data = case("depth_mixed")
    for name, grey in greys(data).items():
        raw = np.asarray(Image.open(data._folder / name)).astype(int)
        assert (grey == np.rint(raw * 255 / 16383)).all()
    assert "levels" not in data_facts(case("cat_numeric_name"))


def test_colours_of_16_bits_are_red_and_blue() -> None:
    assert [precision(case("rgb12in16"), split) for split in SPLITS] == [1, 1]


def test_what_is_no_number_is_black_and_told(tmp_path: Path) -> None:
    source = case("float01")
    (tmp_path / "images").mkdir()
    for record in (r for split in SPLITS for r in source.records(split)):
        values = np.array(Image.open(source.picture(record)))
        values[:3, :3] = [np.nan, np.inf, -np.inf]
        Image.fromarray(values).save(tmp_path / "images" / record.file)
    data = case("float01", images=str(tmp_path / "images"))
    for name, grey in greys(data).items():
        assert (grey[:3, :3] == [0, 255, 0]).all()
        assert (grey[3:] == greys(source)[name][3:]).all()
    findings, _ = looked_at(data)
    assert len(findings["picture-not-finite"].ids) == 2  # of val, the last one


def test_several_pages_are_told() -> None:
    with pytest.warns(UserWarning, match=r"p01\.tif: has several pages.*6 of 6"):
        assert case("multipage2").levels is None
    findings, _ = looked_at(case("multipage2"))
    assert findings["picture-pages"].level == "warning"
    assert "p05.tif (2)" in findings["picture-pages"].what


@pytest.mark.filterwarnings("ignore:.*upright one is taken")
@pytest.mark.parametrize("name", ["exif_mixed", "tiff_orient_stored"])
def test_masks_lie_on_turned_pictures(name: str, tmp_path: Path) -> None:
    data = case(name)
    assert [len(r.annotations) for split in SPLITS for r in data.records(split)] == [2] * 6
    assert min(precision(data, split) for split in SPLITS) > 0.98
    findings, _ = looked_at(case(name))
    assert ("picture-upright" in findings) == (name == "exif_mixed")
    assert not {"outside", "mostly-dropped"} & findings.keys()
    copy, _ = fixed(case(name), tmp_path / "copy")
    assert min(precision(copy, split) for split in SPLITS) > 0.98
    assert all(f.level == "note" for f in looked_at(copy)[0].values())


def test_an_object_that_fits_only_the_told_frame_speaks_against_turning_all(tmp_path: Path) -> None:
    def contradict(content: dict[str, Any]) -> None:
        own = [a for a in content["annotations"] if a["image_id"] == content["images"][1]["id"]]
        for number, entry in enumerate(own):
            entry["segmentation"] = [[5, 70 + number, 20, 70, 20, 90, 5, 90]]

    data = changed("exif_mixed", tmp_path, "train.json", contradict)
    findings, _ = looked_at(Coco(name="coco", root=data.root, train=data.train, val=data.train))
    upright = [r.file for r in data.files["train"].records if r.width > r.height]
    assert findings["picture-upright"].ids == upright
    assert "p02.jpg" not in upright


@pytest.mark.parametrize("name", ["multipage2", "rgb12in16", "float_neg"])
def test_a_changed_picture_is_read_or_named(name: str, tmp_path: Path) -> None:
    source = case(name).pictures()[0]
    path, content = tmp_path / source.name, source.read_bytes()
    draw = random.Random(0)
    for _ in range(150):
        spoilt = bytearray(content)
        for place in (draw.randrange(300), -1 - draw.randrange(300), draw.randrange(len(spoilt))):
            spoilt[place] = draw.choice((0, 1, 2, 255, draw.randrange(256)))
        path.write_bytes(spoilt)
        with warnings.catch_warnings(action="ignore"), suppress(UserError):
            images.common_levels([path])
            images.read_image(path)


def test_predict_scales_by_the_levels_of_the_run() -> None:
    data = case("depth_mixed")
    record = data.records("val")[0]  # a dim one, which its own levels would brighten
    facts = json.loads(json.dumps(data_facts(data)))
    file = InputFile(data.picture(record), Path("dim.png"))
    folder = Folder([file], data, 1, levels=images.Levels(**facts["levels"]))
    (shot,) = (shot for _ in folder for shot in folder.shots.values())
    assert (shot.pixels == data.image(record)).all()
    assert shot.pixels.max() < images.read_image(data.picture(record)).max()
