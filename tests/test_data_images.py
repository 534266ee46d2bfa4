"""Pictures of every kind reach the network upright, in colour, or are named as broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data.formats.images import read_image
from tests.small_coco import HEIGHT, WIDTH

MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[8:30, 10:40] = True

MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    **{m: (lambda i, m=m: i.convert(m)) for m in ("L", "LA", "P", "1", "RGB", "RGBA", "CMYK")},
    "16 bit": lambda i: Image.fromarray(np.asarray(i.convert("L")).astype(np.uint16) * 257),
    "12 bit in 16": lambda i: Image.fromarray(np.asarray(i.convert("L")).astype(np.uint16) * 16),
}


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = MODES[mode](Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGB"))
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    pixels = read_image(path, (HEIGHT, WIDTH))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels[12:26, 14:36].min() > 240
    assert pixels[:, 50:].max() < 15


@pytest.mark.parametrize(
    ("size", "corner"), [((WIDTH, HEIGHT), (0, -1)), ((HEIGHT, WIDTH), (0, 0))]
)
def test_exif_orientation_is_followed_if_the_annotations_do(
    tmp_path: Path, size: tuple[int, int], corner: tuple[int, int]
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:8, :8] = 255  # top left as stored, top right when turned
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png", size)[corner].min() == 255


@pytest.mark.parametrize("what", ["cut", "text", "lfs", "missing", "other size"])
def test_broken_pictures_are_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise if what != "other size" else noise[:9]).save(path)
    if what == "cut":
        path.write_bytes(path.read_bytes()[:4000])
    elif what in ("text", "lfs"):
        path.write_text("hello" if what == "text" else "version https://git-lfs.github.com")
    elif what == "missing":
        path.unlink()
    with pytest.raises(UserError, match=r"a\.png") as error:
        read_image(path, (HEIGHT, WIDTH))
    assert ("git lfs pull" in str(error.value)) == (what == "lfs")
