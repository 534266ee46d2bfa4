"""Data sets as people report them: each is read rightly, or it is said what is wrong with it.

The pictures show red squares (class bolt) and blue triangles (class nut) on grey noise, so a mask
can be judged by the pixels below it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segsweep.base.errors import UserError
from segsweep.check.fix import fix
from segsweep.check.report import look_at
from segsweep.data.base import SPLITS, DataSet
from segsweep.data.findings import Finding
from segsweep.data.formats import masks
from segsweep.data.sets.coco import Coco
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
