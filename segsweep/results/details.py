"""What tells runs apart: the options that labels show, and how their values are written.

Only finished runs decide: one that failed, by a mistyped path, say, takes the label that fits it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from segsweep.results.wording import (
    RECORDED_FORMS,
    Values,
    class_of,
    forms,
    label_of,
    naming_options,
    spelling,
)

# Keys that name a choice or cannot change a result never separate runs; hparams.lr and .clip follow
# peft.lr and model.clip.
OUTSIDE = re.compile(
    r"config\.(seed|repeat|force|peft\.lr|model\.clip|trainer\.(cache_features|cross_resume)"
    r"|data\.slices|io\..*|logger\..*|.*_target_|\w+\.name|.*\.label|peft\.reference)$"
)

HASH = re.compile(r"#?(sha256[=:-])?\b[0-9a-f]{32,}\b")  # says nothing to a reader of labels


def _label(run: Values, group: str) -> str:
    """Return the label of a run's word, as recorded or as installed."""
    return run.get(f"config.{group}.label") or label_of(group, run[f"config.{group}.name"])


def family_of(run: Values, group: str) -> str:
    """Return what a run's word of a config group is called; nothing if an option names it."""
    label = _label(run, group) or run[f"config.{group}.name"]
    return "" if naming_options(label) else label


def naming_option(run: Values, group: str) -> str:
    """Return the option whose value a run's word of a config group is called by, if one is."""
    options = naming_options(_label(run, group))
    return next((option for option in options if run.get(f"config.{group}.{option}")), "")


def keys_of(runs: list[Values]) -> list[str]:
    """Return the keys of the config that differ between finished runs and can change a result."""
    first: Values = {}
    differing: set[str] = set()
    for run in filter(decides, runs):
        differing |= {k for k, value in run.items() if first.setdefault(k, value) != value}
    chosen = (key for key in first if key in differing and key.startswith("config."))
    return [key for key in chosen if not OUTSIDE.match(key)]


def details_of(runs: list[Values], group: str, keys: list[str]) -> list[tuple[str, ...]]:
    """Return "r=4" and the like: the options always shown, then those on which runs disagree.

    With alpha = r throughout, alpha is not mentioned; beside a run with alpha = 2r it is. Nor is
    what a label of the run's own tells already, such as that of a hybrid.
    """
    names = [(run[f"config.{group}.name"], family_of(run, group)) for run in runs]
    always = [[f"config.{group}.{key}" for key in _always(run, group)] for run in runs]
    details = written(runs, always)
    alike = list(zip(names, details, strict=True))
    options = [key for key in keys if key.startswith(f"config.{group}.")]
    telling = telling_keys(runs, options, alike, [""] * len(runs))
    return [a + b for a, b in zip(details, written(runs, telling), strict=True)]


def legend(runs: Iterable[Values]) -> dict[str, str]:
    """Return the symbols that labels of methods show, and the options they stand for.

    As in {"I": "peft.repeats", "κ+λ": "peft.residual=kappa+lambda"}.
    """
    symbols: dict[str, str] = {}
    for run in runs:
        word = run.get("config.peft.name", "")
        for option, form in forms("peft", word).items() if word else ():
            value = run.get(f"config.peft.{option}")
            if form.endswith("={}"):
                symbols |= {form.removesuffix("={}"): f"peft.{option}"} if value is not None else {}
            elif value in spelling("peft", word):
                symbols[spelling("peft", word)[value]] = f"peft.{option}={value}"
    return symbols


def _always(run: Values, group: str) -> list[str]:
    """Return the options that a run's label always shows: by its class, if that is installed."""
    word, option = run[f"config.{group}.name"], naming_option(run, group)
    shown = forms(group, word) if class_of(group, word) else ()
    return [*([option] if option else []), *shown]


def telling_keys(
    runs: list[Values], keys: list[str], rows: Sequence[Hashable], cells: list[str]
) -> list[list[str]]:
    """Return, for each run, the keys that tell it from others of its row in the same cell.

    Keys are taken in turn and split rows into smaller ones, so a key that follows from earlier
    ones (alpha from the rank) is left out. A gap agrees with every value, a failed run with all;
    null is a value ("off"), but of data, which may be named in one way or another.
    """
    telling: list[list[str]] = [[] for _ in runs]
    for key in keys:
        off = not key.startswith("config.data.")
        values: dict[Hashable, set] = defaultdict(set)
        for run, place in zip(runs, zip(rows, cells, strict=True), strict=True):
            if decides(run) and key in run and (off or run[key] is not None):
                values[place].add(run[key])
        split = {row for row, cell in zip(rows, cells, strict=True) if len(values[row, cell]) > 1}
        for shown, row in zip(telling, rows, strict=True):
            shown += [key] * (row in split)
        rows = [
            (row, run.get(key)) if row in split else row
            for run, row in zip(runs, rows, strict=True)
        ]
    return telling


def decides(run: Values) -> bool:
    """Say whether labels tell a run from others: one that failed has no number to be told apart."""
    return run["status"] == "done"


def distinct(runs: Iterable[Values], key: str) -> set:
    """Return the values that finished runs have."""
    return {run[key] for run in runs if decides(run) and run.get(key) is not None}


def written(runs: list[Values], keys: list[list[str]]) -> list[tuple[str, ...]]:
    """Return ("r=4", "κ+λ", "lr=0.001") for each run from its list of keys."""
    named = {key for shown in keys for key in shown}
    spelled = {key: _spelled(runs, key) for key in named}
    return [
        tuple(
            _form(run, key).format(spelled[key][value])
            for key in shown
            if (value := run.get(key)) is not None
        )
        for run, shown in zip(runs, keys, strict=True)
    ]


def _form(run: Values, key: str) -> str:
    """Return how an option stands in a label: "r={}"."""
    group, option = key.split(".")[1], key.rpartition(".")[2]
    word = run.get(f"config.{group}.name")
    if key in RECORDED_FORMS or word is None:
        return RECORDED_FORMS.get(key, option + "={}")
    if option == naming_option(run, group):
        return "{}"
    return forms(group, word).get(option, option + "={}")


def _spelled(runs: list[Values], key: str) -> dict[object, str]:
    """Return how values are written; of paths the last part, unless two share it; never a hash."""
    group, values = key.split(".")[1], {run[key] for run in runs if run.get(key) is not None}
    names = {run.get(f"config.{group}.name", "") for run in runs if key in run}
    symbols = {value: text for name in names for value, text in spelling(group, name).items()}
    full = {value: HASH.sub("", symbols.get(value, str(value))) for value in values}
    short = {value: text.rstrip("/").rpartition("/")[2] for value, text in full.items()}
    numbered = {value: f"{full[value]} [{i}]" for i, value in enumerate(sorted(full, key=str), 1)}
    told_apart = distinct(runs, key)
    for spelled in (short, full):
        if len({spelled[value] for value in told_apart}) == len(told_apart):
            return spelled
    return numbered
