"""Pictures of every kind reach the network upright, in colour, or are named as broken."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from segsweep.base.errors import UserError
from segsweep.data.formats import images
from segsweep.data.formats.images import decoded, read_image, sizes
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


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_read_to_the_last_bit(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    cv2 = pytest.importorskip("cv2")  # Pillow writes no such files
    values = np.random.default_rng(0).integers(0, 65535, (HEIGHT, WIDTH, channels), np.uint16)
    path = tmp_path / f"a.{suffix}"
    for flags in [[], [cv2.IMWRITE_TIFF_COMPRESSION, 1]][: 1 + (suffix == "tif")]:
        assert cv2.imwrite(str(path), values, flags)
        assert (decoded(path)[0] == values[..., 2::-1]).all()


def test_grey_of_16_bits_with_alpha_is_read_to_the_last_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65535, (HEIGHT, WIDTH, 2), np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 4, 0, 0, 0)
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(body)) + name + body)
            file.write(struct.pack(">I", zlib.crc32(name + body)))
    assert (decoded(path)[0] == values[..., :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_stored_and_shown_pictures_of_every_orientation(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:8, :16] = 255
    pixels[:16, 56:] = 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int)
    assert sizes(path) == ((HEIGHT, WIDTH), shown.shape[:2])
    assert np.abs(read_image(path, shown.shape[:2]).astype(int) - shown).max() < 9
    if orientation >= 5:
        assert np.abs(read_image(path, (HEIGHT, WIDTH)).astype(int) - pixels).max() < 9


def test_levels_are_those_of_a_stated_sample(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(images, "SAMPLE", 4)
    paths = [tmp_path / f"{number:02}.png" for number in range(9)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((4, 4), 1000 * number + 1, np.uint16)).save(path)
    levels = images.common_levels([*paths, tmp_path / "no.png", tmp_path / "no.jpg"])
    assert levels == images.Levels(0, 16383, 3)  # 0, 3, 6 of nine; the lost one is not counted
