"""Folders of recorded outputs, whatever the program that they come from."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / os.environ.get("SEGSWEEP_GOLDEN", "tests/data/golden")
HEAD = "sem_seg_head."


class Recorded:
    """One folder of golden files with its manifest."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            pytest.skip(f"no golden files at {folder}; name their folder with SEGSWEEP_GOLDEN")
        self.folder = folder
        self.manifest: dict[str, Any] = self.json("manifest")

    def json(self, name: str) -> Any:
        """What a JSON file holds."""
        return json.loads((self.folder / f"{name}.json").read_text())

    @cache  # noqa: B019  (one object per session)
    def arrays(self, name: str) -> dict[str, Tensor]:
        """All tensors of a file; numbers stored in half precision are exact in single."""
        with np.load(self.folder / f"{name}.npz") as file:
            tensors = {key: torch.from_numpy(file[key]) for key in file}
        return {k: t.float() if t.dtype == torch.float16 else t for k, t in tensors.items()}

    def state(self, name: str, prefix: str = "sd/") -> dict[str, Tensor]:
        """The tensors of a file under a prefix, such as its state dict."""
        arrays = self.arrays(name).items()
        return {k.removeprefix(prefix): v for k, v in arrays if k.startswith(prefix)}


def uncompared(recorded: Recorded, known: dict[str, list[str]]) -> dict[str, list[str]]:
    """List the arrays of each file that none of its patterns names; `known` goes by files."""
    files = sorted(path.stem for path in recorded.folder.glob("*.npz"))
    assert files
    left = {}
    for file in files:
        patterns = [p for name, some in known.items() if re.fullmatch(name, file) for p in some]
        pattern = re.compile("|".join(f"({pattern})" for pattern in patterns))
        left[file] = [key for key in recorded.arrays(file) if not pattern.fullmatch(key)]
    return {file: keys for file, keys in left.items() if keys}
