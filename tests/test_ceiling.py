"""The ceiling is what the annotations themselves score, and it is said wherever it matters."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segsweep.base.config import Config, compose
from segsweep.data.base import BACKGROUND, Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.metrics import ceiling as ceilings
from segsweep.metrics.ceiling import Ceiling, ceiling
from segsweep.metrics.round_trip import enlarged
from segsweep.results import frame, tables
from segsweep.results.candidates import contests
from segsweep.run.shapes import record_of
from segsweep.verbs import check_data, plan, report
from tests.records import judge, record, write
from tests.small_coco import real_folder

SIDE = 64
NATIVE = "data.size=[240,320]"  # of the pictures of many150


def case(name: str, *words: str) -> Config:
    """The config of a reported set."""
    return compose(["data=coco", f"data.root={real_folder('reported_cases') / name}", *words])


def limit(config: Config, split: str = "val") -> Ceiling:
    """The ceiling of a set, which has one."""
    found = ceiling(config, split)
    assert found is not None
    return found


@pytest.mark.parametrize(("queries", "value"), [(100, 66.3), (40, 26.7)])
def test_objects_that_there_is_no_room_for(queries: int, value: float) -> None:
    found = limit(case("many150", NATIVE, f"model.queries={queries}"))
    assert round(found.value, 1) == round(found.by_number, 1) == value
    assert (found.crowding.crowded, found.crowding.over) == (2, 2 * (150 - queries))
    assert f"model.queries={queries}" in str(found)
    assert "data.size" not in str(found)


def test_both_causes_cost_more_than_one() -> None:
    found = limit(case("many150"))  # as it is trained by default
    assert round(found.by_number, 1) == 26.7
    assert found.value < 26
    assert "(this alone limits it to 26.7)" in str(found)
    roomy = ["model.queries=150", "model.topk=150", "metrics.max_dets=150", NATIVE]
    assert limit(case("many150", *roomy)).value > 99.5


def test_thin_objects_vanish() -> None:
    train, val = (limit(case("thin_crack"), split) for split in ("train", "val"))
    assert (train.shrinking.gone, train.shrinking.objects) == (4, 8)
    assert train.value == val.value == 0
    assert "4 of 8 objects (50 %) vanish" in str(train)
    assert limit(case("thin_crack", "data.size=[900,1200]")).value > 99.5


def wide(folder: Path) -> Path:
    """The tall pictures lying: a set whose rows are columns."""
    shutil.copytree(real_folder("reported_cases") / "tall", folder)
    for split in ("train", "val"):
        content = json.loads((folder / f"{split}.json").read_text())
        for image in content["images"]:
            image["width"], image["height"] = image["height"], image["width"]
        for each in content["annotations"]:
            each["segmentation"] = [
                [v for pair in zip(p[1::2], p[::2], strict=True) for v in pair]
                for p in each["segmentation"]
            ]
            x, y, w, h = each["bbox"]
            each["bbox"] = [y, x, h, w]
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def test_long_pictures_lose_most_of_their_objects(tmp_path: Path) -> None:
    assert round(limit(case("tall")).value, 1) == 27.6
    lsj = limit(case("tall", "data.transform=lsj"))  # were all equally sure, it would be 1.3
    assert round(lsj.value, 1) == 2.5
    assert limit(compose(["data=coco", f"data.root={wide(tmp_path / 'wide')}"])).value < 50


def test_a_real_set_has_more_objects_than_queries() -> None:
    config = compose(["data=coco", f"data.root={real_folder('nuclei')}"])
    found = limit(config)
    assert found.crowding.limits == {"model.queries": 40}
    assert found.crowding.over == 189
    assert found.value < found.by_number < 80


@dataclass
class Drawn(DataSet):
    """Pictures of given objects: class, x, y, width, height."""

    objects: list[list[tuple[int, ...]]] = field(default_factory=list)

    def classes(self) -> list[str]:
        return ["a", "b"]

    def records(self, split: str) -> list[Record]:
        annotated = [[outlined(*each) for each in objects] for objects in self.objects]
        return [Record(k, str(k), SIDE, SIDE, found) for k, found in enumerate(annotated)]


def outlined(category: int, x: int, y: int, w: int, h: int) -> Annotation:
    """A block as an annotation."""
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    return Annotation(category, [outline], [x, y, w, h], w * h)


@cache
def some() -> Config:
    """The default config."""
    return compose([])


def drawn(objects: list[list[tuple[int, ...]]], size: int = SIDE, **options: int) -> Config:
    """A config of given objects, at an input size; `options` are of the model."""
    data = Drawn("", "drawn", size=[size, size], objects=objects)
    return replace(some(), data=data, model=replace(some().model, **options))


cells = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1), st.integers(2, 14))
grids = st.lists(st.lists(cells, min_size=1, max_size=9, unique_by=lambda c: c[:2]), min_size=1)


@settings(max_examples=15, deadline=None)
@given(grids.map(lambda g: g[:2]), st.integers(1, 8))
def test_fewer_queries_never_raise_it(grid: list[list[tuple[int, ...]]], queries: int) -> None:
    pictures = [[(c, 16 * x, 16 * y, w, 15) for x, y, c, w in one] for one in grid]
    values = [limit(drawn(pictures, 20, queries=n)).value for n in (queries, queries + 1, 40)]
    assert values == sorted(values)


def test_rare_classes_and_good_masks_go_first() -> None:
    one, other = (0, 0, 0, 15, 15), (1, 32, 32, 15, 15)
    crowded = [(0, 16 * k, 16, 1, 15) for k in range(4)]  # thin: hardly found at 20 pixels
    found = limit(drawn([[*crowded, one, other]], 20, queries=2))
    assert found.value > limit(drawn([[*crowded, one, other][:5]], 20, queries=5)).value
    assert limit(drawn([[one] * 3 + [other]], queries=2)).by_number > 60


def test_nothing_is_said_of_large_objects_at_native_size() -> None:
    found = limit(drawn([[(0, 3, 5, 40, 30)], [(1, 20, 20, 31, 40), (0, 0, 0, 9, 9)]]))
    assert found.value == 100
    assert not found.notable


def test_masks_come_back_as_those_of_a_model_do() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        h, w, height, width = (int(n) for n in rng.integers(1, 40, 4))
        mask = rng.random((h, w)) < rng.choice([0.1, 0.5, 0.9])
        mask[rng.integers(h), rng.integers(w)] = True
        resized = F.interpolate(torch.from_numpy(mask)[None, None].double(), (height, width),
                                mode="bilinear")[0, 0]  # fmt: skip
        sure = ((resized - 0.5).abs() > 1e-6).numpy()
        back = masks.to_mask(enlarged(mask, (height, width)), (height, width))
        assert np.array_equal(back[sure], (resized > 0.5).numpy()[sure])


def test_large_masks_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.ones((9, 7), bool)
    whole = enlarged(mask, (50, 40))
    monkeypatch.setattr("segsweep.metrics.round_trip.CELLS", 64)
    assert masks.area(whole) == masks.area(enlarged(mask, (50, 40))) == 50 * 40


@dataclass
class Lines(DataSet):
    """Label maps with a line of one pixel, and a block."""

    task: ClassVar[str] = "semantic"

    def classes(self) -> list[str]:
        return ["line", "block"]

    def records(self, split: str) -> list[Record]:
        return [Record(1, "", SIDE, SIDE, [], labels="x")]

    def label_map(self, record: Record) -> np.ndarray:
        values = np.full((SIDE, SIDE), BACKGROUND, np.uint8)
        values[32:], values[:, 8] = 1, 0
        return values


@dataclass
class OneClass(Lines):
    """The same of one class, in the foreground."""

    def classes(self) -> list[str]:
        return ["line"]

    def label_map(self, record: Record) -> np.ndarray:
        return np.where(super().label_map(record) == 0, 0, BACKGROUND).astype(np.uint8)


def test_thin_classes_of_label_maps_vanish() -> None:
    def seen(size: int) -> Ceiling:
        return limit(replace(some(), data=Lines("", "x", size=[size, size]), metrics=judge("miou")))

    small = seen(16)
    assert (small.shrinking.gone, small.shrinking.objects) == (1, 2)
    assert "1 of 2 regions (50 %) vanish" in str(small)
    assert small.metric == "mIoU_fg"
    assert 40 < small.value < 50  # a block, and a line that is not there
    assert seen(SIDE).value == 100


def test_of_errors_it_is_the_least() -> None:
    data = OneClass("", "x", size=[16, 16])
    found = limit(replace(some(), data=data, metrics=judge("ber")))
    assert found.value > 0.5
    assert "BER at least" in str(found)
    assert (
        limit(replace(some(), data=replace(data, size=[64, 64]), metrics=judge("ber"))).value == 0
    )


def test_of_a_large_split_evenly_spaced_images_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "MOST", 3)
    monkeypatch.setattr(ceilings, "LEAST", 3)
    found = limit(drawn([[(0, 2 * k, 8, 8, 8)] * (k + 1) for k in range(10)], queries=4))
    assert (found.shrinking.images, found.crowding.images) == (3, 10)
    assert found.crowding.over == sum(range(1, 7))
    assert "estimated on 3 of 10 images" in str(found)


def test_check_data_says_what_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = real_folder("reported_cases") / "many150"
    words = ["data=coco", f"data.root={root}", "--quiet", "--out", str(tmp_path)]
    assert check_data.main(words) == 0
    assert "segm_AP at most 24.2" in capsys.readouterr().out
    content = json.loads((tmp_path / "report.json").read_text())
    found = {f["code"]: f for f in content["findings"] if f["file"].endswith("val.json")}
    assert found["ceiling"]["level"] == "warning"
    assert found["image-crowded"]["ids"] == [3, 4]
    assert found["image-crowded"]["what"].endswith("m3.png has 150, m4.png has 150")
    assert round(content["ceilings"]["val"]["by_number"], 1) == 26.7
    assert "at most 24.2" in (tmp_path / "report.html").read_text()


def test_thin_objects_are_tiny_whatever_their_area(tmp_path: Path) -> None:
    file = real_folder("reported_cases") / "thin_crack" / "train.json"
    assert check_data.main([str(file), "--quiet", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "report.json").read_text())
    found = {f["code"]: f for f in content["findings"]}
    assert len(found["tiny"]["ids"]) == 4
    assert content["ceilings"]["train.json"]["value"] == 0


def test_the_plan_says_it_once_for_a_model_and_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = real_folder("reported_cases") / "tall"
    words = ["-m", "data=coco", f"data.root={root}", "seed=0,1", f"io.results={tmp_path}"]
    assert plan.main(words) == 0
    line = "ceiling of model=maskdino_tiny data=coco: segm_AP at most 27.6"
    assert capsys.readouterr().out.count(line) == 1
    assert plan.main([*words, "--json"]) == 0
    assert [round(e["ceiling"], 1) for e in json.loads(capsys.readouterr().out)] == [27.6] * 2


def with_ceiling(folder: Path, config: Config, **options: Any) -> None:
    """Leave a finished run whose data have the ceiling of a config."""
    body = record(**options)
    body["data"] |= {"ceiling": limit(config).facts()}
    (directory,) = write(folder, body)
    assert record_of(directory)


def test_tables_and_report_show_it_beside_the_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_ceiling(tmp_path, case("tall"), ap=20.0)
    with_ceiling(tmp_path, drawn([[(0, 3, 5, 40, 30)]]), domain="street", ap=20.0)
    runs = frame.read(tmp_path).runs
    (table,) = tables.ablation(runs)
    (note,) = [note for note in table.notes if note.startswith("Ceiling")]
    assert note.endswith("27.6 on AP digits (xray).")
    assert sorted(contest.ceiling for contest in contests(runs, {})) == ["", "27.6"]
    assert report.main(["--results", str(tmp_path), "--no-pictures"]) == 0
    assert capsys.readouterr().out.count("Ceiling: AP 27.6") == 1
    assert (tmp_path / "report.html").read_text().count("Ceiling: AP 27.6") == 1
