"""The verb `cancel`: end runs that wait or run; they keep their checkpoints.

    python -m segsweep cancel table2      a sweep: its jobs, or the command that trains it here
    python -m segsweep cancel 3f2a91      one run
    python -m segsweep cancel --all       everything in results/

Jobs are ended by scancel, processes of this machine by SIGTERM; both write a checkpoint first. The
same command line, or `retry`, goes on where they stopped.
"""

from __future__ import annotations

from segsweep.base.files import sound
from segsweep.base.parser import add_results, verb_parser
from segsweep.run.identity import LIVE, state_of
from segsweep.sweeps import control
from segsweep.sweeps.names import chosen, named_or_all, sweeps
from segsweep.sweeps.status import jobs

GROUP = "train"
ALSO = ("stop", "kill", "abort", "scancel")


def main(argv: list[str] | None = None) -> int:
    """End the chosen runs; 1 if one of them cannot be reached from here, or is damaged."""
    parser = verb_parser("cancel", __doc__)
    parser.add_argument("what", nargs="*", help="sweeps, runs or folders")
    parser.add_argument("--all", action="store_true", help="all runs")
    add_results(parser)
    options = parser.parse_args(argv)
    named_or_all("cancel", options.what, options.all)
    runs = chosen(options.results, options.what)
    queue = jobs(runs)
    states = dict(sound(runs, lambda run: state_of(run, queue)))
    live = [run for run, state in states.items() if state in LIVE]
    wide = options.all or any(word in sweeps(options.results) for word in options.what)
    cancelled, stopped, unreachable = control.cancel(live, queue, wide)
    print(
        f"{len(runs)} runs, {len(live)} of them live: "
        f"{cancelled} jobs cancelled, {stopped} processes told to stop"
    )
    print(*unreachable, sep="\n", end="\n" if unreachable else "")
    return 1 if unreachable or len(states) < len(runs) else 0
