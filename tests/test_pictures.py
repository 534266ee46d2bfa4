"""Predictions on anybody's pictures, runs side by side: what is drawn, written and counted."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from pycocotools.coco import COCO

import segsweep
from segsweep.analysis import study
from segsweep.analysis.numbers import best_score
from segsweep.base.config import compose
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import read_json, write_json
from segsweep.data import video
from segsweep.data.base import BACKGROUND, IGNORE, Record
from segsweep.data.folder import Shot
from segsweep.data.formats import masks
from segsweep.data.formats.images import read_image
from segsweep.data.inputs import InputFile
from segsweep.model.files import BaseWeights
from segsweep.model.found import SemanticMap
from segsweep.pages import difference
from segsweep.pages.compared.base import labels, stored_runs
from segsweep.pages.found import LabelMapForm, shares
from segsweep.pages.outlines import RIM, Outline
from segsweep.pages.painter import overlay, scaled, tinted
from segsweep.pages.palette import BASE, BLACK, WHITE, colour, luminance, palette
from segsweep.peft import delta
from segsweep.run import predictions
from segsweep.run.folder import DELTA, file_facts
from segsweep.run.identity import Run
from segsweep.run.restore import finished, restore
from segsweep.story import train
from segsweep.sweeps.names import single_run
from segsweep.verbs import analyse, compare, export, merge, predict
from tests.painted import WORDS
from tests.runs import contents
from tests.small_coco import REAL, real

TINY = [
    "data.train=2", "data.val=4", "data.domain=source", "hparams.epochs=1", "hparams.batch_size=2",
    "trainer.validate_every=2",
]  # fmt: skip


def trained(results: Path, *words: str) -> Path:
    run = Run(compose([*TINY, f"io.results={results}", *words]))
    run.once(train)
    return run.directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two runs of the same scenes: LoRA after a step, and the frozen base."""
    results = tmp_path_factory.mktemp("results")
    return [trained(results, "peft=lora", "peft.rank=2"), trained(results, "peft=frozen")]


@pytest.fixture
def copied(runs: list[Path], tmp_path: Path) -> Path:
    """The first run, to be changed."""
    return Path(shutil.copytree(runs[0], tmp_path / "results" / "runs" / runs[0].name))


