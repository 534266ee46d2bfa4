"""Videos as pictures, and drawings as a video; PyAV, which only these need, is used here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data.inputs import NO_VIDEO

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

RATE = Fraction(25)  # of a file that tells none
MICRO = 1_000_000  # in a second; FFmpeg counts durations so


@dataclass(frozen=True)
class VideoFrame:
    """A picture of a video: its place among all of them from 0 on, its time, its pixels."""

    number: int
    seconds: float
    pixels: np.ndarray  # (H, W, 3) uint8


def frames(path: Path, every: int = 1) -> Iterator[VideoFrame]:
    """Yield each `every`-th picture of a video, upright.

    Raises UserError for a file that is no video, or ends in the middle.
    """
    with _opened(path) as (file, stream):
        stream.thread_type = "AUTO"
        for number, frame in enumerate(file.decode(stream)):
            if number % every == 0:
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                yield VideoFrame(number, frame.time or 0.0, np.ascontiguousarray(pixels))


def extent(path: Path) -> tuple[int, Fraction]:
    """Return how many pictures a video has by its head, and how many in a second.

    Raises UserError for a file that is no video.
    """
    with _opened(path) as (file, stream):
        rate = stream.average_rate or RATE
        return stream.frames or round((file.duration or 0) / MICRO * rate), rate


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        import av
    except ImportError as error:
        raise UserError(f"{path}: {NO_VIDEO}") from error
    try:
        with av.open(str(path)) as file:
            yield file, file.streams.video[0]
    except (av.FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it has no pictures"
        raise UserError(f"{path}: cannot be read as a video to its end ({reason})") from error


@contextmanager
def writing(path: Path, rate: Fraction) -> Iterator[Callable[[Image.Image], None]]:
    """Open an MP4 file (H.264, which browsers show); give what adds a picture to it.

    All are as large as the first one, but for a last odd row and column.
    """
    import av

    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("h264", rate=rate)
        stream.pix_fmt = "yuv420p"

        def write(picture: Image.Image) -> None:
            if not stream.codec_context.is_open:
                stream.width, stream.height = (side - side % 2 for side in picture.size)
            frame = av.VideoFrame.from_image(picture.crop((0, 0, stream.width, stream.height)))
            file.mux(stream.encode(frame))

        yield write
        file.mux(stream.encode())
