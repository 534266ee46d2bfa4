"""The page of check-data: what it marks and joins, where it lies, and how a browser shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segsweep.check.page import suspicious
from segsweep.check.parts import joined
from segsweep.check.report import look_at
from segsweep.data.sets.coco import Coco
from segsweep.verbs.check_data import main
from tests.small_coco import HEIGHT, WIDTH, content, write

EVIL = "<script>document.title = 'hacked'</script>"
LONG = "a_very_long_name_as_cameras_and_programs_write_it" * 8


def faulty() -> dict[str, Any]:
    """Two images, whose ids are ids of annotations, too, as are those of categories."""
    what = content()
    block = what["annotations"][0]
    for entry, key in zip(what["images"], (11, 12), strict=True):
        entry["id"] = key
    what["categories"] = [{"id": 11, "name": "bolt"}, {"id": 12, "name": "bolt"}]
    entries = [block, what["annotations"][1], {**block, "id": 13, "bbox": [1, 2, 3, 4]}]
    what["annotations"] = [
        {**entry, "image_id": 11 + n % 2, "category_id": 11 + n % 2}
        for n, entry in enumerate(entries)
    ]
    return what


def marked(data: Coco) -> set[tuple[str, str, Any]]:
    """Part, file and id of what the page marks."""
    looks, _ = look_at(data, 1, quiet=True)
    shown = suspicious(looks)
    return {(s.part.name, s.record.file, identity) for s in shown for identity in s.marked}


def test_only_ids_of_annotations_mark_annotations(tmp_path: Path) -> None:
    data = write(tmp_path, train=faulty(), val=faulty())
    codes = {f.code for split in ("train", "val") for f in data.survey(split)[1]}
    assert codes == {"category-name-twice", "box-disagrees"}
    # 13 is the copy of 11, and the one with a wrong box
    assert marked(data) == {("train", "first.png", 13), ("val", "first.png", 13)}


def test_of_a_divided_file_objects_are_marked_where_they_are(tmp_path: Path) -> None:
    what = faulty()
    wrong = {**what["annotations"][1], "id": 14, "category_id": 11, "bbox": [1, 2, 3, 4]}
    what["annotations"].append(wrong)
    write(tmp_path, train=what)
    (tmp_path / "val.json").unlink()
    other = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)  # else both are one photograph
    Image.fromarray(other).save(tmp_path / "images/sub/second.png")
    data = Coco(name="coco", root=str(tmp_path), images="images", split="0.5")
    home = {r.file: split for split in ("train", "val") for r in data.records(split)}
    assert {*home.values()} == {"train", "val"}
    files = {"first.png": 13, "sub/second.png": 14}
    assert marked(data) == {(home[file], file, identity) for file, identity in files.items()}


def test_equal_findings_of_splits_are_one(tmp_path: Path) -> None:
    train = faulty()
    train["annotations"] += [{**train["annotations"][2], "id": 14}]
    looks, _ = look_at(write(tmp_path, train=train, val=faulty()), 1, quiet=True)
    findings = joined(part for part, _ in looks)
    assert len({finding.code for finding in findings}) == len(findings)
    where = {finding.code: finding.where for finding in findings}
    assert where["box-disagrees"] == "train 2, val 1"
    assert where["leak"] == "val 2"


def test_a_set_has_a_page_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place, what in (("a", content()), ("b", faulty())):
        write(tmp_path / place / "bolts", train=what, val=what)
    folder = tmp_path / "results/check-data"
    for place in ("a", "b", "./b/../a"):  # the same folder again, spelled otherwise
        assert main([f"{place}/bolts", "--quiet", "--workers", "1"]) == 0
    for place in ("a", "b"):  # files of equal names
        assert main([f"{place}/bolts/train.json", "--quiet", "--workers", "1"]) == 0
    reports = {file.parent.name: json.loads(file.read_text()) for file in folder.rglob("*.json")}
    assert {name: report["set"]["root" if "coco" in name else "train"].removeprefix(f"{tmp_path}/")
            for name, report in reports.items()} == {
        "coco-bolts": "a/bolts",
        "coco-bolts-2": "b/bolts",
        "train-bolts": "a/bolts/train.json",
        "train-bolts-2": "b/bolts/train.json",
    }  # fmt: skip


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a set with findings of all levels and hostile names."""
    folder = tmp_path_factory.mktemp("set")
    what = content()
    what["categories"][0]["name"] = EVIL
    what["categories"] += [{"id": 1, "name": "<img src=x onerror=alert(1)>"}]
    what["categories"] += [{"id": 2, "name": LONG}]
    block = what["annotations"][0]
    what["annotations"] += [
        {**block, "id": "<b>13</b>", "segmentation": [[1, 1]]},
        {**block, "id": 14, "bbox": [1, 2, 3, 4]},
        {**block, "id": 15, "category_id": EVIL},
    ]
    write(folder, train=what, val=json.dumps(what))
    words = ["data=coco", f"data.root={folder}", "--quiet", "--out", str(folder / "out")]
    assert main(words) == 1
    return folder / "out/report.html"


def test_classes_stand_by_number_and_those_without_objects_in_one_line(
    browser: Any, page_file: Path
) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    rows = page.locator(".tall .bars").first.locator("span.soft").all_inner_texts()
    numbers = [int(text) for text in rows]
    assert numbers == sorted(numbers, reverse=True)
    assert 0 not in numbers
    report = json.loads(page_file.with_name("report.json").read_text())["parts"]["train"]
    assert (
        len(numbers)
        == sum(row["objects"] > 0 for row in report["classes"])
        < len(report["classes"])
    )
    folded = len(report["classes"]) - len(numbers)
    assert f"{folded} classes without objects" in page.locator("summary").all_inner_texts()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands_alone(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    told, asked = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert told == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.title().startswith("check-data: coco-")
    assert page.locator("script, img[onerror]").count() == 0
    assert page.get_by_text(EVIL[:20]).count() >= 2  # a class of both splits
    assert page.get_by_text(LONG).count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert page.evaluate(shown)
    assert page.evaluate("document.images.length") >= 6
    for level in ("fatal", "warning", "note"):
        assert page.locator(f"section.finding.{level}").count() >= 1
    page.close()