@pytest.fixture(scope="module")
def pictures(runs: list[Path], tmp_path_factory) -> Path:
    """A folder as people have them."""
    folder = tmp_path_factory.mktemp("pictures & <more>")
    data = restore(runs[1]).config.data
    scenes = [Image.fromarray(data.image(record)) for record in data.records("val")]
    scenes[0].save(folder / "plain.png")
    scenes[1].convert("L").save(folder / "grey.png")
    scenes[2].convert("RGBA").save(folder / "clear.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    (folder / "sub").mkdir()
    scenes[3].crop((0, 0, 128, 80)).save(folder / "sub" / "turned.JPG", exif=turned)
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("I;16", (40, 20)).save(folder / "one.tif")
    (folder / "broken.png").write_bytes((folder / "plain.png").read_bytes()[:400])
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def out(runs: list[Path], pictures: Path, tmp_path_factory) -> Path:
    """What the frozen base finds in that folder."""
    folder = tmp_path_factory.mktemp("out")
    words = [f"run={runs[1]}", f"images={pictures}", "threshold=0.3", f"out={folder}"]
    assert predict.main(words) == 0
    return folder


def test_results_are_coco_results(runs: list[Path], out: Path) -> None:
    known = COCO(str(out / "images.json"))
    results = known.loadRes(str(out / "predictions.json"))
    record = read_json(runs[1] / "record.json")
    assert sorted(known.getCatIds()) == record["data"]["category_ids"]
    sizes = {i["file_name"]: (i["height"], i["width"]) for i in known.imgs.values()}
    assert sizes == {
        "clear.png": (128, 128), "grey.png": (128, 128), "one.png": (1, 1), "one.tif": (20, 40),
        "plain.png": (128, 128), "sub/turned.JPG": (128, 80),
    }  # fmt: skip
    for found in results.anns.values():
        image = known.imgs[found["image_id"]]
        assert found["file_name"] == image["file_name"]
        assert results.annToMask(found).shape == (image["height"], image["width"])
        assert found["score"] >= 0.3


def test_a_picture_gives_what_the_evaluation_found_on_it(runs: list[Path], out: Path) -> None:
    image_id = restore(runs[1]).config.data.records("val")[0].image_id
    stored = dict(predictions.of_run(runs[1]))[image_id]
    expected = [one for one in stored if one["score"] >= 0.3]
    results = json.loads((out / "predictions.json").read_text())
    found = [one for one in results if one["file_name"] == "plain.png"]
    assert len(expected) > 1
    assert [f["score"] for f in found] == pytest.approx([e["score"] for e in expected], abs=1e-4)
    ids = read_json(runs[1] / "record.json")["data"]["category_ids"]
    assert [f["category_id"] for f in found] == [ids[e["category_id"]] for e in expected]
    areas = [[masks.area(f["segmentation"]) for f in own] for own in (found, expected)]
    assert areas[0] == pytest.approx(areas[1], abs=3)


def test_every_picture_is_drawn_and_what_is_none_is_named(out: Path, pictures: Path) -> None:
    drawn = sorted(p.relative_to(out / "overlays").as_posix() for p in out.rglob("overlays/**/*.*"))
    assert drawn == [
        "clear.png", "grey.png", "one.png", "one.tif.png", "plain.png", "sub/turned.jpg"
    ]  # fmt: skip
    page = (out / "index.html").read_text()
    assert all(f'src="overlays/{name}"' in page for name in drawn)
    assert "2 files skipped" in page
    assert "notes.txt" in page
    with Image.open(out / "overlays/sub/turned.jpg") as shown:
        assert shown.height > shown.width
    assert (pictures / "plain.png").exists()


def test_patterns_videos_and_crops_are_summed_up(
    runs: list[Path], pictures: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    scene = Image.open(pictures / "plain.png").convert("RGB")
    with video.writing(tmp_path / "clip.mp4", Fraction(10)) as write:
        for k in range(7):
            write(ImageChops.offset(scene, 8 * k, 0))
    shutil.copy(pictures / "plain.png", tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [f"run={runs[1]}", "images=*.png", "clip.mp4", "every=3", "crops=true", "out=out"]
    assert predict.main(words) == 0
    best = read_json(runs[1] / "record.json")["analysis"]["best"]["score"]
    told = capsys.readouterr().out
    results = json.loads(Path("out/predictions.json").read_text())
    assert f"threshold {best:.2f}: best F1 on its validation images; threshold=0.3 changes" in told
    assert f"\n{len(results)} objects on 4 of 4 pictures: " in told
    assert re.search(r"\nplain\.png +\d+ +0\.\d\d +\d \w+, ", told)
    assert "\nclip.mp4, 3 pictures  " in told
    assert "index.html, and beside it predictions.json, images.json, overlays, crops" in told
    assert min(x["score"] for x in results) >= best
    known = json.loads(Path("out/images.json").read_text())
    frames = [(x["file_name"], x.get("frame"), x.get("seconds")) for x in known["images"]]
    assert frames == [
        ("plain.png", None, None),
        *((f"clip.mp4#{k}", k, k / 10) for k in (0, 3, 6)),
    ]
    drawn = [frame.pixels.shape for frame in video.frames(Path("out/overlays/clip.mp4"))]
    assert drawn == [(720, 720, 3)] * 3
    assert video.extent(Path("out/overlays/clip.mp4"))[1] == Fraction(10, 3)
    assert len([*Path("out/crops").rglob("*.png")]) == len(results)
    with pytest.raises(UserError, match=r"out/crops: has the objects of an earlier call; delete"):
        predict.main(words)
    first = next(x for x in results if x["file_name"] == "plain.png")
    names = {
        c["id"]: c["name"] for c in json.loads(Path("out/images.json").read_text())["categories"]
    }
    with Image.open(f"out/crops/{names[first['category_id']]}/plain-1.png") as crop:
        assert crop.size == pytest.approx(first["bbox"][2:], abs=2)
    assert (
        '<video controls preload="metadata" src="overlays/clip.mp4">'
        in Path("out/index.html").read_text()
    )


def test_where_nothing_is_found_the_highest_score_is_told(
    runs: list[Path], pictures: Path, tmp_path: Path, capsys
) -> None:
    words = [str(runs[1]), f"images={pictures / 'plain.png'}", f"out={tmp_path}"]
    assert predict.main([*words, "threshold=1"]) == 0
    told = capsys.readouterr().out
    assert "0 objects on 1 picture\nNothing has the score 1.00; the highest is 0." in told
    assert predict.main([*words, re.findall(r"try (threshold=[\d.]+)", told)[0]]) == 0
    assert "\n1 object on 1 picture: 1 " in capsys.readouterr().out


def test_the_threshold_is_of_the_best_f1_or_what_is_lacking_is_told(copied: Path) -> None:
    config, record = finished(copied)
    best = record["analysis"]["best"]["score"]
    assert study.threshold(copied, config, record) == (best, study.BEST)
    assert study.threshold(copied, config, record | {"analysis": None})[0] == best
    nothing = record | {"analysis": record["analysis"] | {"best": None}}
    assert study.threshold(copied, config, nothing)[0] == 0.5
    (copied / predictions.FILE).unlink()
    score, reason = study.threshold(copied, config, record | {"analysis": None})
    assert (score, reason) == (
        0.5,
        "no predictions of the validation images are kept to choose one by",
    )


def test_from_python_pictures_have_the_brightness_of_the_run(copied: Path, tmp_path: Path) -> None:
    """Dim ones of 16 bits, which by themselves would be brightened."""
    record = read_json(copied / "record.json")
    record["data"]["levels"] = {"black": 0, "white": 65535, "pictures": 2}
    write_json(copied / "record.json", record)
    model = segsweep.load(copied)
    data = model.restored.config.data
    dim = data.image(data.records("val")[0])[..., 0].astype(np.uint16) * 16
    Image.fromarray(dim).save(tmp_path / "dim.png")
    (from_python,) = model.predict(f"{tmp_path}/*.png").values()
    predict.main([str(copied), f"images={tmp_path / 'dim.png'}", f"out={tmp_path / 'out'}"])
    written = json.loads((tmp_path / "out/predictions.json").read_text())
    assert from_python.scores.tolist() == pytest.approx([x["score"] for x in written])
    assert read_image(tmp_path / "dim.png", None, model.restored.levels).max() < 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["images=nowhere"], "images=nowhere: there is no such folder"),
        (["images={here}", "out={here}"], "must be another folder"),
        (["images={here}", "threshold=1.5"], "threshold=1.5"),
        (["images={here}", "score=1.5"], "threshold=1.5: must lie"),
        (["images={here}", "every=0"], "every=0: must be 1 or more"),
        (["images={here}", "data.root=x"], "data.root=x: .* has no place"),
        (["images={here}", "run=x"], "needs one run, as in run=3f2a91, not .* x"),
        ([], "say images=FOLDER, or split=val"),
    ],
)
def test_a_mistake_is_named(runs: list[Path], pictures: Path, words: list[str], said: str) -> None:
    asked = [word.format(here=pictures) for word in words]
    with pytest.raises(UserError, match=said):
        predict.main([str(runs[0]), *asked])


