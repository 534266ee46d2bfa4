"""What an analysis says follows from predictions and objects: errors, recall, calibration."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segsweep.analysis import numbers, slices
from segsweep.analysis.matches import ERRORS, TYPES, match
from segsweep.analysis.study import HALF, Analysis, analyse, evaluated
from segsweep.base.config import Config, compose
from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, DataSet, Record
from segsweep.data.formats import masks
from segsweep.metrics.coco import CocoAP, truths
from segsweep.results.frame import flatten
from segsweep.run import predictions
from segsweep.run.folder import file_facts
from segsweep.run.identity import Run
from segsweep.verbs import analyse as analysis
from tests.small_coco import REAL, REAL_SETS, real
from tests.tide import tide

SIDE = 128
Box = tuple[int, int, int, int]
Guesses = list[dict[str, Any]]


class Boxes(DataSet):
    """Images of rectangles, with three classes."""

    def __init__(self, records: list[Record]) -> None:
        super().__init__(name="boxes")
        self.listed = records

    def classes(self) -> list[str]:
        return ["a", "b", "c"]

    def records(self, split: str) -> list[Record]:
        return self.listed

    def fingerprint(self) -> str:
        return "boxes"


def block(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, y : y + h, x : x + w] = True
    return masks.encode(mask)[0]


def thing(number: int, category: int, box: Box, crowd: bool = False) -> Annotation:
    rle = block(*box)
    return Annotation(category, rle, masks.bbox(rle), masks.area(rle), crowd, number)


def guess(category: int, box: Box, score: float) -> dict[str, Any]:
    rle = block(*box)
    return {
        "category_id": category, "score": score, "bbox": masks.bbox(rle), "segmentation": rle
    }  # fmt: skip


def config_of(data: DataSet, **fields: Any) -> Config:
    config = Config(data=data, metrics=CocoAP(name="coco"))
    config.data.slices = fields.pop("columns", [])
    return config


def studied(folder: Path, data: DataSet, guesses: dict[int, Guesses], **options: Any) -> Analysis:
    head = {"classes": data.classes(), "data": data.fingerprint()}
    with predictions.writing(folder / predictions.FILE, head) as writer:
        for image_id, instances in guesses.items():
            writer.add(image_id, sorted(instances, key=lambda g: -g["score"]))
    return analyse(config_of(data), predictions.read(folder / predictions.FILE), **options)


OBJECTS: dict[int, tuple[int, Box]] = {
    1: (0, (0, 0, 20, 20)), 2: (1, (40, 0, 40, 40)), 3: (2, (0, 60, 60, 60)),
    4: (0, (100, 0, 20, 20)),
}  # fmt: skip


def scene(**meta: Any) -> Record:
    annotations = [thing(number, *instance) for number, instance in OBJECTS.items()]
    return Record(5, "5.png", SIDE, SIDE, annotations, meta=meta)


def perfect() -> Guesses:
    return [guess(category, box, 0.9) for category, box in OBJECTS.values()]


INJECTED: dict[str, Guesses] = {
    "classification": [*perfect()[1:], guess(2, (0, 0, 20, 20), 0.95)],
    "localisation": [*perfect()[1:], guess(0, (0, 0, 20, 8), 0.95)],
    "both": [*perfect()[1:], guess(2, (0, 0, 20, 8), 0.95)],
    "duplicate": [*perfect(), guess(1, (40, 0, 40, 39), 0.5)],
    "background": [*perfect(), guess(0, (100, 100, 9, 9), 0.95)],
    "missed": perfect()[1:],
}


def test_perfect_predictions_have_no_errors(tmp_path: Path) -> None:
    analysis = studied(tmp_path, Boxes([scene()]), {5: perfect()}).numbers
    assert analysis["errors"]["base"]["AP"] == pytest.approx(100)
    assert {e: analysis["errors"][e]["dAP"] for e in ERRORS.values()} == dict.fromkeys(
        ERRORS.values(), 0.0
    )
    assert analysis["recall"] == {
        size: {"objects": n, "found": n, "recall": 100.0 if n else None}
        for size, n in (("all", 4), ("s", 2), ("m", 2), ("l", 0))
    }
    assert analysis["best"] == {"score": 0.9, "f1": 100.0, "precision": 100.0, "recall": 100.0}
    assert analysis["missed"] == {"count": 0, "first": []}


@pytest.mark.parametrize("kind", INJECTED)
def test_an_error_shows_as_its_own_type(tmp_path: Path, kind: str) -> None:
    errors = studied(tmp_path, Boxes([scene()]), {5: INJECTED[kind]}).numbers["errors"]
    counts = {name: errors[name]["count"] for name in TYPES.values()}
    # the object that "both" is about is still to be found; classification and localisation cover it
    expected = {kind} | ({"missed"} if kind == "both" else set())
    assert counts == {name: int(name in expected) for name in TYPES.values()}
    assert errors[kind]["dAP"] > 0 or kind == "duplicate"  # one behind all right ones costs nothing
    if kind not in ("both", "duplicate"):
        assert errors["base"]["AP"] + errors[kind]["dAP"] == pytest.approx(100)


def test_a_class_of_which_no_object_is_left_counts_nothing(tmp_path: Path) -> None:
    guesses = [guess for guess in perfect() if guess["category_id"] != 2]  # which has one object
    errors = studied(tmp_path, Boxes([scene()]), {5: guesses}).numbers["errors"]
    assert errors["base"]["AP"] == pytest.approx(200 / 3)
    assert errors["missed"] == {"count": 1, "dAP": pytest.approx(0)}
    data = real("coco_tiny")  # as docs/analysis.md says
    found = match(data, real_guesses("coco_tiny", data).items(), 0.5, max_dets=1000)
    assert len({annotation.category for _, annotation in found.objects}) == 54
    assert found.errors()["missed"]["dAP"] == pytest.approx(9.06, abs=0.005)


def real_guesses(name: str, data: DataSet) -> dict[int, Guesses]:
    number = {category: k for k, category in enumerate(data.category_ids())}
    guesses: dict[int, Guesses] = {r.image_id: [] for r in data.records("val")}
    for guess in json.loads((REAL / name / "reference/predictions.json").read_text()):
        guesses[guess["image_id"]].append({**guess, "category_id": number[guess["category_id"]]})
    return guesses


@pytest.mark.parametrize("name", REAL_SETS)
@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_errors_are_those_of_the_paper(name: str, iou: float) -> None:
    data = real(name)
    found = real_guesses(name, data)
    matches = match(data, found.items(), iou, max_dets=1000)
    images = [(truths(r, 1), found[r.image_id]) for r in data.records("val")]
    expected, errors = tide(images, iou), matches.errors()
    for kind, values in expected.items():
        assert errors[kind] == pytest.approx(values, abs=1e-9), kind


@pytest.mark.parametrize("name", REAL_SETS)
def test_base_ap_and_stored_predictions_agree_with_the_reference(tmp_path: Path, name: str) -> None:
    data = real(name)
    found = studied(tmp_path, data, real_guesses(name, data)).numbers
    expected = json.loads((REAL / name / "reference/expected.json").read_text())["segm"]["summary"]
    assert found["errors"]["base"]["AP"] == pytest.approx(100 * expected["AP50"], abs=1e-4)
    again = evaluated(config_of(data), predictions.read(tmp_path / predictions.FILE))
    assert again["segm_AP"] == pytest.approx(100 * expected["AP"], abs=1e-4)


def test_recall_and_missed_objects_hold_at_the_score(tmp_path: Path) -> None:
    record = scene()
    record.annotations.append(thing(9, 0, (80, 80, 40, 40), crowd=True))
    guesses = [guess(0, (0, 0, 20, 20), 0.3), guess(1, (40, 0, 40, 40), 0.6)]
    guesses += [guess(0, (85, 85, 9, 9), 0.9)]  # on the crowd: neither right nor wrong
    low = studied(tmp_path, Boxes([record]), {5: guesses}, score=0.3)
    assert [m.annotation_id for m in low.lists["missed"].rows] == [3, 4]
    assert low.lists["missed"].rows[0] == (5, "5.png", 3, "c", "m", 3600)
    high = studied(tmp_path, Boxes([record]), {5: guesses}, score=0.31)
    assert [m.annotation_id for m in high.lists["missed"].rows] == [1, 3, 4]
    assert high.numbers["recall"]["s"] == {"objects": 2, "found": 0, "recall": 0.0}
    assert high.numbers["calibration"]["predictions"] == 2
    strict = studied(tmp_path, Boxes([record]), {5: [guess(1, (40, 0, 40, 30), 0.9)]}, iou=0.8)
    assert strict.numbers["recall"]["all"]["found"] == 0


def test_sizes_are_those_of_coco() -> None:
    areas = {1023.9: "s", 1024: "m", 9215: "m", 9216: "l"}
    assert {area: numbers.size_of(area) for area in areas} == areas


def test_the_best_score_keeps_all_of_one_score(tmp_path: Path) -> None:
    far: Box = (100, 100, 9, 9)
    guesses = [*perfect(), guess(0, far, 0.9), guess(0, far, 0.5), guess(1, far, 0.4)]
    best = studied(tmp_path, Boxes([scene()]), {5: guesses}).numbers["best"]
    assert best == pytest.approx({"score": 0.9, "f1": 800 / 9, "precision": 80, "recall": 100})


def test_calibration_is_the_mean_gap_between_score_and_precision() -> None:
    scores = np.array([0.05, 0.95, 0.95, 0.95, 1.0])
    right = np.array([False, True, True, False, True])
    values = numbers.calibration(scores, right)
    assert values["bins"][0] == [1, 5.0, 0.0]
    assert values["bins"][9] == [4, 96.25, 75.0]
    assert values["ECE"] == pytest.approx((1 * 5 + 4 * 21.25) / 5)
    assert values["MCE"] == pytest.approx(21.25)
    trusted = np.random.default_rng(0).uniform(size=200_000)
    hits = np.random.default_rng(1).uniform(size=200_000) < trusted
    assert numbers.calibration(trusted, hits)["ECE"] < 0.5


@pytest.mark.parametrize("objects", [[], [thing(1, 0, (0, 0, 9, 9))]])
@pytest.mark.parametrize("guesses", [[], [guess(0, (50, 50, 9, 9), 0.5)]])
def test_nothing_to_find_and_nothing_found(
    tmp_path: Path, objects: list[Annotation], guesses: Guesses
) -> None:
    data = Boxes([Record(5, "5.png", SIDE, SIDE, objects)])
    values = studied(tmp_path, data, {5: guesses}).numbers
    json.dumps(values, allow_nan=False)
    assert values["best"] is None
    assert values["recall"]["all"]["recall"] == (0.0 if objects else None)
    assert (values["errors"] is None) == (not objects)
    assert values["calibration"]["ECE"] is None  # 0.00 would read as perfect
    assert values["score"] == HALF


def test_a_slice_is_the_evaluation_of_its_images_alone(tmp_path: Path) -> None:
    data = real("nuclei")
    guesses = real_guesses("nuclei", data)
    values = studied(tmp_path, data, guesses, columns=["modality"], score=0.5).numbers
    assert {v: part["images"] for v, part in values["slices"]["modality"].items()} == {
        "bf": 1, "color": 6, "fluo": 17
    }  # fmt: skip
    alone = {r.image_id for r in data.records("val") if r.meta["modality"] == "color"}
    only = studied(tmp_path, data, {i: guesses[i] for i in alone}, score=0.5)
    again = evaluated(config_of(data), predictions.read(tmp_path / predictions.FILE))
    colour = values["slices"]["modality"]["color"]
    assert colour == {"images": 6, "segm_AP": again["segm_AP"], **only.numbers["recall"]["all"]}


def test_slices_that_cannot_be_are_refused_before_training() -> None:
    few = Boxes([scene(camera="left", night=True)])
    slices.check(config_of(few, columns=["camera", "night"]))
    with pytest.raises(UserError, match=r"no column 'camra'; did you mean 'camera'\? \(choices: "):
        slices.check(config_of(few, columns=["camra"]))
    with pytest.raises(UserError, match="they have none at all"):
        slices.check(config_of(Boxes([scene()]), columns=["camera"]))
    many = Boxes([Record(k, "", 9, 9, [], meta={"time": k}) for k in range(60)])
    with pytest.raises(UserError, match="'time' has 60 values"):
        slices.check(config_of(many, columns=["time"]))
    without = config_of(few, columns=["camera"])
    without.io.predictions = False
    with pytest.raises(UserError, match=r"need io\.predictions=true"):
        slices.check(without)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The results of a finished run with real predictions, and of an old one without."""
    tmp_path = tmp_path_factory.mktemp("results")
    data = ["data=coco", f"data.root={real('nuclei').root}", f"io.results={tmp_path}"]
    for seed in (0, 1):
        run = Run(compose([*data, f"seed={seed}"]))
        run.directory.mkdir(parents=True)
        run.prepare()
        record = run.head() | {"status": "done"}
        if not seed:
            guesses = real_guesses("nuclei", run.config.data)
            studied(run.directory, run.config.data, guesses)
            record["files"] = file_facts(run.directory)
        (run.directory / "record.json").write_text(json.dumps(record))
    return tmp_path


