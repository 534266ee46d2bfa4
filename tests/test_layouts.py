"""Folders as programs write them: found, said, read as what was drawn, and known by content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segsweep.base.errors import UserError
from segsweep.data.formats import masks
from segsweep.data.layouts.find import formats, found
from segsweep.data.sets.coco import Coco
from segsweep.verbs.check_data import main
from tests import exports
from tests.exports import HEIGHT, TRUTH, WIDTH
from tests.small_coco import real_folder

# export -> the format that reads it, what it is called
Export = Callable[..., None]
EXPORTS: dict[Export, tuple[str, str]] = {
    exports.roboflow: ("coco", "Roboflow export (COCO)"),
    exports.coco2017: ("coco", ""),
    exports.cvat: ("coco", "COCO's own layout, as CVAT exports it too"),
    exports.cvat_project: ("coco", "COCO's own layout, as CVAT exports it too"),
    exports.label_studio: ("coco", "Label Studio export (COCO)"),
    exports.ultralytics: ("yolo", "YOLO (set.yaml)"),
    exports.roboflow_yolo: ("yolo", "Roboflow export (YOLO)"),
    exports.cvat_yolo: ("yolo", "YOLO (data.yaml)"),
    exports.label_studio_yolo: ("yolo", "YOLO (classes.txt)"),
    exports.via1: ("via", "VIA (VGG Image Annotator)"),
    exports.via2: ("via", "VIA (VGG Image Annotator)"),
    exports.labelme: ("labelme", "LabelMe"),
    exports.masks: ("masks", "folders of masks"),
    exports.cellpose: ("masks", "folders of masks"),
    exports.data_science_bowl: ("masks", "folders of masks"),
}
# pictures of test, where an export has no annotations of it; what has no mask of its own
LACKING: dict[Export, set[str]] = {
    exports.coco2017: {"p6"},
    exports.ultralytics: {"p6"},
    exports.via1: {"p6"},
    exports.via2: {"p6"},
    exports.data_science_bowl: {"p4"},
}
each = pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)


def opened(root: Path) -> Coco:
    """The set of a folder; one without val is parted."""
    data = Coco(name="coco", root=str(root))
    return data if "val" in data.found.parts else Coco(name="coco", root=str(root), split="0.34")


def rectangle(ring: list[int]) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[ring[1] : ring[5], ring[0] : ring[2]] = True
    return mask.tobytes()


@each
def test_a_folder_is_read_as_it_was_drawn(
    export: Export, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    export(tmp_path)
    word, title = EXPORTS[export]
    data = opened(tmp_path)
    assert isinstance(data.found, formats()[word])
    assert data.found.title == title
    read = {}
    for split in data.splits():
        records, findings = data.survey(split)
        assert [f.code for f in findings if f.level != "note"] == []
        for record in records:
            pixels = data.image(record)
            assert pixels.shape == (HEIGHT, WIDTH, 3)
            name = Path(record.file).name[:2]
            drawn = [masks.to_mask(a.segmentation, (HEIGHT, WIDTH)) for a in record.annotations]
            classes = [[*data.files["train"].categories.values()][a.category]
                       for a in record.annotations]  # fmt: skip
            read[name] = {(c, m.tobytes()) for c, m in zip(classes, drawn, strict=True)}
    plain = word == "masks"  # they know no classes, and of what has no mask nothing
    for name, objects in read.items():
        wanted = {("object" if plain else label, rectangle(ring)) for label, ring in TRUTH[name]}
        assert objects == wanted, name
    assert read.keys() == TRUTH.keys() - LACKING.get(export, set())
    assert (title in capsys.readouterr().err) or not title


@each
def test_a_set_is_its_content_not_its_place(export: Export, tmp_path: Path) -> None:
    export(tmp_path / "a")
    known = opened(tmp_path / "a").fingerprint()
    shutil.move(tmp_path / "a", tmp_path / "b")
    data = opened(tmp_path / "b")
    assert data.fingerprint() == known
    path = data.found.parts["train"][0]
    text = path.read_bytes()
    path.write_bytes(text + (b"\n" if path.suffix in (".json", ".txt") else b"x"))
    assert opened(tmp_path / "b").fingerprint() != known


def test_every_format_has_an_export() -> None:
    assert {word for word, _ in EXPORTS.values()} == formats().keys()


def test_a_folder_alone_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    exports.roboflow(tmp_path / "set ü=1")
    assert main([str(tmp_path / "set ü=1"), "--quiet", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "read as Roboflow export (COCO): train train/_annotations.coco.json" in said
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert {name: part["images"] for name, part in report["parts"].items()} == {
        "train": 4, "val": 1, "test": 1
    }  # fmt: skip


def codes(data: Coco, split: str = "train") -> dict[str, list]:
    return {finding.code: finding.ids for finding in data.survey(split)[1]}


def test_regions_without_a_label_take_the_only_class_of_the_other_split(tmp_path: Path) -> None:
    exports.via1(tmp_path)
    for split, label in (("train", "bolt"), ("val", None)):
        path = tmp_path / split / "via_region_data.json"
        content = json.loads(path.read_text())
        for entry in content.values():
            for region in entry["regions"].values():
                region["region_attributes"] = {"class": label} if label else {}
        path.write_text(json.dumps(content))
    data = Coco(name="coco", root=str(tmp_path))
    assert data.files["train"].categories == data.files["val"].categories == {1: "bolt"}
    assert len(codes(data, "val")["region-class-taken"]) == 2
    assert "region-class-taken" not in codes(data)
    with pytest.warns(UserWarning, match="read as the only class"):  # in training, too
        assert data.records("val")


def test_yolo_boxes_and_faulty_lines_are_told(tmp_path: Path) -> None:
    exports.ultralytics(tmp_path)
    lines = ["0 0.5 0.5 0.2 0.2", "1 0.1 0.1 0.4 0.1", "x 0.1 0.1 0.4 0.1 0.4 0.4", "0 0.1 a",
             "7 0.1 0.1 0.4 0.1 0.4 0.4", "1 0.1 0.1 0.4 0.1 0.4 0.4 nan", "", "0.5 1 1 1 0 0 1",
             "1 .1 .1 .9 .1 .9 .9 .1 .9"]  # fmt: skip
    (tmp_path / "labels/train/p1.txt").write_text("\n".join(lines))
    (tmp_path / "labels/train/gone.txt").write_text("0 0.1 0.1 0.4 0.1 0.4 0.4")
    found_codes = codes(Coco(name="coco", root=str(tmp_path)))
    name = "labels/train/p1.txt line {}"
    assert found_codes["mask-missing"] == [name.format(1), name.format(2)]
    assert found_codes["mask-form"] == [name.format(4)]
    assert found_codes["category-unknown"] == [name.format(5)]
    assert found_codes["annotation-broken"] == [name.format(3), name.format(8)]
    assert found_codes["odd-numbers"] == [name.format(6)]
    assert found_codes["annotation-orphan"] == ["labels/train/gone.txt"]
    for path in (tmp_path / "labels").rglob("*.txt"):
        path.write_text(lines[0])
    assert "boxes-only" in codes(Coco(name="coco", root=str(tmp_path)))


def test_what_is_no_outline_is_told(tmp_path: Path) -> None:
    exports.ultralytics(tmp_path)
    oriented = "\n".join(f"0 .{k} .1 .{k}2 .1 .{k}2 .3 .{k} .3" for k in range(1, 10))
    (tmp_path / "labels/train/p1.txt").write_text(oriented)
    data = Coco(name="coco", root=str(tmp_path))
    assert "four-corners" in codes(data)
    assert "four-corners" not in codes(data, "val")  # of two, none is a surprise
    with (tmp_path / "set.yaml").open("a") as file:
        file.write("kpt_shape: [17, 3]\n")
    with pytest.raises(UserError, match="keypoints"):
        Coco(name="coco", root=str(tmp_path)).fingerprint()


@pytest.mark.parametrize(
    ("path", "train"),
    [("", "../images/train"), ("/content/set", "images/train"), ("", "D:\\x\\images\\train"),
     ("x", ["images/train", "images/nowhere"]), ("", "/x/y/lists/train.txt")],
)  # fmt: skip
def test_paths_of_another_machine_are_followed_by_their_end(
    path: str, train: str | list[str], tmp_path: Path
) -> None:
    exports.ultralytics(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("./images/train/p1.jpg\n/x/images/train/p3.jpg\n")
    told = {"path": path, "train": train, "val": "images/val", "names": {"0": "bolt", 1: "nut"}}
    (tmp_path / "set.yaml").write_text(json.dumps(told))
    data = Coco(name="coco", root=str(tmp_path))
    listed = "lists" in str(train)
    assert len(data.records("train")) == (2 if listed else 4)
    assert data.classes() == ["bolt", "nut"]


def test_labelme_joins_groups_and_leaves_out_what_is_no_area(tmp_path: Path) -> None:
    exports.labelme(tmp_path)
    path = tmp_path / "p1.json"
    content = json.loads(path.read_text())
    one = content["shapes"][0]
    disc = {"label": "bolt", "shape_type": "circle", "points": [[45, 20], [55, 20]], "group_id": 7}
    box = {"label": "bolt", "shape_type": "rectangle", "points": [[30, 30], [32, 39]],
           "group_id": 7}  # fmt: skip
    line = {"label": "bolt", "shape_type": "line", "points": [[1, 1], [9, 9]], "group_id": None}
    empty = {"label": "\ud800", "shape_type": "mask", "mask": "", "points": ""}
    far = {**empty, "mask": exports.drawn([0, 0, 9, 0, 9, 9])["mask"], "points": [[1e999, 1]]}
    ignored = {**one, "label": "__ignore__"}
    content["shapes"] = [one, disc, line, box, ignored, empty, far, 7]
    content["imagePath"] = "C:\\somewhere\\p1.jpg"
    path.write_text(json.dumps(content))
    data = opened(tmp_path)
    (record,) = [r for s in ("train", "val") for r in data.records(s) if r.file == "p1.jpg"]
    areas = [masks.area(masks.to_rle(a.segmentation, (HEIGHT, WIDTH))) for a in record.annotations]
    assert len(areas) == 2
    assert areas[0] == 20 * 25
    assert abs(areas[1] - (np.pi * 100 + 2 * 9)) < 25
    assert codes(data)["region-unusable"] == [f"p1.json shape {n}" for n in (3, 5, 6, 7, 8)]


def test_what_was_seen_is_told_where_nothing_is_known(tmp_path: Path) -> None:
    exports.picture(tmp_path / "photos/p1.jpg")
    for name, text in {"a.xml": "<annotation/>", "b.json": '{"objects": [{"kind": 1}]}'}.items():
        (tmp_path / name).write_text(text)
    shutil.copy(real_folder("reported_cases/via3") / "via.json", tmp_path)
    with pytest.raises(UserError, match="no annotations in a format that is known") as error:
        Coco(name="coco", root=str(tmp_path)).records("train")
    said = str(error.value)
    for words in ("a.xml", "b.json (kind, objects)", "via.json (a VIA 3 project; only versions 1",
                  "1 pictures", *(kind.hint for kind in formats().values())):  # fmt: skip
        assert words in said
    with pytest.raises(UserError, match="VIA 3 project"):
        main([str(tmp_path / "via.json"), "--quiet"])
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "photos")
    with pytest.raises(UserError, match="unpack it and name the folder"):
        main([archive, "--quiet"])
    with pytest.raises(UserError, match="unpack an archive"):
        Coco(name="coco", root=archive).records("train")


def test_pictures_without_annotations_of_their_own_are_told(tmp_path: Path) -> None:
    for export in (exports.labelme, exports.cellpose):
        export(tmp_path / export.__name__)
        path = exports.picture(tmp_path / export.__name__ / "p9.jpg")
        data = opened(path.parent)
        assert codes(data)["picture-unannotated"] == ["p9.jpg"]


def test_of_two_formats_one_is_chosen_in_a_word(tmp_path: Path) -> None:
    exports.label_studio(tmp_path)
    exports.label_studio_yolo(tmp_path)
    with pytest.raises(UserError, match=r"data\.layout=coco .*result\.json.*; data\.layout=yolo"):
        found(tmp_path)
    assert opened_as(tmp_path, "yolo").found.title == "YOLO (classes.txt)"
    with pytest.raises(UserError, match="must be one of coco, labelme"):
        found(tmp_path, "pascal")


def opened_as(root: Path, word: str) -> Coco:
    return Coco(name="coco", root=str(root), layout=word, split="0.34")


def test_several_files_of_a_split_are_named(tmp_path: Path) -> None:
    exports.roboflow(tmp_path)
    exports.write(tmp_path / "more/train_again.json", exports.coco(["p1"]))
    with pytest.raises(UserError, match=r"2 COCO files may be train \(.*train_again\.json"):
        Coco(name="coco", root=str(tmp_path)).records("train")
    named = {"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"}
    assert len(Coco(name="coco", root=str(tmp_path), **named).records("train")) == 4  # pyright: ignore[reportArgumentType]


def test_names_may_begin_above_the_folder_of_pictures() -> None:
    data = Coco(name="coco", root=str(real_folder("reported_cases/ls_images_prefix")))
    assert [record.file for record in data.records("val")]


@pytest.mark.parametrize("export", [exports.cvat_project, exports.coco2017, exports.roboflow])
def test_equal_names_in_two_splits_mean_the_pictures_of_each(
    export: Export, tmp_path: Path
) -> None:
    export(tmp_path)
    data = Coco(name="coco", root=str(tmp_path))
    file = data.found.parts["val"][0]
    name, other = (data.records(split)[0].file for split in ("train", "val"))
    bare = Path(name).name
    (data._folder / other).rename(data._folder / Path(other).with_name(bare))
    file.write_text(file.read_text().replace(Path(other).name, bare))
    data = Coco(name="coco", root=str(tmp_path))
    assert data.records("train")[0].file == name
    assert data.records("val")[0].file == Path(other).with_name(bare).as_posix()
