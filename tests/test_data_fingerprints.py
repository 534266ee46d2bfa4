"""Fingerprints of data are a part of the names of runs: what they were, they stay.

The fakes of `layouts*.py` are pinned, with short texts for pictures and masks: what Pillow makes
of an image differs from release to release, and nothing here reads one.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from segsweep.base.config import compose
from tests.layouts import kind, make, source
from tests.small_coco import write

FINGERPRINTS = {
    "ade20k": "c7498ee50afb",
    "ade20k_instance": "48c42b9292eb",
    "camo": "0d5ecd29be17",
    "cityscapes": "04133d83fa06",
    "cvc612": "b1ac78c63c49",
    "isic2017": "7fb3c7e8208a",
    "kvasir": "e367fa7b5bbb",
    "leaf": "a19f2a256f50",
    "ndd20": "90f26d33cc59",
    "road": "e6d688de6a97",
    "sbu": "4b191db37904",
    "trans10k": "603fb69ca868",
    "wixray": "56921b24167c",
    "zerowaste": "a336dd0d906c",
}
DRAWN = {
    "source": "a536782b433e",
    "clean": "1eebb14a22cb",
    "clutter": "428f6889b747",
    "xray": "0bb237763b9d",
    "street": "fd807cef57ac",
}


@pytest.fixture(autouse=True)
def texts_for_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Image.Image, path: Path, *args: object, **options: object) -> None:
        Path(path).write_text(Path(path).name)

    monkeypatch.setattr(Image.Image, "save", save)


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_sets_in_their_publishers_layouts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if division := getattr(kind(name), "division", None):  # which asks for more than fakes have
        monkeypatch.setattr(kind(name), "division", replace(division, val=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # faults of the real sets, told and left out
        data = source(name, make(name, tmp_path / "set"), tmp_path / "cache")
        assert data.fingerprint() == FINGERPRINTS[name]


def test_coco_files(tmp_path: Path) -> None:
    assert write(tmp_path).fingerprint() == "6281a03b61ed"


def test_data_of_ones_own(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"{split}.png").write_text(split)
        (tmp_path / f"{split}_mask.png").write_text(f"mask of {split}")
        lines = f"image,label\n{split}.png,{split}_mask.png\n"
        (tmp_path / f"{split}.csv").write_text(lines)
    data = source("semantic", tmp_path, tmp_path / "cache", "labels={sky: 0, road: 7}")
    assert data.fingerprint() == "e9264d986458"


@pytest.mark.parametrize("domain", DRAWN)
def test_drawn_scenes(domain: str) -> None:
    data = compose(["data=digits", f"data.domain={domain}"]).data
    assert data.fingerprint() == DRAWN[domain]
