"""Does a base for photographs earn its place? Runs that decide it, and the gates they must pass.

    python scripts/pretrain_photo.py --model photo_solo --lite0 lite0.safetensors --steps 0 \
        --state none --out random.safetensors
    python scripts/photo_gates.py --model photo_solo --photo solo.safetensors \
        --random random.safetensors --sets nuclei=FOLDER rice_leaf=FOLDER --epochs 24 12

Three starts learn real pictures by their whole heads in the same steps: the photo base, the digits
base, and a head as it is drawn upon the photo base's backbone; each at its own rate, the best of
RATES on the first set with the first seed. The photo base learns by LoRA, too. The gates were fixed
before any run. On the first set rates are chosen on the pictures that are reported, of all starts
alike. What has been done is not done again, so it can be stopped and called again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import segsweep
from segsweep.base.errors import UserError
from segsweep.base.words import add_folder
from segsweep.data.formats.masks import area
from segsweep.results.evidence import Evidence
from segsweep.run import predictions

WORDS = Path(__file__).parent / "photo"
RATES = {"full_head": (3e-4, 1e-3, 3e-3), "lora": (1e-3, 3e-3, 1e-2)}
SEEDS = (0, 1, 2)
METRICS = ("segm_AP", "segm_AP50")
HEADLINE = "nuclei"
LEAST = {"segm_AP": 5.0, "segm_AP50": 15.0}  # of the photo base on the headline set
LORA, EMPTY, MINUTES = 0.5, 20.0, 5.0  # part of full head's AP, percent of masks, on two cores
RECIPE = ["data=coco", "data.size=[256,256]", "hparams.batch_size=4", "hparams.schedule=cosine"]
DIGITS = ["model=maskdino_tiny", "model.queries=100", "model.topk=150"]  # as the other


@dataclass(frozen=True)
class Arm:
    """A start, trained in one way on one set."""

    data: str
    start: str  # photo, digits or random
    peft: str = "full_head"


@dataclass
class Reached:
    """What the seeds of an arm reached: values by metric, empty masks in percent, minutes."""

    values: Mapping[str, Sequence[float]]
    empty: float
    minutes: float
    rate: float = 0.0


def arms(sets: Sequence[str]) -> list[Arm]:
    """Return all that is run."""
    starts = [Arm(data, start) for data in sets for start in ("photo", "digits", "random")]
    return [*starts, *(Arm(data, "photo", "lora") for data in sets)]


def words_of(arm: Arm, a: argparse.Namespace) -> list[str]:
    """Return the words of an arm but for rate and seed."""
    files = {"photo": a.photo, "random": a.random}
    model = DIGITS
    if arm.start in files:
        model = [f"model={a.model}", f"model.weights={files[arm.start].resolve()}"]
    root = [f"data.root={Path(a.sets[arm.data]).resolve()}", f"peft={arm.peft}"]
    epochs = a.epochs[list(a.sets).index(arm.data)]
    ends = [f"hparams.epochs={epochs}", f"trainer.validate_every={epochs}"]
    return [*model, *RECIPE, *root, *ends, f"io.results={a.results}", "io.progress=false"]


def empty_masks(run: segsweep.api.TrainedRun) -> tuple[int, int]:
    """Count the empty masks and all masks among the predictions of a run."""
    found = [one["segmentation"] for _, many in predictions.of_run(run.directory) for one in many]
    return sum(area(mask) == 0 for mask in found), len(found)


def reached(arm: Arm, a: argparse.Namespace, rates: Sequence[float]) -> Reached:
    """Run an arm: its rate by the first seed, then the other seeds at that rate."""
    words = words_of(arm, a)
    tried = {
        rate: segsweep.train(*words, f"hparams.lr={rate:g}", f"seed={SEEDS[0]}") for rate in rates
    }
    rate = max(tried, key=lambda r: tried[r].metrics[METRICS[0]] or 0.0)
    others = [segsweep.train(*words, f"hparams.lr={rate:g}", f"seed={s}") for s in SEEDS[1:]]
    runs = [tried[rate], *others]
    empty, total = map(sum, zip(*map(empty_masks, runs), strict=True))
    values = {m: [run.metrics[m] or 0.0 for run in runs] for m in METRICS}
    minutes = fmean(run.record["seconds"]["total"] for run in runs) / 60
    return Reached(values, 100 * empty / max(total, 1), minutes, rate)


def gates(results: Mapping[Arm, Reached], headline: str = HEADLINE) -> list[tuple[str, bool]]:
    """Return each gate as a sentence, and whether it holds."""
    said = []
    for data in dict.fromkeys(arm.data for arm in results):
        for metric in METRICS:
            runs = {s: results[Arm(data, s)].values[metric] for s in ("photo", "digits", "random")}
            for start, gap in Evidence(runs).against("photo").items() or [("any", None)]:
                text = f"{data}: {metric} ahead of the start {start}"
                if gap is not None:
                    text += f" by {-gap.middle:.2f} ({-gap.high:.2f} to {-gap.low:.2f})"
                said.append((text, gap is not None and gap.high < 0))
    photo, lora = results[Arm(headline, "photo")], results.get(Arm(headline, "photo", "lora"))
    for metric, least in LEAST.items():
        mean = fmean(photo.values[metric])
        said.append((f"{headline}: {metric} {mean:.2f}, at least {least:g}", mean >= least))
    low_rank = fmean(lora.values[METRICS[0]]) if lora else 0.0  # of no use where LoRA has no place
    part = low_rank / max(fmean(photo.values[METRICS[0]]), 1e-9)
    said.append((f"{headline}: LoRA reaches {part:.2f} of it, at least {LORA}", part >= LORA))
    within = photo.minutes <= MINUTES
    said.append((f"{headline}: {photo.minutes:.1f} min, at most {MINUTES:g}", within))
    sparse = photo.empty < EMPTY
    said.append((f"{headline}: {photo.empty:.1f} % of masks empty, below {EMPTY:g}", sparse))
    return said


def table(results: Mapping[Arm, Reached]) -> str:
    """Return what was reached as a table of Markdown."""
    head = ["data", "start", "trains", "rate", *METRICS, "empty masks, %", "minutes"]
    rows = [head, ["---"] * len(head)]
    for arm, one in results.items():
        values = [" / ".join(f"{v:.2f}" for v in one.values[m]) for m in METRICS]
        costs = [f"{one.empty:.1f}", f"{one.minutes:.1f}"]
        rows.append([arm.data, arm.start, arm.peft, f"{one.rate:g}", *values, *costs])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    """Run what is missing, print the table and the gates."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--model", required=True, help="word of the photo base")
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--random", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True, help="NAME=FOLDER, the headline first")
    parser.add_argument("--epochs", nargs="+", type=int, required=True, help="of each set")
    parser.add_argument("--results", default="results/photo_gates")
    a = parser.parse_args()
    a.sets = dict(pair.split("=", 1) for pair in a.sets)
    add_folder(WORDS)
    results: dict[Arm, Reached] = {}
    for arm in arms(list(a.sets)):
        first = results.get(replace(arm, data=next(iter(a.sets))))
        try:
            results[arm] = reached(arm, a, (first.rate,) if first else RATES[arm.peft])
        except UserError as error:  # a head without attention has no weight that LoRA edits
            if arm.peft != "lora":
                raise
            print(error)
    print(table(results))
    said = gates(results, next(iter(a.sets)))
    print("\n".join(f"{'holds' if holds else 'FAILS'}  {text}" for text, holds in said))
    print("ship it" if all(holds for _, holds in said) else "ship nothing")


if __name__ == "__main__":
    main()
