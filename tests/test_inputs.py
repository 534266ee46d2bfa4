"""What `images=` names, the pictures of addresses, and videos: all that needs no model."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import av
import numpy as np
import pytest
from PIL import Image

from segsweep.base.errors import UserError
from segsweep.data import inputs, video
from segsweep.data.base import DataSet
from segsweep.data.folder import Folder
from segsweep.data.inputs import find, title
from segsweep.verbs.predict import listed

NAMES = ("a.png", "b.jpg", "c[1].png", "ü #=(.png", "sub/a.png", "sub/deep/d.png", ".hidden.png")


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `in` with pictures of one pixel, in the folder where one is."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1, 1)).save(path)
    return tmp_path


@pytest.fixture
def server(there: Path) -> Iterator[str]:
    """A server of that folder; it also cuts, refuses and says other things."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=there)) as http:
        Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if "cut" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        elif "photo" in self.path:
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.end_headers()
            self.wfile.write(Path("in/b.jpg").read_bytes())
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


def names(*places: str, out: str = "out") -> list[str]:
    return [file.name.as_posix() for file in find(places, Path(out)).files]


def test_folders_files_and_patterns_are_files_by_their_names(there: Path) -> None:
    shown = ["a.png", "b.jpg", "c[1].png", "sub/a.png", "sub/deep/d.png", "ü #=(.png"]
    assert names("in") == names(str(there / "in")) == shown
    assert names("in/a.png") == ["a.png"]
    assert names("in/*.png") == ["a.png", "c[1].png", "ü #=(.png"]
    assert names("in/**/*.png") == ["a.png", "c[1].png", "sub/a.png", "sub/deep/d.png", "ü #=(.png"]
    assert names("in/c[1].png") == ["c[1].png"]  # is a file before it is a pattern
    assert names("in/sub/a.png", "in/b.jpg", "./in/b.jpg") == ["sub/a.png", "b.jpg"]
    assert names("in/s*") == ["sub/a.png", "sub/deep/d.png"]
    assert names("in", out="in/sub") == ["a.png", "b.jpg", "c[1].png", "ü #=(.png"]
    assert names("in/**/*.png", out="in/sub") == ["a.png", "c[1].png", "ü #=(.png"]
    assert [title(["in"]), title(["in/a.png"]), title(["in/*.png"])] == ["in", "a.png", "in"]
    assert title(["in/a.png", "in/sub/a.png"]) == title(["in/"]) == "in"
    assert [listed("[a.png,b.png]"), listed("a,b.png")] == [["a.png", "b.png"], ["a,b.png"]]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "images=nowhere: there is no such folder or file"),
        ("in/*.tif", r"images=in/\*\.tif: no file is named so"),
        ("empty", "images=empty: the folder has no files"),
        ("in", "out=.*: must be another folder than images="),
    ],
)
def test_places_without_pictures_are_named(there: Path, place: str, said: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=said):
        find([place], Path("in"))


def test_pictures_are_fetched_from_addresses(server: str, there: Path) -> None:
    places = [f"{server}/in/a.png", f"{server}/in/sub/a.png?size=1", f"{server}/photo/", "in/b.jpg"]
    found = find(places, Path("out"))
    assert [file.name.as_posix() for file in found.files] == [
        "a.png",
        "1-a.png",
        "photo.jpg",
        "b.jpg",
    ]
    for file in found.files:
        with Image.open(file.path) as picture:
            assert picture.size == (1, 1)
    assert found.files[0].path == Path("out/downloads/a.png")
    assert title(places[1:2]) == "a.png"
    assert inputs.is_input(places[0])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("in/none.png", "the server says 404 File not found"),
        ("cut.png", r"cannot be fetched \(cut after 10 bytes\); fetch it where"),
        ("in/", "is a web page; give the address of its picture"),
        ("in/a.png", "is larger than 10 B"),
    ],
)
def test_addresses_that_give_no_picture_are_named(
    server: str, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.setattr(inputs, "LARGEST", 10 if "a.png" in path else 1000)
    with pytest.raises(UserError, match=f"images={server}/{path}: {said}"):
        find([f"{server}/{path}"], Path("out"))
    assert not Path("out").exists()


def test_without_a_network_the_cure_is_named(there: Path) -> None:
    with socket.socket() as unheard:  # bound, but nobody listens
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/a.png"
        with pytest.raises(UserError, match=r"cannot be fetched \(.*refused\); fetch it where"):
            find([url], Path("out"))


def clip(path: Path, rotation: int = 0) -> Path:
    """A video of 12 pictures in a second: red above, below brighter each time."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("h264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(rotation)
        for k in range(12):
            pixels = np.full((64, 96, 3), 20 * k, np.uint8)
            pixels[:32] = 220, 30, 30
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(stream.encode())
    return path


def test_a_video_gives_each_so_many_th_picture_upright(tmp_path: Path) -> None:
    frames = [*video.frames(clip(tmp_path / "a.mp4"), every=5)]
    assert [(f.number, f.seconds) for f in frames] == [(0, 0), (5, 5 / 12), (10, 10 / 12)]
    assert [round(f.pixels[-5, 5].mean(), -1) for f in frames] == [0, 100, 200]
    assert video.extent(tmp_path / "a.mp4") == (12, 12)
    turned = next(video.frames(clip(tmp_path / "turned.mp4", 90))).pixels
    assert turned.shape == (96, 64, 3)
    assert turned[50, :25, 0].min() > 180 > turned[50, -25:, 0].max()  # what was above is left


def test_drawings_become_a_video_of_their_size(tmp_path: Path) -> None:
    with video.writing(tmp_path / "a.mp4", Fraction(30, 7)) as write:
        for k in range(3):
            write(Image.new("RGB", (65, 41), (90 * k, 0, 0)))
    frames = [*video.frames(tmp_path / "a.mp4")]
    assert [f.pixels.shape for f in frames] == [(40, 64, 3)] * 3  # H.264 knows even sides only
    assert video.extent(tmp_path / "a.mp4") == (3, Fraction(30, 7))


def folder(data: DataSet, path: Path, **options: int) -> Folder:
    return Folder(find([str(path)], path / "out").files, data, 4, **options)


def test_pictures_and_videos_of_a_folder_are_batches(there: Path) -> None:
    from segsweep.base.config import compose

    data = compose([]).data
    clip(there / "in/clip.mp4")
    whole = (there / "in/clip.mp4").read_bytes()
    (there / "in/cut.mp4").write_bytes(whole[: len(whole) // 3])
    seen = folder(data, there / "in", every=5)
    sizes = [len(batch.image_ids) for batch in seen]
    assert (sizes, len(seen)) == ([4, 4, 1], 3)
    assert list(seen.skipped) == [there / "in/cut.mp4"]
    ((_, reason),) = seen.skipped.items()
    assert reason.startswith("cannot be read as a video to its end")
    assert [(i, shot.name) for i, shot in seen.shots.items()] == [(9, "ü #=(.png")]


def test_video_without_its_package_names_the_cure(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(there / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"needs PyAV.*pip install 'segsweep\[video\]'"):
        find(["clip.mp4"], Path("out"))
    with pytest.raises(UserError, match=r"clip\.mp4: video needs PyAV"):
        next(video.frames(there / "clip.mp4"))
    assert names("in/a.png", "clip.mp4") == ["in/a.png", "clip.mp4"]  # others need it not


def test_places_are_looked_at_without_torch(there: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from segsweep.data.inputs import find\n"
        "find(['in'], Path('out')); print({'torch', 'av', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
