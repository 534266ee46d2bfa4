"""The verb `retry`: start runs again from their frozen configs, with the launcher that they had.

    python -m segsweep retry table2                       what failed, was lost or interrupted,
                                                          or was frozen and has not begun
    python -m segsweep retry table2 --state lost --with mem=64G time=600
    python -m segsweep retry 3f2a91 --anew                from the first step

Runs go on from their checkpoints. Jobs are submitted again with the options that they had, changed
by `--with`; runs that no job had train on this machine. Finished and live runs are left alone.
Options that run commands (setup, python, sbatch) are those of your own hydra/launcher, whatever a
results folder says; where its jobs had others these are shown, and `--trust` uses them.
"""

from __future__ import annotations

from segsweep.base.errors import UserError
from segsweep.base.files import sound
from segsweep.base.parser import add_results, verb_parser
from segsweep.run.identity import state_of
from segsweep.sweeps.again import launches
from segsweep.sweeps.control import ENDED, reopened, start_again
from segsweep.sweeps.names import chosen, named_or_all
from segsweep.sweeps.slurm import hidden
from segsweep.sweeps.status import jobs

GROUP = "train"
ALSO = ("resume", "restart", "rerun", "continue")


def main(argv: list[str] | None = None) -> int:
    """Start the chosen runs again; 1 if one is damaged, or trains here and does not finish."""
    parser = verb_parser("retry", __doc__)
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders")
    parser.add_argument("--all", action="store_true", help="all runs")
    add_results(parser)
    parser.add_argument("--state", nargs="+", choices=ENDED, default=ENDED, help="default: these")
    parser.add_argument(
        "--with", nargs="+", default=[], dest="changes", metavar="KEY=VALUE",
        help="change options of the launcher",
    )  # fmt: skip
    parser.add_argument("--slurm", action="store_true", help="submit also what no job had")
    parser.add_argument(
        "--trust", action="store_true", help="use also the commands that job.json names"
    )
    parser.add_argument("--anew", action="store_true", help="begin at the first step")
    options = parser.parse_args(argv)
    named_or_all("retry", options.what, options.all)
    directories = chosen(options.results, options.what)
    queue = jobs(directories)
    frozen = [run for run in directories if (run / "config.yaml").is_file()]
    states = dict(sound(frozen, lambda run: state_of(run, queue)))
    ended = [run for run, state in states.items() if state.value in options.state]
    how = launches(ended, options.slurm, options.changes, options.trust)  # nothing is deleted yet
    runs = [run for _, run in sound(ended, lambda run: reopened(run, options.anew), UserError)]
    print(*hidden([*states], queue) if queue else [], sep="", end="")
    print(f"{len(directories)} runs, {len(runs)} of them to start again")
    left = len(frozen) - len(states) + len(ended) - len(runs)
    return 1 if start_again(runs, how) or left else 0
