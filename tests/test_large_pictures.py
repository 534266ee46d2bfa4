"""Pictures of any size: what is made of them is made in parts, with the same result to the bit."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segsweep.data import folder
from segsweep.data.base import DataSet
from segsweep.data.folder import Folder
from segsweep.data.formats import images
from segsweep.data.formats.images import eight_bits, read_image
from segsweep.data.inputs import InputFile
from segsweep.metrics import label_maps
from segsweep.model.heads import frames
from segsweep.model.heads.query_semantic import best_classes
from segsweep.run.machine import peak_rss_mib, reset_peaks
from tests.test_data_images import MODES
from tests.test_segmenter import CLASSES, predict

SIDE = 1500
MEGAPIXELS = SIDE * SIDE / 2**20  # MiB of one byte per pixel


def added(call: Callable[[], Any]) -> float:
    """MiB that a call adds to this process at its peak."""
    gc.collect()
    with contextlib.suppress(
        AttributeError
    ):  # what is free goes back to the system, where glibc is
        ctypes.CDLL(None).malloc_trim(0)
    reset_peaks()
    before = peak_rss_mib()
    call()
    return peak_rss_mib() - before


def test_masks_do_not_exist_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CELLS", 1)
    logits, masks = torch.zeros(40, CLASSES + 1), torch.randn(40, 16, 16)
    predict(logits[:1], masks[:1], (SIDE, SIDE))  # what is needed once
    assert added(lambda: predict(logits, masks, (SIDE, SIDE)).coco) < 12 * MEGAPIXELS


def test_classes_of_pixels_are_found_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CELLS", 2**20)
    monkeypatch.setattr(label_maps, "PIXELS", 2**18)
    view = ((64, 64), (64, 64), (SIDE, SIDE))
    p, logits = torch.rand(8, 3), torch.randn(8, 16, 16)

    def counted() -> None:
        found = best_classes(p, logits, view, "bilinear")
        labels = found.label_map(background=True).numpy()
        label_maps.confusion(labels, labels, 3)

    best_classes(p, logits, ((64, 64), (64, 64), (64, 64)), "bilinear")
    assert added(counted) < 24 * MEGAPIXELS


@pytest.mark.parametrize("mode", MODES)
def test_pictures_are_converted_strip_by_strip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    MODES[mode](Image.fromarray(noise)).save(path)
    whole = read_image(path)
    if mode not in ("16 bit", "12 bit in 16"):
        with Image.open(path) as file:
            assert (whole == np.asarray(file.convert("RGB"))).all()
    monkeypatch.setattr(images, "STRIP", 5)
    assert (read_image(path) == whole).all()
    assert whole.flags.writeable


def test_a_large_picture_is_not_copied_as_a_whole(tmp_path: Path) -> None:
    Image.new("RGB", (2 * SIDE, SIDE), "red").save(tmp_path / "a.png")
    # Pillow's own has four bytes, the result three
    assert added(lambda: read_image(tmp_path / "a.png")) < 2 * MEGAPIXELS * 11


def test_few_large_pictures_are_predicted_on_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, width in (("a", 40), ("b", 40), ("c", 90), ("d", 40), ("e", 40)):
        Image.new("RGB", (width, 50)).save(tmp_path / f"{name}.png")
    files = [InputFile(path, Path(path.name)) for path in sorted(tmp_path.iterdir())]
    pictures = Folder(files, DataSet("x", size=[32, 32]), 3)
    assert [batch.image_ids for batch in pictures] == [[1, 2, 3], [4, 5]]
    monkeypatch.setattr(folder, "LARGE", 3 * 50 * 80)
    assert [batch.image_ids for batch in pictures] == [[1, 2], [3], [4, 5]]


def test_numbers_of_deep_pictures_are_scaled_strip_by_strip() -> None:
    values = np.full((2 * SIDE, SIDE), 7, np.uint16)
    # as a whole, numbers alone would have 8 bytes each, three times over; the result has three
    assert added(lambda: eight_bits(values, images.Levels(0, 4095))) < 2 * MEGAPIXELS * 12


def test_pixels_are_counted_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    truth, found = random.choice([0, 1, 2, 254, 255], (2, 7, 30)).astype(np.uint8)
    whole = label_maps.confusion(truth, found, 3)
    monkeypatch.setattr(label_maps, "PIXELS", 31)
    assert (label_maps.confusion(truth, found, 3) == whole).all()
    known = truth != 255
    assert whole.sum() == known.sum()
    assert whole[1, 2] == ((truth == 1) & (found == 2)).sum()
    assert whole[2, 3] == ((truth == 2) & (found > 2)).sum()
