"""With which options a job is submitted again: those of a results folder are only data.

`job.json` says which launcher a run had and with which options. Whoever starts it again may not be
who wrote that file, so of it count the word of the launcher and plain values, time, memory, places:
each typed and of one line. Options that run commands (`SHELL`) are those of the reader's own
configuration; where the job had others they are shown, and used when they are trusted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.hydra_parts import initialized
from segsweep.run.shapes import job_of
from segsweep.sweeps.local import Local
from segsweep.sweeps.options import PLAIN, SHELL, Slurm

Scalar = str | int | float | bool | None
PLAIN_KEYS = [f.name for f in fields(Slurm) if f.name not in SHELL]


@dataclass(frozen=True)
class Launch:
    """How a run is started again: by the launcher of a word, or here."""

    word: str | None
    options: Slurm | Local


def launches(
    runs: Sequence[Path], slurm: bool, changes: Sequence[str], trust: bool
) -> dict[Path, Launch]:
    """Return how each run is to be started again; nothing is touched.

    Args:
        runs: their directories.
        slurm: submit also what no job had.
        changes: `key=value` words for the options of the launcher.
        trust: use also what `job.json` says of options that run commands.

    Raises:
        UserError: unknown keys, wrong values, and options that would have to be trusted.
    """
    known: dict[str, Launch] = {}
    found: dict[Path, Launch] = {}
    untrusted: dict[str, Path] = {}
    for run in runs:
        job = job_of(run)
        word = job.get("word", "slurm") if job else "slurm" if slurm else None
        then = job.get("launcher") if job else None
        key = json.dumps([word, then], sort_keys=True)
        if key not in known:
            known[key], differing = _launch(run, word, then, changes, trust)
            untrusted |= dict.fromkeys(differing, run)
        found[run] = known[key]
    if untrusted:
        print("options that run commands, in your configuration -> in job.json:")
        print(*(f"  {line}  ({run.name})" for line, run in untrusted.items()), sep="\n", flush=True)
    if untrusted and not trust:
        raise UserError(
            "these jobs had options that run commands and are not in your configuration (above): "
            "--trust uses them, --with says others (none: --with python=null setup=[] sbatch={}), "
            "--config-dir names the folder that has your own hydra/launcher"
        )
    return found


def _launch(
    run: Path, word: str | None, then: Any, changes: Sequence[str], trust: bool
) -> tuple[Launch, list[str]]:
    """Return how one run is started, and the lines that say what would have to be trusted."""
    if word is None:
        return Launch(None, _typed(Local, [changes])), []
    source = run / "job.json"
    try:
        own = vars(own_options(word))
    except UserError as error:
        if not trust:
            raise UserError(f"{source}: {error}; --trust uses what stands there") from error
        own = vars(Slurm())
    then = then if isinstance(then, dict) else own
    plain = {key: own[key] for key in PLAIN_KEYS} | _plain(source, then)
    given: Slurm = _typed(Slurm, [plain, changes])
    changed = {change.partition("=")[0] for change in changes}
    now = _commands(given, {key: own[key] for key in SHELL}, changed)
    before = _commands(given, _shell(source, then), changed)
    differing = [
        f"{key}: {json.dumps(getattr(now, key))} -> {json.dumps(getattr(before, key))}"
        for key in SHELL
        if getattr(now, key) != getattr(before, key)
    ]
    return Launch(word, before if trust else now), differing


def own_options(word: str) -> Slurm:
    """Return the options of a launcher as this installation and the user's folders have them.

    Raises UserError for a word that they do not have, or that submits no jobs.
    """
    import hydra

    said = f"hydra/launcher={word}"
    if not isinstance(word, str) or not re.fullmatch(r"\w[\w-]*", word):
        raise UserError(f"{said!r} names no launcher")
    try:
        with initialized():
            whole = hydra.compose("train", overrides=[said], return_hydra_config=True)
        launcher = OmegaConf.to_container(whole.hydra.launcher, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            f"{explain(error)}; --config-dir FOLDER names the folder that has {said}"
        ) from error
    assert isinstance(launcher, dict)
    if not str(launcher.get("_target_")).endswith("SlurmLauncher"):
        raise UserError(f"{said} submits no jobs of segsweep")
    return Slurm(**{str(k): v for k, v in launcher.items() if k in Slurm.__dataclass_fields__})


def _plain(source: Path, then: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a file that run nothing.

    Raises UserError for values of another type, and for what could be more than one word.
    """
    values = {key: then[key] for key in PLAIN_KEYS if key in then}
    for key, value in values.items():
        fits = PLAIN.fullmatch(value) if isinstance(value, str) else isinstance(value, Scalar)
        if not fits:
            raise UserError(f"{source}: launcher.{key} is {value!r}, no plain value; delete it")
    try:
        _typed(Slurm, [values])
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return values


def _shell(source: Path, then: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a file that run commands.

    Raises UserError for values of another type.
    """
    values = {"python": None, "setup": [], "sbatch": {}} | {k: then[k] for k in SHELL if k in then}
    lines, more = values["setup"], values["sbatch"]
    sound = {
        "python": isinstance(values["python"], str | None),
        "setup": isinstance(lines, list) and all(isinstance(line, str) for line in lines),
        "sbatch": isinstance(more, dict) and all(isinstance(v, Scalar) for v in more.values()),
    }
    for key in (key for key, fits in sound.items() if not fits):
        raise UserError(f"{source}: launcher.{key} is {values[key]!r}; delete it")
    return values


def _commands(options: Slurm, commands: Mapping[str, Any], changed: set[str]) -> Slurm:
    """Return options with other commands, except where the user changes them."""
    more = commands["sbatch"] | options.sbatch  # `--with sbatch.nice=5` adds one
    kept = {key: value for key, value in {**commands, "sbatch": more}.items() if key not in changed}
    return replace(options, **kept)


def _typed(kind: type, parts: Sequence[Any]) -> Any:
    """Return typed options out of dicts and `key=value` words, later ones first."""
    merged, options = OmegaConf.structured(kind), kind()
    for part in parts:
        mapping = isinstance(part, Mapping)
        try:
            words = part if mapping else OmegaConf.from_dotlist(list(part))
            merged = OmegaConf.merge(merged, words)
            options = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise UserError(f"{'launcher' if mapping else '--with'}: {explain(error)}") from error
    return options
