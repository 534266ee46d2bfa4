"""A file from an address: whole or not at all, going on where an earlier attempt was cut.

<cache>/<name>         the file
<cache>/<name>.part    what has arrived of it
<cache>/<name>.json    its address, size and hash, and who vouches for the hash
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from segsweep.base.content import content_of
from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import read_json, sha256, write_json
from segsweep.base.owner import Busy, owned

TIMEOUT, ASKING = 60, 5  # seconds without an answer: of a download, of a question
POLL = 0.5  # seconds between two looks at somebody else's download
CHUNK = 1 << 20  # bytes
RANGE_REFUSED = 416  # status of HTTP
LINKED = "X-Linked-Etag"  # of huggingface.co: the SHA-256 of the file that it sends on to


class Cut(Exception):
    """A connection ended before all had arrived."""


def place(url: str, cache: Path) -> Path:
    """Return where the file of an address is kept: under its name, unless another has that."""
    file = cache / url.rsplit("/", 1)[-1]
    if _note(file).get("url", url) == url:
        return file
    return file.with_name(f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{file.name}")


def complete(file: Path, url: str, wanted: str = "") -> bool:
    """Say whether the file of an address is there with all its bytes, and the hash it must have.

    Of a file without a note, as earlier versions left it, the server is asked for the length; where
    it does not answer the file is taken as it is.
    """
    if not file.is_file() or (wanted and not content_of(file).startswith(wanted)):
        return False
    size, note = file.stat().st_size, _note(file)
    if "sha256" not in note and (length := _length(url)) is not None:
        note = {"url": url, "size": length, "sha256": content_of(file), "verified": None}
        if length == size:
            write_json(_note_of(file), note)
    return note.get("size", size) == size


def vouched(file: Path, url: str) -> str | None:
    """Return who vouched for the hash of a file when it was fetched, None if nobody did."""
    note = _note(file)
    return note.get("verified") if note.get("url") == url else None


def fetch(url: str, target: Path, wanted: str = "") -> None:
    """Fetch a file; what `target` was before stays until the new one is there and right.

    Of several processes that want it, one fetches and the others wait. `wanted` is the SHA-256 that
    it must have, or its beginning.

    Raises UserError when it cannot be had, is cut short, or has another hash.
    """
    lock = target.parent / ".fetching" / target.name
    try:
        while True:
            try:
                with owned(lock):
                    if not complete(target, url, wanted):  # by nobody else meanwhile
                        _fetch(url, target, wanted)
                    return
            except Busy:
                time.sleep(POLL)
    except (OSError, HTTPException, Cut) as error:
        raise UserError(
            f"model.weights: {url} cannot be fetched ({error}). Download it where there is a "
            f"network and put it at {target}, or into a folder that SEGSWEEP_WEIGHTS names"
        ) from error


def _fetch(url: str, target: Path, wanted: str) -> None:
    part = target.with_name(f"{target.name}.part")
    print(f"fetching {url} to {target}", flush=True)
    published = _arrive(url, part)
    size, digest = _size(part), sha256(part)
    for expected in (wanted, published):
        if not digest.startswith(expected):
            part.unlink()
            raise UserError(
                f"model.weights: what {url} sends has sha256 {digest}, expected {expected}; it was "
                "deleted. Correct the hash in model.weights, or ask the publisher"
            )
    part.replace(target)
    _note_of(part).unlink(missing_ok=True)
    note = {"url": url, "size": size, "sha256": digest}
    write_json(_note_of(target), note | {"verified": "publisher" if published else None})


def _arrive(url: str, part: Path) -> str:
    """Let all bytes of an address arrive, in as many pieces as it takes while each brings some.

    Returns the SHA-256 that the publisher sends along, empty if it sends none.
    """
    if _note(part).get("url") != url:  # of another address
        part.unlink(missing_ok=True)
    while (total := _note(part).get("total")) is None or _size(part) != total:
        before = _size(part)
        try:
            _piece(url, part)
        except urllib.error.HTTPError as error:
            if error.code == RANGE_REFUSED:  # it has no more, whatever it claimed
                part.unlink(missing_ok=True)
            raise
        except (OSError, HTTPException):
            if _size(part) <= before:
                raise
            continue
        size, total = _size(part), _note(part).get("total")
        if total is None:  # the server named no length, and ended as it should
            break
        if size > total:
            part.unlink()
            raise Cut(f"{size:,} bytes arrived of {total:,}")
        if size <= before and size < total:
            raise Cut(f"cut after {size:,} of {total:,} bytes; the same command goes on from there")
    return _note(part).get("published", "")


def _piece(url: str, part: Path) -> None:
    """Take what one answer brings, and note what it says of the whole.

    It goes on from what is there if the server says that this is of the same file; else it begins
    anew.
    """
    have, tag = _size(part), _note(part).get("tag")
    range_of = {"Range": f"bytes={have}-", "If-Range": tag} if have and tag else {}
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    with opener.open(urllib.request.Request(url, headers=range_of), timeout=TIMEOUT) as answer:
        told = answer.headers.get("Content-Range", "")
        if answer.status != 206 or not told.startswith(f"bytes {have}-"):
            strong = answer.headers.get("ETag", "W/")
            tag = answer.headers.get("Last-Modified") if strong.startswith("W/") else strong
            note = {"url": url, "tag": tag, "published": redirects.published}
            part.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            write_json(_note_of(part), note | {"total": answer.length})
        with part.open("ab") as out:
            shutil.copyfileobj(answer, out, CHUNK)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the hash that one of them tells."""

    published = ""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Look at the headers on the way."""
        tag = headers.get(LINKED, "").strip('"')
        self.published = tag if re.fullmatch("[0-9a-f]{64}", tag) else self.published
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _length(url: str) -> int | None:
    """Ask for the length of a file, None where there is no answer."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=ASKING) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, HTTPException, TypeError, ValueError):  # no answer, or none with a length
        return None


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _note(file: Path) -> dict[str, Any]:
    """Return the note of a file; one that is damaged says nothing."""
    with suppress(OSError, ValueError, Damaged):
        note = read_json(_note_of(file))
        return note if isinstance(note, dict) else {}
    return {}