def test_a_folder_without_pictures_is_refused(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    words = [str(runs[0]), f"images={tmp_path}", f"out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match="none of 1 files is a picture"):
        predict.main(words)


def test_files_that_are_no_pictures_are_one_line_and_earlier_drawings_are_replaced(
    runs: list[Path], pictures: Path, tmp_path: Path, capsys
) -> None:
    here, out = tmp_path / "in", tmp_path / "out"
    here.mkdir()
    for name in ("a.txt", "b.txt", "data.yaml", "LICENSE"):
        (here / name).write_text("no picture")
    shutil.copy(pictures / "broken.png", here)
    (here / "text.png").write_text("no picture")
    shutil.copy(pictures / "plain.png", here)
    assert predict.main([str(runs[1]), f"images={here}", f"out={out}", "score=0.4"]) == 0
    told = capsys.readouterr().out
    assert "skipped 4 files that are no pictures (.txt, .yaml, no suffix)\n" in told
    assert told.count("skipped") == 3
    assert f"skipped {here / 'text.png'}: cannot be read as an image (no known format)\n" in told
    assert json.loads((out / "images.json").read_text())["info"]["threshold"] == 0.4
    assert "is replaced" not in told
    grey = f"images={pictures / 'grey.png'}"
    assert predict.main([str(runs[1]), grey, f"out={out}"]) == 0
    assert f"{out}: what an earlier call wrote there is replaced\n" in capsys.readouterr().out
    assert [path.name for path in (out / "overlays").iterdir()] == ["grey.png"]


def test_a_folder_of_somebody_is_not_cleared(runs: list[Path], pictures: Path, tmp_path: Path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.1 0.1 0.4 0.1 0.4 0.4")
    (tmp_path / "images.json").write_text(json.dumps({"info": {"year": 2026}, "images": []}))
    with pytest.raises(UserError, match=r"out=.*: has an images\.json of yours"):
        predict.main([str(runs[1]), f"images={pictures / 'grey.png'}", f"out={tmp_path}"])
    assert (tmp_path / "labels/a.txt").exists()


def test_label_maps_are_png_files_of_classes(tmp_path: Path, monkeypatch, capsys) -> None:
    run = trained(tmp_path / "results", *WORDS, "metrics=miou", "peft=frozen")
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(tmp_path / "in/a.png")
    words = [run.name, f"images={tmp_path / 'in'}", f"results={tmp_path / 'results'}"]
    capsys.readouterr()
    predict.main(words)
    told = capsys.readouterr().out
    text = "background only"
    assert told.startswith(f"picture  shares of pixels\na.png    {text}\n1 picture: {text}\nwrote ")
    parts = {"sky": [0.25], "road": [0.5, 0.25], "tree": [0.01], "pole": [0.001]}
    assert shares(parts, 2, 2) == "road 37.5 %, sky 12.5 %, 2 more"
    with monkeypatch.context() as patch:
        patch.setattr("segsweep.run.restore.assemble", None)  # no model is built for it
        with pytest.raises(UserError, match="finds label maps, which have no objects"):
            predict.main([*words, "crops=true"])
    folder = tmp_path / "results/predictions" / run.name / "in"
    with Image.open(folder / "labels/a.png") as file:
        assert (file.mode, file.size) == ("P", (70, 50))
        values = set(np.unique(np.asarray(file)))
    assert values <= {*range(len(read_json(run / "record.json")["data"]["classes"])), BACKGROUND}
    assert (folder / "overlays/a.png").exists()
    assert not (folder / "predictions.json").exists()
    kept = (run / predictions.FILE).read_bytes()
    (run / predictions.FILE).unlink()
    predict.main([str(run), "split=val"])
    assert (run / predictions.FILE).read_bytes() == kept


def test_drawings_of_a_video_have_one_size_whatever_classes_are_there(tmp_path: Path) -> None:
    classes = [f"class number {k}" for k in range(9)]
    form = LabelMapForm(classes, False, tmp_path / "labels")
    file, pixels = InputFile(Path("a.mp4"), Path("a.mp4")), np.zeros((40, 60, 3), np.uint8)
    sizes = set()
    for k, count in enumerate((1, 9)):
        labels = torch.arange(40 * 60, dtype=torch.int64).reshape(40, 60) % count
        found = SemanticMap(labels.to(torch.uint8), torch.ones(40, 60))
        drawn, values = form.draw(Shot(k, file, pixels, k, k / 25), Path(f"a/{k}"), found)
        sizes.add(drawn.size)
        assert list(values) == classes[:count]
    assert len(sizes) == 1
    assert (tmp_path / "labels/a/1.png").is_file()


def test_a_backfill_gives_the_bytes_of_the_evaluation(copied: Path, capsys) -> None:
    record = read_json(copied / "record.json")
    del record["files"]  # as versions without such files left it
    (copied / "record.json").write_text(json.dumps(record))
    before = contents(copied)
    (copied / predictions.FILE).unlink()
    with pytest.raises(UserError, match=f"predict run={record['id']} split=val"):
        predictions.of_run(copied)
    assert predict.main(["split=val", f"results={copied.parents[1]}"]) == 0
    assert contents(copied) == before
    assert predictions.of_run(copied).head["run"] == record["id"]
    assert "1 runs: 0 have predictions" in capsys.readouterr().out
    assert predict.main([f"run={copied}", "split=val"]) == 0
    assert "1 runs: 1 have predictions" in capsys.readouterr().out
    (copied / "record.json").write_text(json.dumps(record | {"id": "another"}))
    with pytest.raises(UserError, match="kept no predictions"):
        predictions.of_run(copied)


def test_other_bytes_than_the_recorded_ones_are_not_kept(copied: Path) -> None:
    record = read_json(copied / "record.json")
    record["files"][predictions.FILE]["sha256"] = "0" * 64
    (copied / "record.json").write_text(json.dumps(record))
    (copied / predictions.FILE).unlink()
    with pytest.raises(UserError, match="predicts other bytes here"):
        predict.main([str(copied), "split=val"])
    assert not (copied / predictions.FILE).exists()


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (predict, ["images=."]),
        (merge, []),
        (export, ["format=bundle"]),
        (analyse, []),
        (compare, ["{other}"]),
    ],
)
def test_files_that_are_not_those_of_the_record_are_refused(
    runs: list[Path], copied: Path, verb: Any, words: list[str]
) -> None:
    """As a process leaves them that wakes up when another has finished its run."""
    model = restore(copied).model
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).add_(1)
    facts = delta.read_delta(copied / DELTA)[1]
    (copied / DELTA).write_bytes(delta.delta_bytes(model, facts))
    with gzip.open(copied / predictions.FILE, "at", encoding="ascii") as file:
        file.write("")
    words = [word.format(other=runs[1]) for word in words]
    with pytest.raises(UserError, match=r"is not the file .*sha256 .*force=true") as error:
        verb.main([str(copied), *words, "--results", str(copied.parents[1])])
    assert str(copied) in str(error.value)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("record.json", "has not finished"),
        ("delta.safetensors", r"delta\.safetensors is gone .*prune"),
        ("config.yaml", "not a run directory"),
    ],
)
def test_what_a_model_needs_is_named(copied: Path, file: str, said: str) -> None:
    (copied / file).unlink()
    with pytest.raises(UserError, match=said):
        restore(copied)


