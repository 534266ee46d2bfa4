"""The verb `plan`: what a command line would run, what is missing for it, and what it would cost.

    python -m segsweep plan -m +sweep=table2 peft=lora
    python -m segsweep plan -m hydra/launcher=slurm peft.rank=2,4,8 --max-hours 20
    python -m segsweep plan --settle ablation --margin 1        the seeds that a table lacks

The words are those of the command that would follow; `--dry-run` behind that command does the same.
Every run is composed and checked: keys and values, data, base weights. Costs are those of finished
runs like it (segsweep/sweeps/cost.py). Data and weights that are not here are listed once each,
with where to get them; what waits for them is priced all the same. Nothing is started or written.
"""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from segsweep.base.parser import add_overrides, verb_parser
from segsweep.sweeps import plan
from segsweep.sweeps.plan_lines import header, lines
from segsweep.sweeps.pull import freeze

if TYPE_CHECKING:
    from segsweep.results.settle import MissingSeeds

GROUP = "train"
ALSO = ("dry-run", "dryrun", "estimate", "cost")


def main(argv: list[str] | None = None) -> int:
    """Print the plan; 1 if something is missing for it.

    Raises UserError when it costs more than `--max-hours`.
    """
    parser = verb_parser("plan", __doc__)
    add_overrides(parser, "the words of the command, as for training")
    parser.add_argument("--settle", metavar="TABLE", help="plan the seeds that would settle it")
    parser.add_argument("--margin", type=float, default=1.0, help="that may be lost; default: 1")
    parser.add_argument("--probe", action="store_true", help="measure what nothing is known of")
    parser.add_argument("--fetch", action="store_true", help="download base weights into the cache")
    parser.add_argument("--max-hours", type=float, metavar="H", help="refuse what takes longer")
    parser.add_argument("--trim", action="store_true", help="keep the first runs that fit instead")
    parser.add_argument("--save", metavar="NAME", help="freeze what would run, for `retry NAME`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_intermixed_args(argv)
    settling = _settling(options) if options.settle else None
    commands = settling.commands if settling else [options.overrides]
    composed = [plan.composed(words, options.fetch) for words in commands]
    entries = [entry for _, planned in composed for entry in planned]
    plan.price(entries, options.probe)
    plan.bound(entries)
    starting, total = plan.within(entries, options.max_hours, options.trim)
    if options.json:
        begun = {id(entry) for entry in starting}
        runs = [entry.described(id(entry) in begun) for entry in entries]
        print(json.dumps(settling.described() | {"runs": runs} if settling else runs, indent=1))
    else:
        said = [*settling.lines(), ""] if settling else []
        headers = [line for first, _ in composed[:1] for line in header(first, starting)]
        print("\n".join([*said, *lines(entries, starting), *headers]))
    if options.max_hours is not None:
        plan.refuse(entries, total, options.max_hours)
    if options.save:
        freeze(((e.words, e.run) for e in starting if e.run is not None), options.save)
        print(f"saved {len(starting)} runs; `python -m segsweep retry {options.save}` starts them")
    faults = list(settling.faults) if settling else []
    faults += [fault for entry in entries for fault in (*entry.faults, *entry.missing)]
    return 1 if faults else 0


def _settling(options: Namespace) -> MissingSeeds:
    """Return the runs that would settle a table; only this needs the tables."""
    from segsweep.results.settle import missing

    return missing(options.settle, options.margin, options.overrides)
