"""The verb `retry`: start runs again from their frozen configs, with the launcher that they had.

    python -m segsweep retry table2                       what failed, was lost or interrupted,
                                                          or was frozen and has not begun
    python -m segsweep retry table2 --state lost --with mem=64G time=600
    python -m segsweep retry 3f2a91 --anew                from the first step

Runs go on from their checkpoints. Jobs are submitted again with the options that they had, changed
by `--with`; runs that no job had train on this machine. Finished and live runs are left alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.base.files import read_json
from segsweep.run.identity import OWN_FILES, Run, State, state_of
from segsweep.run.restore import frozen
from segsweep.sweep.local import Local, train_all
from segsweep.sweep.names import chosen, named_or_all
from segsweep.sweep.slurm import Slurm, submit
from segsweep.sweep.status import jobs

ENDED = [state.value for state in (State.FAILED, State.LOST, State.INTERRUPTED, State.NEW)]


def main(argv: list[str] | None = None) -> int:
    """Start the chosen runs again; 1 if one of those that train here does not finish."""
    options = _parser().parse_args(argv)
    named_or_all("retry", options.what, options.all)
    found = chosen(options.results, options.what)
    queue = jobs(found)
    begun = [run for run in found if (run / "config.yaml").is_file()]
    ended = [run for run in begun if state_of(run, queue).value in options.state]
    runs = [again(directory, options.anew) for directory in ended]
    print(f"{len(found)} runs, {len(runs)} of them to start again")
    unfinished = 0
    for launcher, group in grouped(runs, options.slurm).items():
        changed = changed_options(launcher, options.changes)
        if isinstance(changed, Slurm):
            print(f"submitted {len(submit(group, changed))} runs; `status` shows them")
        else:
            states = train_all({run: run.name for run in group}, changed)
            unfinished += sum(state is not State.DONE for state in states.values())
    return 1 if unfinished else 0


def again(directory: Path, anew: bool) -> Run:
    """Return the run of a directory, with `anew` emptied.

    Raises UserError when its config names another run now.
    """
    run = frozen(directory)
    for file in OWN_FILES if anew else ():
        (directory / file).unlink(missing_ok=True)
    return run


def grouped(runs: Sequence[Run], slurm: bool) -> dict[str, list[Run]]:
    """Return runs by the launcher that they had: the options of their job, `null` for none."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        job = read_json(run.directory / "job.json")
        launcher = job["launcher"] if job else {} if slurm else None
        groups.setdefault(json.dumps(launcher, sort_keys=True), []).append(run)
    return groups


def changed_options(launcher: str, changes: Sequence[str]) -> Slurm | Local:
    """Return typed options of a launcher with `key=value` words applied.

    Raises UserError for unknown keys and wrong values.
    """
    had: dict[str, Any] | None = json.loads(launcher)
    kind = Local if had is None else Slurm
    try:
        options = OmegaConf.merge(
            OmegaConf.structured(kind), had or {}, OmegaConf.from_dotlist(list(changes))
        )
        return OmegaConf.to_object(options)  # pyright: ignore[reportReturnType]
    except OmegaConfBaseException as error:
        raise UserError(f"--with: {explain(error)}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m segsweep retry", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders")
    parser.add_argument("--all", action="store_true", help="all runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--state", nargs="+", choices=ENDED, default=ENDED, help="default: these")
    parser.add_argument(
        "--with", nargs="+", default=[], dest="changes", metavar="KEY=VALUE",
        help="change options of the launcher",
    )  # fmt: skip
    parser.add_argument("--slurm", action="store_true", help="submit also what no job had")
    parser.add_argument("--anew", action="store_true", help="begin at the first step")
    return parser
