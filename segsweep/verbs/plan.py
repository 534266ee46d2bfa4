"""The verb `plan`: what a command line would run, what is missing for it, and what it would cost.

    python -m segsweep plan -m +sweep=table2 peft=lora
    python -m segsweep plan -m hydra/launcher=slurm peft.rank=2,4,8 --max-hours 20

The words are those of the command that would follow; `--dry-run` behind that command does the same.
Every run is composed and checked: keys and values, data, base weights. Costs are those of finished
runs like it (segsweep/sweep/cost.py). Nothing is started and nothing written.
"""

from __future__ import annotations

import json

from segsweep.sweep import plan
from segsweep.verbs.parser import add_overrides, verb_parser


def main(argv: list[str] | None = None) -> int:
    """Print the plan; 1 if something is missing for it.

    Raises UserError when it costs more than `--max-hours`.
    """
    parser = verb_parser("plan", __doc__)
    add_overrides(parser, "the words of the command, as for training")
    parser.add_argument("--probe", action="store_true", help="measure what nothing is known of")
    parser.add_argument("--fetch", action="store_true", help="download base weights into the cache")
    parser.add_argument("--max-hours", type=float, metavar="H", help="refuse what takes longer")
    parser.add_argument("--trim", action="store_true", help="keep the first runs that fit instead")
    parser.add_argument("--save", metavar="NAME", help="freeze what would run, for `retry NAME`")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_intermixed_args(argv)
    hydra_config, entries = plan.composed(options.overrides, options.fetch)
    plan.price(entries, options.probe)
    starting, total = plan.within(entries, options.max_hours, options.trim)
    if options.json:
        print(json.dumps([entry.described(entry in starting) for entry in entries], indent=1))
    else:
        print("\n".join([*plan.lines(entries, starting), *plan.header(hydra_config, starting)]))
    if options.max_hours is not None:
        plan.refuse(entries, total, options.max_hours)
    if options.save:
        plan.save(starting, options.save)
        print(f"saved {len(starting)} runs; `python -m segsweep retry {options.save}` starts them")
    return 1 if any(entry.faults for entry in entries) else 0
