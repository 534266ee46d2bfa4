"""Weights & Biases as a view: offline without key or network, and never able to stop a run.

In a SLURM job it is offline by default, because compute nodes seldom have a network and a killed
job would leave half a run on the server; `python -m segsweep sync` sends finished runs later.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segsweep.base.config import plain
from segsweep.run.logger.base import Logger, View

if TYPE_CHECKING:
    from segsweep.run.identity import Run


@dataclass
class Wandb(Logger):
    """`logger=wandb`: one wandb run per run, under the run's id, its files beside the run's."""

    project: str = "segsweep"
    entity: str | None = None
    group: str | None = None
    offline: bool = False  # true: do not even look for a network

    def mode(self) -> str:
        """Return online or offline: what WANDB_MODE says, else offline in jobs and without key."""
        away = self.offline or "SLURM_JOB_ID" in os.environ
        default = "offline" if away or obstacle() else "online"
        return os.environ.get("WANDB_MODE") or default

    def open(self, run: Run) -> View:
        """Start wandb; where that fails, say so once and go on without."""
        try:
            return WandbView(self, run, self.mode())
        except Exception as error:
            print(f"logger=wandb: {type(error).__name__}: {error}; going on without")
            return View()


def start(
    settings: Wandb, *, id: str, name: str, config: dict[str, Any], directory: Path, mode: str
) -> Any:
    """Start a wandb run, or go on with the one that has this id."""
    import wandb

    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        name=name,
        id=id,
        resume="allow",
        dir=directory,
        config=config,
        mode=mode,  # pyright: ignore[reportArgumentType]
        settings=wandb.Settings(silent=True, init_timeout=20),
    )


class WandbView(View):
    """An open wandb run."""

    def __init__(self, settings: Wandb, run: Run, mode: str) -> None:
        about = {"id": run.id, "name": run.name, "config": plain(run.config)}
        self.run = start(settings, **about, directory=run.directory, mode=mode)

    def log(self, line: dict[str, Any]) -> None:
        """Send one line."""
        values = {key: value for key, value in line.items() if key not in ("step", "time")}
        try:
            self.run.log(values, step=line["step"])
        except Exception as error:
            print(f"logger=wandb: {error}")

    def close(self) -> None:
        """Finish, so that the next run of this process gets a wandb run of its own."""
        try:
            self.run.finish()
        except Exception as error:
            print(f"logger=wandb: {error}")


def obstacle(seconds: float = 2.0) -> str | None:
    """Return what forbids to go online: no key, no server that answers; wandb would wait 100 s."""
    import wandb

    base = urlsplit(wandb.setup().settings.base_url)
    host = base.hostname or ""
    if not (os.environ.get("WANDB_API_KEY") or _saved_key(host)):
        return f"there is no key for {host}; type `wandb login` or set WANDB_API_KEY"
    port = base.port or (80 if base.scheme == "http" else 443)
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return None
    except OSError as error:
        return f"{host}:{port} does not answer ({error}); WANDB_BASE_URL names another server"


def _saved_key(host: str) -> bool:
    import netrc

    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
