"""What a decision is said in: by decision.py in the terminal, by page.js in the browser."""

from __future__ import annotations

WORDS = {
    "choice": "Choose {name}: {value}, {size} to store per task, {latency}.",
    "only": "Nothing else qualifies.",
    "best": "It is the best of the {n} settings that qualify.",
    "tie": "{best} ({there}) is not better by more than the noise over seeds, and takes {size}.",
    "worth": "expected cost {cost}",
    "cost": "Expected cost of errors: {cost} per 1,000 objects, from {missed} missed and {false} "
    "false alarms at a score of {score}.",
    "free": "No costs of errors are given, so the choice is by {metric} alone.",
    "unpriced": "No setting that qualifies kept predictions, so the cost of errors is unknown and "
    "the choice is by {metric}.",
    "left": "{name} leaves {gap} on the table against the full head ({value}){noise}.",
    "ahead": "{name} is {gap} above the full head ({value}){noise}.",
    "noise": ": within noise over seeds",
    "real": ": more than noise over seeds",
    "unknown": "; how much of that is noise only more seeds can tell",
    "no_reference": "No full head of {model} has finished: what PEFT leaves on the table is not "
    "known.",
    "nothing": "Nothing qualifies.",
    "empty": "No run has finished on this data set yet.",
    "binding": "{limit} is what binds: without it {name} qualifies ({value}).",
    "conflict": "{limit} rules out {k} of {n}; the nearest is {name} ({value}).",
    "unmeasured": "{limit} cannot be judged, nothing measured it{cure}.",
    "bench": ": python -m segsweep bench",
    "not_measured": "latency not measured",
}


def said(key: str, **values: str) -> str:
    """Return a sentence, or a part of one, with its values."""
    return WORDS[key].format(**values)
