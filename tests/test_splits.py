"""A set without val is parted by photographs, the same everywhere, and known by how it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.data.sets.coco import Coco
from segsweep.data.splits import Share, digest, photographs, read
from segsweep.verbs.check_data import main
from tests import exports

TILES = [f"{name}_tile_{x}_{y}.png" for name in "abcdefghij" for x in (0, 512) for y in (0, 512)]


@pytest.mark.parametrize(
    ("names", "sources"),
    [
        (TILES, set("abcdefghij")),
        ([f"{c}_scaled_{k}.jpg" for c in "abc" for k in (0, 1)], set("abc")),
        ([f"sub/{c}_{k}.jpg" for c in "abcde" for k in range(3)], {f"sub/{c}" for c in "abcde"}),
        ([f"{c}_jpg.rf.{k:032x}.jpg" for c in "ab" for k in range(3)], set("ab")),
        ([f"IMG_{k:04}.jpg" for k in range(9)], {f"IMG_{k:04}" for k in range(9)}),
        ([f"2011_{k:06}.jpg" for k in range(9)], {f"2011_{k:06}" for k in range(9)}),
        ([f"{c}-{x}-{y}.tif" for c in ("u1", "u2") for x in "01" for y in "01"], {"u1", "u2"}),
    ],
)
def test_names_tell_what_was_cut_from_one_photograph(names: list[str], sources: set[str]) -> None:
    assert set(photographs(names).values()) == sources


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.99, 0.001])
def test_no_photograph_stands_on_both_sides(share: float) -> None:
    parts = Share(share).keys(TILES)
    assert sorted(parts["train"] + parts["val"]) == sorted(TILES)
    train, val = ({name[0] for name in parts[split]} for split in ("train", "val"))
    assert not train & val
    assert train
    assert val
    if 0.1 <= share <= 0.5:
        assert abs(len(val) - share * 10) <= 1
    assert Share(share).keys(reversed(TILES)) == parts


def test_a_set_of_one_photograph_cannot_be_parted() -> None:
    with pytest.raises(UserError, match="leave nothing for"):
        Share(0.2).keys(["a.jpg"])


def test_a_set_without_val_is_parted_and_its_manifest_makes_the_same_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    exports.label_studio(tmp_path / "set")
    bare = compose(["data=coco", f"data.root={tmp_path / 'set'}"]).data
    with pytest.raises(UserError, match=r"has no val.*data\.split=0\.2"):
        bare.records("train")
    words = ["data=coco", f"data.root={tmp_path / 'set'}", "data.split=0.34"]
    data = compose(words).data
    names = {split: [r.file for r in data.records(split)] for split in ("train", "val")}
    assert [len(names["train"]), len(names["val"])] == [4, 2]
    facts = data.split_facts()
    assert main([*words, "--quiet", "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out/split.tsv") in capsys.readouterr().out
    manifest = tmp_path / "out/split.tsv"
    assert read(manifest) == {split: sorted(files) for split, files in names.items()}
    assert facts == {"rule": str(Share(0.34)), "hash": digest(manifest.read_text()),
                     "train": 4, "val": 2}  # fmt: skip
    again = Coco(name="coco", root=str(tmp_path / "set"), split=str(manifest))
    assert again.split_facts()["hash"] == facts["hash"]
    assert [r.file for r in again.records("val")] == names["val"]
    ids = {fingerprint(compose([*words[:2], f"data.split={s}"])) for s in (0.34, 0.2, manifest)}
    assert len(ids) == 3


def test_only_a_set_without_val_is_parted(tmp_path: Path) -> None:
    exports.roboflow(tmp_path)
    with pytest.raises(UserError, match="has a val of its own"):
        Coco(name="coco", root=str(tmp_path), split="0.2").fingerprint()
    for share in ("0", "1", "20"):
        with pytest.raises(UserError, match="between 0 and 1"):
            Coco(name="coco", root=str(tmp_path), val=None, split=share)


def test_test_is_checked_beside_train_and_val(tmp_path: Path) -> None:
    exports.roboflow(tmp_path / "set")
    leak = tmp_path / "set/test/_annotations.coco.json"
    content = json.loads(leak.read_text())
    assert Coco(name="coco", root=str(tmp_path / "set")).splits() == ("train", "val", "test")
    (tmp_path / "set/test/copy.jpg").write_bytes(
        next((tmp_path / "set/train").glob("p2*.jpg")).read_bytes()
    )
    content["images"][0]["file_name"] = "copy.jpg"
    leak.write_text(json.dumps(content))
    out = tmp_path / "out"
    assert main([str(tmp_path / "set"), "--quiet", "--out", str(out)]) == 0
    found = {f["code"]: f["ids"] for f in json.loads((out / "report.json").read_text())["findings"]}
    assert found["leak"] == ["test/copy.jpg"]
    before = Coco(name="coco", root=str(tmp_path / "set")).fingerprint()
    leak.unlink()
    data = Coco(name="coco", root=str(tmp_path / "set"))
    assert data.fingerprint() == before  # nothing is learnt from test
    assert data.splits() == ("train", "val")
