"""Where base weights lie: a path, a packaged file, a folder of one's own, the cache, or a URL.

They are a file, or a folder of two as transformers writes it (`hub`). Files are known by what they
hold, an address by itself. Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segsweep.base.content import cache_dir, content_of
from segsweep.base.errors import UserError
from segsweep.model import hub
from segsweep.model.download import complete, fetch, place, vouched

PACKAGED = "segsweep://"
KNOWN = re.compile("#(sha256|classes|knows|larger|megabytes|licence)=")
# the beginning of the hash in the name of a file, as torchvision has it; digits alone are a date
NAMED = re.compile(r"-(?=\d*[a-f])([0-9a-f]{8,64})\.\w+$")
UNVERIFIED = "unverified"
PICKLE = b"\x80"  # as files of torch began before they were zip files


@dataclass(frozen=True)
class BaseWeights:
    """What `model.weights` says: a place, and behind it `#sha256=...&classes=coco`.

    `sha256` is the hash that the file must have. `classes` is the file of `segsweep/model/classes`
    with the names of its classes, where it holds none. `knows` is the word of the only data that it
    was trained on, `larger` that of the model which its own is a miniature of, `megabytes` about
    what it takes to fetch it, `licence` what its publisher says, as in lists of SPDX.
    """

    place: str
    sha256: str = ""
    classes: str = ""
    knows: str = ""
    larger: str = ""
    megabytes: str = ""
    licence: str = ""

    @classmethod
    def of(cls, text: str) -> BaseWeights:
        """Read it. Raises UserError for what is no hash, and for an address that holds secrets."""
        place, _, given = text.rpartition("#") if KNOWN.search(text) else (text, "", "")
        pairs = [part.partition("=") for part in given.split("&") if part]
        facts = {key: value for key, _, value in pairs}
        names = [f.name for f in fields(cls)[1:]]
        source = cls(place, **{name: facts.pop(name, "") for name in names})
        if facts or not re.fullmatch("([0-9a-f]{64})?", source.sha256):
            raise UserError(
                f"model.weights: '#{given}' must be #sha256= and 64 digits of 0-9 a-f, or "
                "#classes= and a list of names"
            )
        if source.classes:
            class_names(source.classes)
        if source.remote:
            source.refuse_secrets()
        return source

    def refuse_secrets(self) -> None:
        """Refuse a user, a password or a query: they would stand in configs, records and logs."""
        if self.on_hub:
            hub.named(self.place)
        try:
            parts = urlsplit(self.place)
        except ValueError as error:
            raise UserError(f"model.weights: the address is none ({error})") from error
        if parts.query or "?" in self.place or "@" in parts.netloc:
            bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
            raise UserError(
                f"model.weights: the address {bare} is given with a user, a password or a query "
                "(?...), which may be secret and would stand in configs, records and logs; leave "
                "them out, or fetch the file yourself and name it: model.weights=PATH"
            )
        if self.name in ("", ".", "..") or "#" in self.name:
            raise UserError(f"model.weights={self.place}: names no file")

    @property
    def remote(self) -> bool:
        """Whether it is an address."""
        return self.place.startswith(("http://", "https://", hub.HUB))

    @property
    def on_hub(self) -> bool:
        """Whether it is the address of a model of huggingface.co."""
        return self.place.startswith(hub.HUB)

    @property
    def name(self) -> str:
        """The name of the file, or of a model of huggingface.co."""
        name = self.place.rsplit("/", 1)[-1]
        return name.partition("@")[0] if self.on_hub else name

    @property
    def wanted(self) -> str:
        """The hash that the file must have, or its beginning; empty if nobody says one."""
        named = NAMED.search(self.name) if self.remote else None
        return self.sha256 or (named[1] if named else "")

    def cost(self) -> str:
        """Say what it takes to have the file, "" where it is here."""
        if not self.remote or self.here:
            return ""
        size = f"about {self.megabytes} MB" if self.megabytes else "its weights"
        host = "huggingface.co" if self.on_hub else urlsplit(self.place).hostname
        return f"fetches {size} from {host}"

    @property
    def here(self) -> Path | None:
        """The first place on this machine where they lie, None where there is none."""
        return next((path for path in self.candidates() if path.is_file() or is_folder(path)), None)

    def candidates(self) -> list[Path]:
        """Return the places where the file may lie on this machine, the first ones first."""
        folder = os.environ.get("SEGSWEEP_WEIGHTS")
        own = [Path(folder) / self.name] if folder else []
        if self.place.startswith(PACKAGED):
            return [*own, Path(__file__).parents[1] / "weights" / self.name]
        if self.on_hub:
            return [*own, *filter(None, [hub.cached(self.place)])]
        if self.remote:
            return [*own, place(self.place, cache_dir())]
        return [Path(self.place).expanduser(), *own]


def is_folder(path: Path) -> bool:
    """Say whether weights are a folder as transformers writes it."""
    return all((path / file).is_file() for file in hub.FILES)


def files_of(weights: Path) -> list[Path]:
    """Return what weights consist of: the file, or those of the folder, that of tensors first."""
    return [weights / file for file in hub.FILES] if weights.is_dir() else [weights]


def content(weights: Path) -> str:
    """Return the SHA-256 of the files that weights consist of, joined."""
    return "+".join(map(content_of, files_of(weights)))


def locate(text: str, download: bool = True) -> Path:
    """Return the file or folder of a path, a URL or a packaged name (segsweep://file).

    A path that exists is taken as it is. Else the folder that SEGSWEEP_WEIGHTS names is searched
    for the file name, then the cache (~/.cache/segsweep), then the URL is fetched into the cache.
    What lies in the cache and is cut short, or has another hash, is fetched again.

    Raises UserError when the file cannot be had, has another hash, or is not here and must not be
    fetched.
    """
    source = BaseWeights.of(text)
    candidates, file = source.candidates(), source.here
    if source.on_hub:
        file = file or (hub.fetch(source.place) if download else None)
    elif source.remote and download and file in (None, cached := candidates[-1]):
        if not complete(cached, source.place, source.wanted):
            fetch(source.place, cached, source.wanted)
        file = cached
    if file is None:
        looked = ", ".join(map(str, candidates))
        if source.on_hub:
            raise UserError(f"model.weights={source.place}: is not here. {hub.cure(source.place)}")
        if source.remote:
            size = f" (about {source.megabytes} MB)" if source.megabytes else ""
            raise UserError(
                f"model.weights={source.place}: is not here{size}. A run fetches it, `plan "
                f"--fetch` does at once; or put it at {' or '.join(map(str, candidates))}"
            )
        torn = f"a folder that lacks {' or '.join(hub.FILES)}"
        what = torn if candidates[0].is_dir() else "no such file"
        raise UserError(f"model.weights={source.place}: {what}; looked for {looked}")
    if source.wanted and not content(file).startswith(source.wanted):
        raise UserError(
            f"{file}: sha256 is {content(file)}, expected {source.wanted}; delete the file and "
            "fetch it again, or correct the hash in model.weights"
        )
    return file


def recognised(file: Path) -> Path:
    """Return weights whose file begins and ends as one; its tensors are not looked at.

    Raises UserError for what is cut short, is no checkpoint, or could run code when it is read.
    """
    if file.suffix == ".pkl":
        raise UserError(
            f"{file}: a .pkl file can run any code when it is read. If you trust it, convert it "
            "once: d = pickle.load(open(old, 'rb'), encoding='latin1'); torch.save({'model': {k: "
            "torch.as_tensor(v) for k, v in d['model'].items()}}, new)"
        )
    if file.is_dir():
        return recognised(files_of(file)[0]).parent
    with file.open("rb") as stream:
        head = stream.read(64)
    whole = head[:1] == PICKLE or zipfile.is_zipfile(file)
    if file.suffix == ".safetensors":
        size = int.from_bytes(head[:8], "little")
        whole = head[8:9] == b"{" and 8 + size <= file.stat().st_size
    if not whole:
        begins = f"it begins with {head[:24]!r}" if head else "it is empty"
        raise UserError(f"{file}: damaged, cut short or no checkpoint ({begins}); fetch it again")
    return file


def arrive(text: str | None) -> None:
    """Fetch base weights that an address names and that are not here; raises as `locate`."""
    if text is not None:
        locate(text)


def at_hand(text: str | None) -> None:
    """Refuse base weights that are not here, or no weights; what an address names is not fetched.

    Raises UserError.
    """
    if text is not None and not BaseWeights.of(text).remote:
        recognised(locate(text))


def identity(text: str | None) -> str | None:
    """Return what of base weights is part of a run: content of a file, or an address by itself.

    A hash that is given stands for the content. Raises UserError for a file that is not here.
    """
    if text is None:
        return None
    source = BaseWeights.of(text)
    held = source.sha256 or (source.place if source.remote else content(locate(text)))
    return f"{held}#classes={source.classes}" if source.classes else held


def provenance(text: str, file: Path) -> dict[str, Any]:
    """Return what a record says of a file: source, hash, and who vouches for the hash."""
    source = BaseWeights.of(text)
    by_name = "file name" if source.wanted else None
    by_server = vouched(file, source.place) if source.remote else None
    verified = "model.weights" if source.sha256 else by_name or by_server or UNVERIFIED
    return {"source": source.place, "sha256": content(file), "verified": verified}


def class_names(word: str) -> list[str]:
    """Return the names of a list of classes. Raises UserError for an unknown list."""
    folder = Path(__file__).parent / "classes"
    lists = {file.stem: file for file in folder.glob("*.txt")}
    if word not in lists:
        known = ", ".join(sorted(lists))
        raise UserError(f"model.weights: #classes={word}: there is no such list (choices: {known})")
    return lists[word].read_text(encoding="utf-8").splitlines()