def test_a_delta_of_another_base_is_refused(copied: Path) -> None:
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("seed: 0", "seed: 1", 1))
    with pytest.raises(Damaged, match=r"says another seed than record\.json"):
        restore(copied)
    text = text.replace("weights: segsweep://", "weights: null #")
    (copied / "config.yaml").write_text(text)
    record = read_json(copied / "record.json") or {}
    record["config"]["model"]["weights"] = None
    write_json(copied / "record.json", record)
    with pytest.raises(UserError, match="was trained on the base"):
        restore(copied)


def test_data_that_moved_are_found_by_a_word_and_test_is_evaluated(tmp_path: Path) -> None:
    from tests.small_coco import write

    write(tmp_path / "old")
    words = ["data=coco", f"data.root={tmp_path / 'old'}", "data.size=[64,64]", "peft=frozen"]
    run = Run(compose([*words, "hparams.epochs=1", f"io.results={tmp_path / 'results'}"]))
    run.once(train)
    kept = (run.directory / predictions.FILE).read_bytes()
    (tmp_path / "old").rename(tmp_path / "new")
    (run.directory / predictions.FILE).unlink()
    assert restore(run.directory).model is not None  # needs no data
    with pytest.raises(UserError, match="there is no such folder"):
        predict.main([str(run.directory), "split=val"])
    predict.main([str(run.directory), "split=val", f"data.root={tmp_path / 'new'}"])
    assert (run.directory / predictions.FILE).read_bytes() == kept
    with pytest.raises(UserError, match=r"data\.size=9: .* \(choices: .*data\.root"):
        restore(run.directory, words=["data.size=9"])
    on_test = [str(run.directory), "split=test", f"data.root={tmp_path / 'new'}",
               f"out={tmp_path / 'out'}"]  # fmt: skip
    with pytest.raises(UserError, match=r"has no test; .*data\.test="):
        predict.main(on_test)
    shutil.copy(tmp_path / "new/val.json", tmp_path / "new/test.json")
    assert predict.main(on_test) == 0
    found = json.loads((tmp_path / "out/test.json").read_text())
    record = json.loads((run.directory / "record.json").read_text())
    assert found["metrics"] == record["metrics"]  # of the same pictures
    assert record["weights"]["licence"] == BaseWeights.of(run.config.model.weights).licence != ""


