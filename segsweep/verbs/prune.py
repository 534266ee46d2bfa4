"""The verb `prune`: give back the disk space of what no result needs any more.

    python -m segsweep prune             show what would go, and why
    python -m segsweep prune table2 --yes

    checkpoint   last.ckpt of runs that failed (a retry begins anew), are done or superseded
    delta        weights of runs that failed or are superseded
    predictions  of such runs
    features     caches of backbone features, computed again where needed (not with a choice)
    wandb        local files of Weights & Biases of runs that `sync` has sent

Records, curves and configs stay, and so does all of runs that wait, run or can go on. A run is
superseded when its config now names another run, because its data, its base weights or a default
changed: no command line finds it again. Runs of versions that named runs otherwise are kept.
"""

from __future__ import annotations

from segsweep.base.parser import add_runs, verb_parser
from segsweep.base.terminal import aligned, human
from segsweep.sweeps.leftovers import delete, leftovers
from segsweep.sweeps.names import chosen
from segsweep.sweeps.status import jobs

GROUP = "train"
ALSO = ("clean", "rm", "remove", "delete", "gc")


def main(argv: list[str] | None = None) -> int:
    """Show what may go; delete it with `--yes`; 1 if some of it cannot be deleted."""
    parser = verb_parser("prune", __doc__)
    add_runs(parser)
    parser.add_argument("--yes", action="store_true", help="delete; without, nothing is touched")
    options = parser.parse_args(argv)
    runs = chosen(options.results, options.what)
    files, unreadable = leftovers(runs, jobs(runs), None if options.what else options.results)
    print(*unreadable, sep="\n", end="\n" if unreadable else "")
    if files:
        print(*aligned([(human(f.size), f.kind, f.why, str(f.path)) for f in files]), sep="\n")
    left = list(delete(files)) if options.yes else []
    print(*left, sep="\n", end="\n" if left else "")
    total = human(sum(file.size for file in files))
    outcome = "deleted" if options.yes else "to delete" + (" (--yes does it)" if files else "")
    print(f"{len(runs)} runs: {len(files)} leftovers, {total} {outcome}")
    return 1 if left else 0
