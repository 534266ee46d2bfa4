"""Masks of every mode mean what they say, and lists of pairs name their faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data.base import BACKGROUND
from segsweep.data.formats.pairs import binary, indexed, table
from tests import layouts_semantic as layouts

DARK = np.array([38, 0, 0], np.uint8)
MASKS = {  # of one thing: how it is written
    "1 bit": lambda there: Image.fromarray(there),
    "0 and 1": lambda there: Image.fromarray(there.astype(np.uint8)),
    "one dark colour": lambda there: Image.fromarray(there[..., None] * DARK),
    "RGBA": lambda there: Image.fromarray(there.astype(np.uint8) * 255).convert("RGBA"),
    "16 bit": lambda there: Image.fromarray(there.astype(np.uint16) * 65535),
    "palette": lambda there: Image.fromarray(there.astype(np.uint8) * 255).convert("P"),
    "grey rims": lambda there: Image.fromarray(
        (there * 200 + np.random.default_rng(0).integers(0, 56, there.shape)).astype(np.uint8)
    ),
}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("share", [None, 0, 1])
def test_masks_of_one_thing_in_every_mode(tmp_path: Path, kind: str, share: int | None) -> None:
    there = layouts.thing(3) if share is None else np.full((9, 8), bool(share))
    MASKS[kind](there).save(tmp_path / "a.png")
    if share == 0 and kind == "grey rims":
        with pytest.raises(UserError, match=r"a.png.*none above 55"):  # its scale is unknown
            binary(tmp_path / "a.png")
        return
    labels, grey = binary(tmp_path / "a.png")
    assert np.array_equal(labels == 0, there)
    assert np.array_equal(labels == BACKGROUND, ~there)
    assert (grey > 0) == (kind == "grey rims")


def test_masks_of_class_numbers(tmp_path: Path) -> None:
    values, path = np.array([[0, 1], [7, 0]]), tmp_path / "a.png"
    places = {0: BACKGROUND, 1: 0, 7: 1}
    wanted = np.array([[BACKGROUND, 0], [1, BACKGROUND]])
    for mode in ("L", "RGB", "RGBA", "LA"):
        layouts.mask(path, values, mode)
        assert np.array_equal(indexed(path, places), wanted), mode
    layouts.palette(path, values)
    assert np.array_equal(indexed(path, places), wanted)
    Image.fromarray(values.astype(np.uint16) * 100).save(path)
    assert np.array_equal(indexed(path, {100 * k: v for k, v in places.items()}), wanted)
    Image.fromarray(values == 1).save(path)
    assert np.array_equal(indexed(path, places), np.where(values == 1, 0, BACKGROUND))
    layouts.mask(path, values)
    with pytest.raises(UserError, match=r"a.png: values \[7\] \(25 %.*known are \[0, 1\]"):
        indexed(path, {0: 0, 1: 1})
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (4, 4, 3), np.uint8)).save(path)
    with pytest.raises(UserError, match="holds colours"):
        indexed(path, places)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "image and label"),
        ("image,label\n", "image and label"),
        ("image,label\nimages/0.JPG,masks/9.png\n", r"1 \(masks/9.png\) of its files are not in"),
        ("image,label\n" + "a" * 140_000, "cannot be read as CSV"),
        ("image,label\n" + "images/0.JPG,masks/0.png\n" * 2, "named more than once"),
    ],
)
def test_faults_of_lists_are_named(tmp_path: Path, text: str, message: str) -> None:
    layouts.packed(tmp_path / "root", {"train": [0], "val": [1]})
    (tmp_path / "root" / "train.csv").write_text(text)
    with pytest.raises(UserError, match=f"train.csv: .*{message}"):
        table(tmp_path / "root" / "train.csv")