def test_a_run_goes_by_the_beginning_of_its_id(runs: list[Path]) -> None:
    results = runs[0].parents[1]
    assert single_run(results, runs[0].name[-12:-6]) == runs[0]
    with pytest.raises(UserError, match="neither a sweep nor a run"):
        single_run(results, "zzz")
    with pytest.raises(UserError, match="names 2 runs; one is needed"):
        single_run(results, str(results))


def greedy(
    record: Record, found: list[dict[str, Any]], score: float, iou: float
) -> Iterator[tuple[int, float]]:
    """Objects that are found, with the score: class by class, the best prediction first."""
    size = record.height, record.width
    objects = [a for a in record.annotations if not a.iscrowd]
    guesses = sorted((g for g in found if g["score"] >= score), key=lambda g: -g["score"])
    if not objects or not guesses:
        return
    own, guessed = (
        np.stack([masks.to_mask(code, size).ravel() for code in codes]).astype(np.float32)
        for codes in ([a.segmentation for a in objects], [g["segmentation"] for g in guesses])
    )
    both = guessed @ own.T
    overlap = both / (guessed.sum(1)[:, None] + own.sum(1) - both)
    for guess, row in zip(guesses, overlap, strict=True):
        row = [v * (a.category == guess["category_id"]) for v, a in zip(row, objects, strict=True)]
        best = int(np.argmax(row))
        if row[best] >= iou:
            yield objects[best].id, guess["score"]
            overlap[:, best] = -1  # taken


