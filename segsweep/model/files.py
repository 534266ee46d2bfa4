"""Where base weights lie: a path, a packaged file, a folder of one's own, the cache, or a URL.

Nothing here imports torch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import sha256

PACKAGED = "segsweep://"
HASH = "#sha256="


def locate(source: str, download: bool = True) -> Path:
    """Return the file of a path, a URL or a packaged name (segsweep://file).

    `#sha256=...` behind it is the hash that the file must have.

    A path that exists is taken as it is. Else the folder that SEGSWEEP_WEIGHTS names is searched
    for the file name, then the cache (~/.cache/segsweep), then the URL is fetched into the cache.

    Raises UserError when the file cannot be had, or is not here and must not be fetched.
    """
    source, _, wanted = source.partition(HASH)
    name = source.rsplit("/", 1)[-1]
    cached = cache_dir() / name
    folder = os.environ.get("SEGSWEEP_WEIGHTS")
    candidates = [Path(folder) / name] if folder else []
    if source.startswith(PACKAGED):
        candidates.append(Path(__file__).parents[1] / "weights" / name)
    elif source.startswith(("http://", "https://")):
        candidates.append(cached)
    else:
        candidates.insert(0, Path(source).expanduser())
    file = next((path for path in candidates if path.is_file()), None)
    if file is None and download and source.startswith(("http://", "https://")):
        file = _download(source, cached)
    if file is None:
        looked = ", ".join(map(str, candidates))
        raise UserError(f"model.weights={source}: no such file; looked for {looked}")
    if wanted and (digest := sha256(file)) != wanted:
        raise UserError(
            f"{file}: sha256 is {digest}, expected {wanted}; delete the file and fetch it again, "
            "or correct the hash in model.weights"
        )
    return file


def cache_dir() -> Path:
    """Return the folder of downloaded weights."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segsweep"


def _download(url: str, target: Path) -> Path:
    """Fetch a URL into a temporary file beside the target, then rename it."""
    print(f"fetching {url} to {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(url, timeout=60) as response:
            shutil.copyfileobj(response, out)
        os.replace(part, target)
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"model.weights: {url} cannot be fetched ({error}). Download it where there is a "
            f"network and put it at {target}, or into a folder that SEGSWEEP_WEIGHTS names"
        ) from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
    return target
