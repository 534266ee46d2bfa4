"""Weights & Biases as a view: offline without key or network, and never able to stop a run."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segsweep.config import plain
from segsweep.logger.base import Logger, View

if TYPE_CHECKING:
    from segsweep.sweep.run import Run


@dataclass
class Wandb(Logger):
    """`logger=wandb`: one wandb run per run, under the run's id, its files beside the run's."""

    project: str = "segsweep"
    entity: str | None = None
    group: str | None = None
    offline: bool = False  # true: do not even look for a network

    def open(self, run: Run) -> View:
        """Start wandb; where that fails, say so once and go on without."""
        mode = "offline" if self.offline or not reachable() else "online"
        try:
            return WandbView(self, run, mode)
        except Exception as error:
            print(f"logger=wandb: {type(error).__name__}: {error}; going on without")
            return View()


class WandbView(View):
    """An open wandb run."""

    def __init__(self, settings: Wandb, run: Run, mode: str) -> None:
        import wandb

        self.run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            name=run.name,
            id=run.id,
            resume="allow",
            dir=run.directory,
            config=plain(run.config),
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(silent=True, init_timeout=20),
        )

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


def reachable(seconds: float = 2.0) -> bool:
    """Say whether there is a key and a server that answers; an online start without waits 100 s."""
    import wandb

    base = urlsplit(wandb.Settings().base_url)
    if not (os.environ.get("WANDB_API_KEY") or _saved_key(base.hostname or "")):
        return False
    try:
        port = base.port or (80 if base.scheme == "http" else 443)
        with socket.create_connection((base.hostname or "", port), timeout=seconds):
            return True
    except OSError:
        return False


def _saved_key(host: str) -> bool:
    import netrc

    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