@pytest.fixture(scope="module")
def rivals(tmp_path_factory) -> list[Path]:
    """Real predictions and worse ones, as two runs of a real set."""
    results, draws = tmp_path_factory.mktemp("rivals"), np.random.default_rng(0)
    return [
        rival(results, 0, lambda guess: guess),
        rival(results, 1, lambda guess: {"score": guess["score"] * draws.uniform(0.5, 1)}),
    ]


def rival(results: Path, seed: int, other: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """Leave a run with real predictions of three images of a real set, each made another."""
    data = real("nuclei")
    numbers = {category: k for k, category in enumerate(data.category_ids())}
    told = json.loads((REAL / "nuclei/reference/predictions.json").read_text())
    words = ["data=coco", f"data.root={data.root}", f"io.results={results}", f"seed={seed}"]
    run = Run(compose(words))
    run.directory.mkdir(parents=True)
    run.prepare()
    found: dict[int, list[dict[str, Any]]] = {r.image_id: [] for r in data.records("val")[:3]}
    for guess in (g for g in told if g["image_id"] in found):
        own = {**guess, "category_id": numbers[guess["category_id"]]}
        found[guess["image_id"]].append(own | other(own))
    head = {"run": run.id, "split": "val", "data": data.fingerprint(), "classes": data.classes()}
    with predictions.writing(run.directory / predictions.FILE, head) as writer:
        for image_id, several in found.items():
            writer.add(image_id, sorted(several, key=lambda g: -g["score"]))
    record = run.head() | {
        "status": "done",
        "files": file_facts(run.directory),
        "metrics": {"segm_AP": {"value": 50.0 - seed}},
        "data": {"fingerprint": data.fingerprint(), "classes": data.classes()},
    }
    (run.directory / "record.json").write_text(json.dumps(record))
    return run.directory


@pytest.mark.parametrize("iou", [0.5, 0.75])
def test_lost_objects_are_those_of_a_plain_matching(rivals: list[Path], iou: float) -> None:
    a, b = difference.compared_runs(stored_runs(rivals, []), 0.5, iou)
    records = {record.image_id: record for record in a.config.data.records("val")}
    found = [
        {
            (image_id, number): score
            for image_id, own in side.predicted
            for number, score in greedy(records[image_id], own, 0.5, iou)
        }
        for side in (a, b)
    ]
    lists = difference.lost(a, b), difference.lost(b, a)
    for listed, (ours, theirs) in zip(lists, (found, found[::-1]), strict=True):
        expected = {key: score for key, score in ours.items() if key not in theirs}
        got = {(one.image_id, one.annotation_id): one.score_found for one in listed}
        assert got == pytest.approx(expected)
    assert lists[0]
    row = difference.rows(a, b)[0]
    both = len(found[0].keys() & found[1].keys())
    total = sum(not x.iscrowd for i in a.matches.images for x in records[i].annotations)
    neither = total - both - len(lists[0]) - len(lists[1])
    assert row[:-1] == ("all", total, both, len(lists[0]), len(lists[1]), neither)
    sizes = difference.rows(a, b)[1:4]
    assert sum(size.objects for size in sizes) == total
    assert sum(size.only_a for size in sizes) == len(lists[0])


def test_comparing_writes_lists_a_figure_and_one_page(
    rivals: list[Path], tmp_path: Path, capsys
) -> None:
    words = [str(rivals[0]), f"run={rivals[1]}", "--images", "2", f"out={tmp_path}"]
    assert compare.main(words) == 0
    said = capsys.readouterr().out
    assert "Frozen" not in said
    assert "seed 0" in said
    every = list(csv.DictReader((tmp_path / "objects.csv").open()))
    lost = list(csv.DictReader((tmp_path / "lost.csv").open()))
    marks = [k for k in every[0] if k.startswith("found ")]
    assert sum(row[marks[0]] != row[marks[1]] for row in every) == len(lost) > 0
    page = (tmp_path / "index.html").read_text()
    assert len(page) < 4e6
    assert 'src="data:image/jpeg' in page
    assert not {'src="http', "<script", "<link rel=stylesheet"} & set(page.split())
    with Image.open(tmp_path / "figure.png") as sheet:
        assert sheet.width > 3 * 400


def test_compared_runs_stand_beside_one_another_on_a_narrow_screen(
    browser: Any, rivals: list[Path], tmp_path: Path
) -> None:
    words = [str(rivals[0]), f"run={rivals[1]}", "--images", "1", f"out={tmp_path}"]
    assert compare.main(words) == 0
    page = browser.new_page(viewport={"width": 420, "height": 900})
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    tops = "e => e.map((each) => each.getBoundingClientRect().top)"
    figures = page.locator(".side-by-side").first.locator("figure").evaluate_all(tops)
    assert len(figures) == 3
    assert len(set(figures)) == 1
    assert "mask AP" in page.locator("th").all_inner_texts()
    page.close()


def test_runs_of_low_scores_are_compared_by_their_own_unless_another_is_asked_for(
    rivals: list[Path], tmp_path: Path, capsys
) -> None:
    """From 0.5 on the second would have found nothing, though it finds the very same."""
    timid = rival(tmp_path, 2, lambda guess: {"score": guess["score"] / 4})
    words = [str(rivals[0]), str(timid), "--images", "1", f"out={tmp_path / 'out'}"]
    assert compare.main(words) == 0
    assert "no prediction" not in capsys.readouterr().out
    own, other = (
        [row[f"found {label}"] for row in csv.DictReader((tmp_path / "out/objects.csv").open())]
        for label in labels([read_json(p / "record.json") for p in (rivals[0], timid)])
    )
    assert own == other
    assert "1" in own
    assert compare.main([*words, "score=0.5"]) == 0
    said = r"seed 2.*: no prediction has a score of 0\.50 or more; the highest is 0\.2\d\."
    assert re.search(said, capsys.readouterr().out)
    assert re.search(said, (tmp_path / "out/index.html").read_text())


def test_where_nothing_is_right_all_pages_count_from_the_same_score(
    rivals: list[Path], tmp_path: Path, capsys
) -> None:
    """No page shows bare photographs of a run where another shows what it found."""
    lost = rival(tmp_path, 3, lambda guess: {"segmentation": block((520, 696), 0, 0, 2, 2)})
    for several in ([lost, rivals[0]], [lost, lost]):
        compared = difference.compared_runs(stored_runs(several, []), "best", 0.5)
        side, *_ = compared
        assert side.score == study.threshold(lost, side.config, side.record)[0] == study.HALF
        assert (side.matches.scores >= side.score).any()
        (remark,) = difference.remarks(compared)
        assert remark.endswith(
            ": counted from a score of 0.50 on; nothing found on the validation images is right, "
            "so none could be chosen."
        )


def test_the_best_score_is_each_runs_own(rivals: list[Path]) -> None:
    for side in difference.compared_runs(stored_runs(rivals, []), "best", 0.5):
        assert side.score == best_score(side.matches).score
        hits = side.summary(alike=True)["found"]
        assert hits == side.matches.right[side.matches.scores >= side.score].sum() > 0


def test_only_runs_of_the_same_images_are_compared(
    runs: list[Path], rivals: list[Path], copied: Path
) -> None:
    with pytest.raises(UserError, match=r"was evaluated on other data .*data=digits"):
        compare.main([str(rivals[0]), str(runs[0])])
    with pytest.raises(UserError, match="needs two runs or more"):
        compare.main([str(runs[0])])
    found = predictions.of_run(copied)
    with predictions.writing(copied / "short", found.head) as writer:
        for image_id, own in list(found)[:2]:
            writer.add(image_id, own)
    (copied / "short").rename(copied / predictions.FILE)
    record = read_json(copied / "record.json") | {"files": file_facts(copied)}
    (copied / "record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"on 2 images, .* on 4"):
        compare.main([str(runs[1]), str(copied)])


def test_real_runs_are_compared(runs: list[Path], tmp_path: Path, capsys) -> None:
    assert compare.main([*map(str, runs), f"out={tmp_path}", "images=3"]) == 0
    said = capsys.readouterr().out
    assert "LoRA (r=2)" in said
    assert "Frozen base" in said


def test_mcnemar_is_a_binomial_test() -> None:
    assert difference.mcnemar(0, 0) == 1
    assert difference.mcnemar(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert difference.mcnemar(2, 10) == difference.mcnemar(10, 2)


def block(size: tuple[int, int], x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((1, *size), bool)
    mask[0, y : y + h, x : x + w] = True
    return masks.encode(mask)[0]


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_outlines_show_on_any_picture_and_hide_no_object(grey: int) -> None:
    pixels = np.full((720, 900, 3), grey, np.uint8)
    pixels[300:308, 400:408] = 77
    shapes = [
        Outline(0, block((720, 900), 400, 300, 8, 8)),
        Outline(1, block((720, 900), 0, 0, 900, 30), "at the border"),
        Outline(2, block((720, 900), 899, 719, 1, 1), "x" * 40),
    ]
    drawn = np.asarray(overlay(pixels, shapes))
    assert drawn.shape == pixels.shape
    assert (drawn[300:308, 400:408] == 77).all()
    assert tuple(drawn[299, 404]) == colour(0)
    assert tuple(drawn[600, 100]) == (grey,) * 3
    beside = [(v + 0.05) for v in (luminance((grey,) * 3), luminance((round(RIM * grey),) * 3))]
    for line in (luminance(rgb) + 0.05 for rgb in BASE):
        assert max(max(line, v) / min(line, v) for v in beside) > 3  # WCAG 2, graphics


def test_masks_without_pixels_and_small_and_huge_pictures_can_be_drawn() -> None:
    empty = {"size": [1, 1], "counts": masks.encode(np.zeros((1, 1, 1), bool))[0]["counts"]}
    one = np.zeros((1, 1, 3), np.uint8)
    assert overlay(one, [Outline(0, empty, "a"), Outline(1, block((1, 1), 0, 0, 1, 1))]).size == (
        720, 720
    )  # fmt: skip
    wide = np.zeros((3, 6000, 3), np.uint8)
    line = overlay(wide, [Outline(0, block((3, 6000), 5990, 1, 1, 1))])
    assert line.size == (2048, 1)
    assert scaled(wide, (10, 5999)).size == (5999, 3)


def test_a_label_map_is_tinted_and_explained() -> None:
    labels = np.full((100, 150), BACKGROUND, np.uint8)
    labels[:50], labels[:, :10] = 1, IGNORE
    drawn = np.asarray(tinted(np.full((100, 150, 3), 200, np.uint8), labels, ["a", "b"]))
    assert drawn.shape[0] > 480
    assert tuple(drawn[400, 400]) == (200, 200, 200)
    assert tuple(drawn[100, 400]) != (200, 200, 200)


def seen_by(rgb: tuple[int, int, int], matrix: list[list[float]]) -> np.ndarray:
    """A colour in CIE Lab as a dichromat sees it (Machado 2009)."""
    v = np.array(rgb) / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = np.cbrt(xyz @ linear / [0.9505, 1.0, 1.089] + 1e-9)
    return np.array([116 * t[1] - 16, 500 * (t[0] - t[1]), 200 * (t[1] - t[2])])


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ],
    ids=["normal", "protan", "deutan", "tritan"],
)
def test_the_first_colours_differ_for_everybody(matrix: list[list[float]]) -> None:
    seen = np.stack([seen_by(rgb, matrix) for rgb in BASE])
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1) + 1e3 * np.eye(len(BASE))
    assert apart.min() > 10
    assert len({colour(k) for k in range(21)}) == 21
    table = np.reshape(palette(), (256, 3))
    assert (tuple(table[BACKGROUND]), tuple(table[IGNORE])) == (BLACK, WHITE)
