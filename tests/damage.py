"""Results folders as the product makes them, and what may happen to one of their files."""

from __future__ import annotations

import copy
import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml
from PIL import Image

from segsweep.base.config import compose
from segsweep.run.identity import Run, now
from segsweep.story import train
from segsweep.sweeps.names import remember
from segsweep.sweeps.options import Slurm
from segsweep.sweeps.slurm import submit
from segsweep.verbs import analyse
from tests.test_mutations import NASTY, places

TINY = ["data.train=2", "data.val=2", "data.domain=source", "hparams.epochs=2"]
TINY += ["hparams.batch_size=2", "io.log_every=1", "peft.rank=2"]
ESCAPE = "\x1b]0;title\x07\x1b[31m\u202egnp.exe"
MORE = [
    ESCAPE,
    "=1+1",
    "-1",
    "2026-99-99T00:00:00",
    "0001-01-01T00:00:00",
    "--help",
    "$x_$ \\frac{",
    "a|b`c<d>",
    "$x_$ \\frac{",
]


def run_of(results: Path, *words: str) -> Run:
    return Run(compose([*TINY, f"io.results={results}", *words]))


def make(results: Path) -> list[Path]:
    """Fill a results folder: two runs that are done, one that failed, one that stopped, a job."""
    done = [run_of(results, f"seed={seed}") for seed in (0, 1)]
    for run in done:
        run.once(train)
    failed, stopped, submitted = (run_of(results, f"seed={seed}") for seed in (2, 3, 4))
    for run, error in ((failed, MemoryError("too\nlarge")), (stopped, KeyboardInterrupt())):
        with run.owning() as mine:
            run.prepare()
            shutil.copy(done[0].directory / "metrics.jsonl", run.directory)
            (run.directory / "last.ckpt").write_bytes(b"a checkpoint")
            (run.directory / "log.txt").write_text("epoch 1\nepoch 2\n")
            run.publish_failure(run.head(), error)
    died = json.dumps(mine.identity | {"started_ticks": "1"})  # without a word
    (stopped.directory / "owner.1").write_text(died)
    (done[0].directory / "wandb.json").write_text(json.dumps({"url": "x", "sent": now()}))
    submit([submitted], Slurm())
    runs = [run.directory for run in (*done, failed, stopped, submitted)]
    remember(results, "pilot", {run.name: [f"seed={i}"] for i, run in enumerate(runs)})
    picture = results / "pictures" / "one.png"
    picture.parent.mkdir()
    Image.new("RGB", (64, 64), (90, 20, 30)).save(picture)
    assert analyse.main([runs[0].name, runs[1].name, "--results", str(results)]) == 0
    return runs


def files(results: Path, run: Path) -> list[Path]:
    """The files of a run, and those about it, that anybody may damage."""
    own = [path for path in run.rglob("*") if path.is_file() or path.is_symlink()]
    shared = [results / "sweeps", run.parent / ".submit", results / "analysis" / run.name]
    return sorted(own + [path for folder in shared for path in folder.rglob("*.json")])


def damage(path: Path, random: Random) -> str:
    """Change a file; say how."""
    ways = [values, values, values, values, cut, flipped, elsewhere]
    way = random.choice(ways if path.exists() else [elsewhere])
    return f"{way.__name__} {way(path, random)}"


def values(path: Path, random: Random) -> str:
    """Replace or delete one to three values of a structured file, or all of it."""
    text = path.read_bytes()
    packed = path.suffix == ".gz"
    lines = (gzip.decompress(text) if packed else text).splitlines()
    lined = packed or path.suffix == ".jsonl"
    place = random.randrange(len(lines)) if lined and lines else 0
    try:
        tree = (
            yaml.safe_load(text)
            if path.suffix == ".yaml"
            else json.loads(lines[place] if lined else text)
        )
    except (ValueError, IndexError, yaml.YAMLError):
        return cut(path, random)
    said = []
    for _ in range(random.randint(1, 3)):
        every = list(places(tree)) if isinstance(tree, dict | list) else []
        value = copy.deepcopy(random.choice([*NASTY, *MORE]))
        if not every or random.random() < 0.05:
            tree = value
            said.append(f"all = {value!r}"[:60])
            continue
        node, key = random.choice(every)
        if random.random() < 0.25:
            del node[key]
            said.append(f"del {key}")
        else:
            node[key] = value
            said.append(f"{key} = {value!r}"[:60])
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(tree, allow_unicode=False))
        return str(said)
    new = json.dumps(tree).encode()
    whole = b"\n".join([*lines[:place], new, *lines[place + 1 :]]) + b"\n" if lined else new
    path.write_bytes(gzip.compress(whole) if packed else whole)
    return str(said)


def cut(path: Path, random: Random) -> str:
    """Leave the beginning, or nothing."""
    text = path.read_bytes()
    place = random.choice([0, random.randint(0, len(text))])
    path.write_bytes(text[:place])
    return f"to {place} of {len(text)}"


def flipped(path: Path, random: Random) -> str:
    """Turn some bits over."""
    text = bytearray(path.read_bytes() or b" ")
    for _ in range(random.randint(1, 8)):
        text[random.randrange(len(text))] ^= 1 << random.randrange(8)
    path.write_bytes(text)
    return ""


def elsewhere(path: Path, random: Random) -> str:
    """Put something else in its place."""
    kind = random.choice(list(OTHERS))
    path.unlink()
    path.parent.mkdir(exist_ok=True)
    OTHERS[kind](path)
    return kind


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


OTHERS: dict[str, Callable[[Path], Any]] = {
    "directory": _directory,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nothing"),
    "pipe": lambda path: os.mkfifo(path),
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "deep blocks": lambda path: path.write_text("- " * 100_000),
    "utf-16": lambda path: path.write_text("{}", encoding="utf-16"),
    "no utf-8": lambda path: path.write_bytes(b'{"id": "\xff\xfe"}'),
    "nan": lambda path: path.write_text('{"id": NaN, "time": Infinity}'),
    "digits": lambda path: path.write_text(f'{{"id": {"9" * 5000}}}'),
    "number": lambda path: path.write_text("7"),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text("[{}]"),
    "aliases": lambda path: path.write_text(
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    ),
}
