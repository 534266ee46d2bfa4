"""The verb `bench`: what a method costs at inference, beside its base, and in training.

    python -m segsweep bench model=maskdino_r50 peft=adapter peft.repeats=1,2 --size 512 512
    python -m segsweep bench +sweep=table2 model=maskdino_r50 data=ndd20 --classes 1
    python -m segsweep bench peft=lora peft.rank=4,16 --batches 1,8 --rounds 50 --threads 2
    python -m segsweep bench --train peft=lora,full_head hparams.batch_size=8
    python -m segsweep table latency

Each setting of the words is measured beside its base, a method that can be merged both as it trains
and merged: time from pixels to instances, operations and peak memory of the network, bytes of the
checkpoint. All are there at once and take turns, so that other work on the machine tells on all
alike; ratios to the base are of the same round. Weights are random unless model.weights= is said:
they change no time. `--train` measures steps of training, too: as a run takes them, unmerged, a
process for each setting. Records go to results/bench/.
"""

from __future__ import annotations

import argparse
import math

from segsweep.base.errors import UserError
from segsweep.base.parser import add_overrides, add_results, verb_parser
from segsweep.bench.settings import Plan, comparisons, images, must_train, show, subject

GROUP = "hand on"
ALSO = ("benchmark", "profile", "speed", "latency", "fps", "time")
LEAST = {"rounds": 2, "warmup": 0, "seconds": 0, "batches": 1, "threads": 1, "size": 1}
LEAST |= {"classes": 1, "images": 1}


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write what the words say.

    Raises UserError for words that cannot be composed and numbers that cannot be.
    """
    options = _parser().parse_intermixed_args(argv)
    _check(options)
    compared = comparisons(options.overrides)
    for comparison in compared if options.train else ():
        must_train(comparison)
    subjects = [subject(comparison.base, options.classes) for comparison in compared]
    from segsweep.bench import measure

    for comparison, found in zip(compared, subjects, strict=True):
        plan = Plan(
            size=tuple(options.size or comparison.base.model.input),
            subject=found,
            batches=list(dict.fromkeys([1, *options.batches])),
            rounds=options.rounds,
            warmup=options.warmup,
            seconds=options.seconds,
            train=options.train,
            images=images(comparison.base, options.images) if options.train else None,
        )
        with measure.threads(options.threads):
            records = measure.measure(comparison.base, comparison.settings, plan)
        show(records)
        for path in measure.write(records, options.results):
            print(f"wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = verb_parser("bench", __doc__)
    add_overrides(parser, "words as for training a sweep")
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="default: model.input"
    )
    parser.add_argument("--classes", type=int, metavar="N", help="default: the data set's")
    parser.add_argument("--batches", type=_numbers, default=[1], help="images at once: 1,4 (1)")
    parser.add_argument("--rounds", type=int, default=30, help="times each is measured (30)")
    parser.add_argument("--warmup", type=int, default=2, help="rounds before that (2)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="then no more rounds begin")
    parser.add_argument("--train", action="store_true", help="measure steps of training, too")
    parser.add_argument(
        "--images", type=int, metavar="N", help="of an epoch of --train; default: the data set's"
    )
    parser.add_argument("--threads", type=int, help="of torch; default: as it chooses")
    add_results(parser)
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, bound in LEAST.items():
        value = getattr(options, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < bound:
                raise UserError(f"--{name} {number}: must be at least {bound}")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


_numbers.__name__ = "list of numbers"  # what argparse calls it
