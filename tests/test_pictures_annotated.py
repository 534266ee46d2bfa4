"""`predict ... annotations=FILE`: results by the ids of a COCO file, which scores them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.data.formats import masks
from segsweep.run.identity import Run
from segsweep.story import train
from segsweep.verbs import predict


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> tuple[Path, Path]:
    """A run on a COCO set of scenes cut to odd widths, and a folder of its pictures.

    `theirs.json` among them annotates the same with other ids, as somebody else might have it.
    """
    root = tmp_path_factory.mktemp("set")
    scenes = compose(["data.domain=source", "data.train=1", "data.val=7"]).data
    content: dict[str, Any] = {}
    for split in ("train", "val"):
        content = coco_of(scenes, split, root / "images" / split)
        (root / f"{split}.json").write_text(json.dumps(content))
    words = [f"data.root={root}", "data.size=[128,128]", "data.transform=lsj", "peft=frozen"]
    places = [f"io.results={root / 'results'}", "hparams.batch_size=3"]
    run = Run(compose(["data=coco", *words, *places]))
    run.once(train)
    for image in content["images"]:
        image |= {"id": image["id"] + 1000, "file_name": f"elsewhere/{image['file_name']}"}
    for own in content["annotations"]:
        own |= {"image_id": own["image_id"] + 1000, "category_id": 90 - own["category_id"]}
    for category in content["categories"]:
        category["id"] = 90 - category["id"]
    (root / "images/val/theirs.json").write_text(json.dumps(content))
    return run.directory, root / "images/val"


def coco_of(data: Any, split: str, folder: Path) -> dict[str, Any]:
    """Write the scenes of a split to a folder; return their annotation file.

    It lists them in another order than their names have.
    """
    (folder / "sub").mkdir(parents=True)
    images, annotations = [], []
    for k, record in enumerate(data.records(split)):
        number, width, name = 40 - 3 * k, 128 - 9 * k, f"{'sub/' * (k % 2)}{9 - k}.png"
        Image.fromarray(data.image(record)[:, :width]).save(folder / name)
        file = f"{split}/{name}"
        images.append({"id": number, "file_name": file, "height": 128, "width": width})
        for own in record.annotations:
            (rle,) = masks.encode(masks.to_mask(own.segmentation, (128, 128))[None, :, :width])
            annotation = {"image_id": number, "category_id": 2 * own.category + 3, "iscrowd": 0}
            annotation |= {"id": len(annotations) + 1, "area": float(masks.area(rle))}
            annotations.append(annotation | {"segmentation": rle, "bbox": masks.bbox(rle)})
    categories = [{"id": 2 * k + 3, "name": name} for k, name in enumerate(data.classes())]
    kept = [one for one in annotations if one["area"]]
    return {"images": images, "annotations": kept, "categories": categories}


OTHER = {"id": 7, "name": "other"}  # 7 is the id that the run has for "two"


def test_an_annotation_file_scores_the_results_as_the_run_was(scored, tmp_path: Path) -> None:
    run, place = scored
    words = [f"images={place}", f"annotations={place / 'theirs.json'}", "threshold=0"]
    assert predict.main([str(run), *words, f"out={tmp_path}"]) == 0
    recorded = read_json(run / "record.json")["metrics"]
    known = COCO(str(place / "theirs.json"))
    found = json.loads((tmp_path / "predictions.json").read_text())
    for kind in ("segm", "bbox"):
        # pycocotools takes the area of boxes for that of masks where results have both
        other = "segmentation" if kind == "bbox" else "bbox"
        results = known.loadRes([{k: v for k, v in one.items() if k != other} for one in found])
        evaluation = COCOeval(known, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        expected = [recorded[f"{kind}_{x}"]["value"] for x in ("AP", "AP50", "AP75", "APs")]
        assert 100 * evaluation.stats[:4] == pytest.approx(expected, abs=1e-6)
        assert expected[0] > 5
    listed = {one["file_name"]: one["id"] for one in read_json(tmp_path / "images.json")["images"]}
    theirs = {f"elsewhere/val/{name}": number for name, number in listed.items()}
    assert theirs == {image["file_name"]: image["id"] for image in known.imgs.values()}
    assert "id 1040," in (tmp_path / "index.html").read_text()


def test_pictures_that_the_file_does_not_hold_are_left_out(scored, tmp_path: Path, capsys) -> None:
    run, place = scored
    content = json.loads((place / "theirs.json").read_text())
    del content["images"][0]
    (tmp_path / "a.json").write_text(json.dumps(content))
    words = [f"images={place}", f"annotations={tmp_path / 'a.json'}", f"out={tmp_path / 'out'}"]
    assert predict.main([str(run), *words]) == 0
    assert "left out: 9.png, theirs.json, which" in capsys.readouterr().out
    listed = read_json(tmp_path / "out/images.json")["images"]
    assert [one["id"] for one in listed] == [image["id"] for image in content["images"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: [image.update(file_name=f"x{image['id']}.png") for image in c["images"]],
            r"none of its images \(x1040\.png, x1037\.png, .*\) is below",
        ),
        (lambda c: c["images"].append(c["images"][0] | {"id": 5}), r"not clear for 9\.png"),
        (lambda c: c["images"][1].update(id=1040), "an image id occurs twice"),
        (
            lambda c: c["categories"].extend([c["categories"].pop(2) | {"name": "x"}, OTHER]),
            r"no category two \(but 7 other, ",
        ),
        (lambda c: [own.update(name="x" + own["name"]) for own in c["categories"]], "has no cat"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(scored, tmp_path: Path, change, said) -> None:
    run, place = scored
    content = json.loads((place / "theirs.json").read_text())
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        predict.main([str(run), f"images={place}", f"annotations={tmp_path / 'a.json'}"])
    with pytest.raises(UserError, match="goes with images="):
        predict.main([str(run), "split=val", f"annotations={tmp_path / 'a.json'}"])
