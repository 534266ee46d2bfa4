"""Models of huggingface.co: a folder of two files, in the cache of huggingface_hub (HF_HOME).

`hf://facebook/mask2former-swin-small-coco-instance@main` names one, and its revision: a branch,
or better the hash of a commit. Nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path

from segsweep.base.errors import UserError

HUB = "hf://"
CONFIG = "config.json"
FILES = ("model.safetensors", CONFIG)  # of a model; nothing else is looked at


def named(place: str) -> tuple[str, str]:
    """Return name and revision of a model. Raises UserError where the address says no revision."""
    name, _, revision = place.removeprefix(HUB).partition("@")
    if not (revision and name.count("/") == 1 and all(name.split("/"))):
        raise UserError(
            f"model.weights={place}: must be {HUB}OWNER/NAME@REVISION, a commit of the model or a "
            f"branch such as main: {HUB}facebook/mask2former-swin-small-coco-instance@main"
        )
    return name, revision


def cached(place: str) -> Path | None:
    """Return the folder of a model in the cache of huggingface_hub, None where it lacks a file."""
    from huggingface_hub.constants import HF_HUB_CACHE  # the package itself takes a second

    name, revision = named(place)
    held = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    branch = held / "refs" / revision
    commit = branch.read_text(encoding="utf-8").strip() if branch.is_file() else revision
    folder = held / "snapshots" / commit
    return folder if all((folder / file).is_file() for file in FILES) else None


def fetch(place: str) -> Path:
    """Fetch the files of a model into the cache of huggingface_hub, and return their folder.

    Raises UserError when they cannot be had.
    """
    from huggingface_hub import snapshot_download

    name, revision = named(place)
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*FILES]))
    except Exception as error:  # of the network, the server, the disk: a library's own, unlisted
        reason = str(error).strip().split("\n")[0]
        said = f"model.weights={place}: cannot be fetched ({reason}). {cure(place)}"
        raise UserError(said) from error
    if missing := [file for file in FILES if not (folder / file).is_file()]:
        raise UserError(f"model.weights={place}: has no {missing[0]}; choose another model")
    return folder


def cure(place: str) -> str:
    """Say how a model comes to a machine without a network."""
    name, revision = named(place)
    return (
        f"Where there is a network: hf download {name} {' '.join(FILES)} --revision {revision} "
        f"--local-dir {name.rpartition('/')[2]}; then name the folder, model.weights=FOLDER, or "
        "put it into one that SEGSWEEP_WEIGHTS names; or copy the cache, HF_HOME"
    )
