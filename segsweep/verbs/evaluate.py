"""The verb `evaluate`: judge finished runs on a set that they were not trained on.

    python -m segsweep evaluate run=3f2a91 data=cvc612 data.root=path/to/polyp
    python -m segsweep evaluate table2 data=digits data.domain=street data.val=32
    python -m segsweep evaluate run=3f2a91 data=coco data.root=path/to/site-b metrics.key=segm_AP50

The weights are those of the run, the pictures those of val, as the set's word gives them. They are
resized and normalised as in training, and judged by the run's own metric, unless data.size=,
metrics= and the like say otherwise. The set must have the classes of the run, in their order.
Each gives a record of its own, results/elsewhere/RUN/DATA-ID, which no table takes for a trained
run; one that is there is not made again. `report` shows runs and their records side by side,
`compare` and `analyse` read the folders. Its own test part: predict run=3f2a91 split=test.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.parser import add_results, verb_parser
from segsweep.sweeps.names import chosen, spoken

GROUP = "results"
ALSO = ("eval", "judge", "cross-validate", "transfer")


def main(argv: list[str] | None = None) -> int:
    """Judge runs on a set; of several runs those that cannot be are named, and the status is 1."""
    parser = verb_parser("evaluate", __doc__)
    parser.add_argument("runs", nargs="+", help="names or ids of runs, sweeps or folders")
    add_results(parser)
    parser.add_argument("--data", required=True, metavar="WORD", help="the set, as for training")
    parser.add_argument("--metrics", metavar="WORD", help="default: the metric of each run")
    options = spoken(parser, argv)
    runs, skipped = chosen(options.results, options.runs), 0
    for directory in runs:
        try:
            judge(directory, options)
        except UserError as error:
            if len(runs) == 1:
                raise
            print(f"skipped {error}", flush=True)
            skipped += 1
    return 1 if skipped else 0


def judge(directory: Path, options: Namespace) -> None:
    """Judge one run; all that needs no model is looked at before torch is imported."""
    from segsweep.run.elsewhere import elsewhere
    from segsweep.story import judge as judged

    print(f"{directory.name} on data={options.data}", flush=True)
    judged(elsewhere(directory, options.data, options.metrics, options.words))
