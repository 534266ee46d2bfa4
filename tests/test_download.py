"""Base weights from a server that cuts, resumes, lies, has secrets: right and whole, or refused."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from segsweep.base.config import compose
from segsweep.base.content import cache_dir
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.model.download import LINKED
from segsweep.model.files import identity, locate, provenance

CONTENT = bytes(range(250)) * 800  # 200,000 bytes
HASH = hashlib.sha256(CONTENT).hexdigest()
OTHER = bytes(len(CONTENT))


@dataclass
class Server:
    """What a server has and does, and what it was asked for."""

    content: bytes = CONTENT
    pieces: list[int] = field(default_factory=list)  # bytes after which an answer is cut
    ranges: bool = True
    more: int = 0  # bytes by which it claims too many
    linked: str = ""  # hash told by the redirect from /linked/
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(f"{request.command} {request.headers.get('Range', '')}".strip())
        if request.path.startswith("/linked/"):
            request.send_response(302)
            request.send_header("Location", f"/{request.path.rpartition('/')[2]}")
            request.send_header(LINKED, f'"{self.linked}"')
            request.end_headers()
            return
        tag = f'"{hashlib.sha256(self.content).hexdigest()[:8]}"'
        start = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        goes_on = start and self.ranges and request.headers.get("If-Range") == tag
        begin, size = int(start[1]) if goes_on and start else 0, len(self.content)
        if begin >= size:
            request.send_error(416)
            return
        request.send_response(206 if goes_on else 200)
        if goes_on:
            request.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size + self.more}")
        request.send_header("Content-Length", str(size - begin + self.more))
        request.send_header("ETag", tag)
        request.end_headers()
        if request.command == "GET":
            cut = self.pieces.pop(0) if self.pieces else size
            request.wfile.write(self.content[begin : begin + cut])
        request.close_connection = True


@contextmanager
def serving(**what) -> Iterator[Server]:
    server = Server(**what)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.answer(self)

        def do_HEAD(self):
            server.answer(self)

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        server.url = f"http://127.0.0.1:{http.server_address[1]}/base.pth"
        yield server
        http.shutdown()


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGSWEEP_WEIGHTS", raising=False)


def refusal(text: str) -> str:
    with pytest.raises(UserError) as error:
        locate(text)
    return str(error.value)


def test_a_cut_download_goes_on_until_all_is_there():
    with serving(pieces=[70_000, 50_000]) as server:
        assert locate(server.url).read_bytes() == CONTENT
        assert server.asked == ["GET", "GET bytes=70000-", "GET bytes=120000-"]
        locate(server.url)
        assert len(server.asked) == 3  # it is kept
    assert not list(cache_dir().glob("*.part*"))


def test_what_never_arrives_is_never_taken_for_whole():
    with serving(pieces=[70_000, 0]) as server:
        assert "cut after 70,000 of 200,000 bytes; the same command goes on" in refusal(server.url)
        assert not (cache_dir() / "base.pth").exists()
        assert locate(server.url).read_bytes() == CONTENT  # from where it was cut
        assert server.asked[-1] == "GET bytes=70000-"


@pytest.mark.parametrize("ranges", [True, False])
def test_another_file_at_the_same_address_is_not_glued_to_the_first(ranges):
    with serving(pieces=[70_000, 0], ranges=ranges) as server:
        refusal(server.url)
        server.content = OTHER
        assert locate(server.url).read_bytes() == OTHER


def test_a_part_of_another_address_is_not_gone_on_with():
    with serving(content=OTHER, pieces=[70_000, 0]) as first, serving() as second:
        refusal(first.url)
        assert locate(second.url).read_bytes() == CONTENT
        assert second.asked == ["GET"]


def test_a_process_killed_before_the_last_rename_leaves_all_that_is_needed():
    with serving(pieces=[70_000, 0]) as server:
        refusal(server.url)
        part = cache_dir() / "base.pth.part"
        part.write_bytes(CONTENT)
        assert locate(server.url).read_bytes() == CONTENT
        assert server.asked == ["GET", "GET bytes=70000-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_claims_too_many_bytes_is_refused(ranges):
    with serving(more=10, ranges=ranges) as server:
        assert re.search("416|cut after 200,000 of 200,010 bytes", refusal(server.url))
        server.more = 0
        assert locate(server.url).read_bytes() == CONTENT


def test_a_short_file_of_an_earlier_version_is_fetched_again():
    cached = cache_dir() / "base.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT[:70_000])
    with serving() as server:
        assert locate(server.url, download=False) == cached  # nobody was to be asked
        assert locate(server.url).read_bytes() == CONTENT
    cached.write_bytes(CONTENT[:70_000])
    with serving() as server:  # of another address of this name: kept beside it
        beside = locate(server.url)
    assert (beside != cached, beside.read_bytes()) == (True, CONTENT)


def test_a_file_of_a_wrong_hash_is_fetched_again_or_refused_and_deleted():
    with serving(content=OTHER) as server:
        locate(server.url)
        message = refusal(f"{server.url}#sha256={HASH}")
        assert f"expected {HASH}" in message
        assert hashlib.sha256(OTHER).hexdigest() in message
        assert not list(cache_dir().glob("*.part"))
        server.content = CONTENT
        assert locate(f"{server.url}#sha256={HASH}").read_bytes() == CONTENT
        damaged = cache_dir() / "base.pth"
        damaged.write_bytes(OTHER)
        assert locate(f"{server.url}#sha256={HASH}").read_bytes() == CONTENT


def test_a_file_of_the_users_own_is_never_deleted(tmp_path, monkeypatch):
    (tmp_path / "base.pth").write_bytes(OTHER)
    monkeypatch.setenv("SEGSWEEP_WEIGHTS", str(tmp_path))
    with serving() as server:
        assert "sha256 is" in refusal(f"{server.url}#sha256={HASH}")
        assert server.asked == []
    assert (tmp_path / "base.pth").read_bytes() == OTHER


def test_records_say_who_vouches_for_a_hash(tmp_path):
    known = {"sha256": HASH}
    with serving(linked=HASH) as server:
        base = server.url.removesuffix("base.pth")
        for name, verified in (
            ("base.pth", "unverified"),
            (f"net-{HASH[:8]}.pth", "file name"),
            ("linked/big.pth", "publisher"),
            (f"x.pth#sha256={HASH}", "model.weights"),
        ):
            text = base + name
            facts = provenance(text, locate(text))
            assert facts == known | {"source": text.partition("#")[0], "verified": verified}
        server.linked = "0" * 64
        assert f"expected {'0' * 64}" in refusal(f"{base}linked/other.pth")
        assert f"expected {'0' * 8}" not in refusal(f"{base}net-abcdef01.pth")
        assert locate(f"{base}net-20240101.pth").read_bytes() == CONTENT  # a date is no hash


@pytest.mark.parametrize(
    "address",
    ["http://{}/base.pth?token=S3CRET", "http://me:S3CRET@{}/base.pth",
     "http://{}/base.pth?X-Amz-Signature=S3CRET#sha256=" + HASH, "http://S3CRET@{}/base.pth"],
)  # fmt: skip
def test_secrets_in_an_address_are_refused_and_not_told(address):
    with serving() as server:
        text = address.format(server.url.split("/")[2])
        with pytest.raises(UserError) as error:
            compose(["data=digits", f"model.weights='{text}'"])
        assert server.asked == []
    assert "leave them out" in explain(error.value)
    assert "S3CRET" not in explain(error.value)
    assert not cache_dir().exists()


def test_a_file_is_what_it_holds_and_an_address_itself(tmp_path, monkeypatch):
    a, b = tmp_path / "a.pth", tmp_path / "elsewhere" / "b.pth"
    b.parent.mkdir()
    a.write_bytes(CONTENT)
    b.write_bytes(CONTENT)
    url = "https://example.org/a.pth"
    assert identity(str(a)) == identity(str(b)) == identity(f"{url}#sha256={HASH}") == HASH
    assert identity(url) == url
    assert identity(f"{url}#classes=coco") == f"{url}#classes=coco"
    assert identity(None) is None
    a.write_bytes(OTHER)
    assert identity(str(a)) == hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(UserError, match="the address is none"):
        identity("http://[::1/a.pth")
    for wrong in ("#sha256=12", f"#sha256={HASH}&more=1", "#classes=none"):
        with pytest.raises(UserError, match=re.escape(wrong[1:8])):
            identity(f"{a}{wrong}")


def test_a_note_that_is_damaged_costs_a_question_and_no_run():
    with serving() as server:
        file = locate(server.url)
        note = file.with_name(f"{file.name}.json")
        for text in ("{", "[]", json.dumps({"url": server.url})):
            note.write_text(text)
            assert locate(server.url) == file
            assert json.loads(note.read_text())["size"] == len(CONTENT)