def test_the_verb_answers_new_questions_without_training(results: Path, capsys) -> None:
    words = [str(results), "--results", str(results), "--slice", "modality", "--score", "0.5"]
    assert analysis.main(words) == 0
    said = capsys.readouterr().out
    assert said.count("kept no predictions") == 1
    assert "force=true" in said
    (folder,) = (p for p in (results / "analysis").iterdir() if p.is_dir())
    written = {p.name for p in folder.iterdir()}
    assert written >= {"analysis.json", "figure.png", "figure.svg", "missed.csv"}
    found = json.loads((folder / "analysis.json").read_text())
    assert found["score"] == 0.5
    with (folder / "missed.csv").open() as file:
        missed = list(csv.DictReader(file))
    recall = found["recall"]["all"]
    assert len(missed) == found["missed"]["count"] == recall["objects"] - recall["found"]
    assert len(found["missed"]["first"]) == numbers.SHOWN < len(missed)
    with (results / "analysis/slices.csv").open() as file:
        assert [row["value"] for row in csv.DictReader(file)] == ["bf", "color", "fluo"]


def test_the_verb_says_what_is_wrong(results: Path) -> None:
    old = next(d for d in (results / "runs").iterdir() if not (d / predictions.FILE).exists())
    with pytest.raises(UserError, match="kept no predictions"):
        analysis.main([str(old), "--results", str(results)])
    with pytest.raises(UserError, match="--iou: 50 must lie"):
        analysis.main([str(old), "--iou", "50"])


def test_predictions_of_other_data_are_refused(tmp_path: Path) -> None:
    data = Boxes([scene()])
    with predictions.writing(tmp_path / "one.gz", {"classes": [], "data": "others"}):
        pass
    with pytest.raises(UserError, match="changed since the run"):
        analyse(config_of(data), predictions.read(tmp_path / "one.gz"))


def test_an_analysis_fits_into_the_table_of_runs(tmp_path: Path) -> None:
    analysis = studied(tmp_path, Boxes([scene(camera="x")]), {5: perfect()}, columns=["camera"])
    values = flatten({"analysis": analysis.numbers})
    assert values["analysis.slices.camera.x.segm_AP"] == pytest.approx(100)
    assert values["analysis.errors.missed.dAP"] == 0
    assert json.loads(values["analysis.calibration.bins"])[9] == [4, 90.0, 100.0]
    assert not any(isinstance(value, dict | list) for value in values.values())
