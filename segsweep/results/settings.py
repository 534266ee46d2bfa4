"""Which runs belong together: the models, rows (settings) and columns (data sets) of a table.

Runs are averaged only if they differ in nothing but seed and repeat. Any other difference is found
by comparing the recorded configs and becomes part of a label, so a new method or option needs no
entry here: what a word is called it declares itself, see wording.py.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from segsweep.results.wording import (
    RECORDED_FORMS,
    Values,
    class_of,
    declared,
    forms,
    label_of,
    naming_options,
    natural,
    published_place,
    spelling,
)

# Keys that name a choice or cannot change a result never separate runs; hparams.lr and .clip follow
# peft.lr and model.clip.
OUTSIDE = re.compile(
    r"config\.(seed|repeat|force|peft\.lr|model\.clip|trainer\.cache_features"
    r"|data\.slices|io\..*|logger\..*|.*_target_|\w+\.name|.*\.label|peft\.reference)$"
)

# Beside the config: what a run is about, as far as it is known.
ABOUT = (
    *("config.model.name", "config.peft.name", "config.data.name"),
    *("model", "data_set", "data.fingerprint"),
)


@dataclass(frozen=True)
class LabelledRun:
    """One run and its place in the tables; `setting` is the family with details in parentheses.

    `reference` says whether other methods are compared with its own.
    """

    values: Values
    method: str
    family: str
    detail: str
    reference: bool

    @property
    def model(self) -> str:
        """What its model is called."""
        return self.values["model"]

    @property
    def data_set(self) -> str:
        """What its data set is called."""
        return self.values["data_set"]

    @property
    def setting(self) -> str:
        """The label of the run's row, "LoRA (r=4)"."""
        return in_parentheses(self.family, self.detail)


def locate(runs: list[Values]) -> list[Values]:
    """Say of every run of ours what it is about: model, architecture, backbone, data set.

    They join the recorded values as columns of the frame, `origin` with them.
    """
    kinds, examples = _kinds(runs)
    keys = _keys(examples)
    models, data_sets = _labels(examples, "model", keys), _data_sets(examples, keys)
    for run, kind in zip(runs, kinds, strict=True):
        run |= {"origin": "ours", "model": models[kind], "data_set": data_sets[kind]}
        run |= _anatomy(run, models[kind])
    return runs


def _anatomy(run: Values, model: str) -> Values:
    """Return architecture and backbone; a model whose backbone has no name is its own kind."""
    word = run["config.model.name"]
    installed = declared("model", word).get("backbone") or {}
    backbone = run.get("config.model.backbone.label", installed.get("label", ""))
    architecture = getattr(class_of("model", word), "architecture", "") if backbone else ""
    return {"architecture": architecture or model, "backbone": backbone if architecture else ""}


def arrange(runs: list[Values]) -> list[LabelledRun]:
    """Find the place of every run among these; what tells them apart is part of their labels."""
    kinds, examples = _kinds(runs)
    methods = [run["config.peft.name"] for run in examples]
    keys = _keys(examples)
    details = _details(examples, "peft", keys)
    models, cells = ([run[key] for run in examples] for key in ("model", "data_set"))
    rows = list(zip(models, methods, details, strict=True))
    # what else runs of the same cell disagree on, apart from seeds and places of files
    others = [key for key in keys if not key.startswith(("config.peft.", "config.model."))]
    others = [key for key in others if not any("/" in str(run.get(key)) for run in examples)]
    details = _joined(details, _shown(examples, _differing(examples, others, rows, cells)))
    families = [_family(run, "peft") for run in examples]
    references = [_is_reference(run) for run in examples]
    places = list(zip(methods, families, details, references, strict=True))
    return [LabelledRun(run, *places[kind]) for run, kind in zip(runs, kinds, strict=True)]


def _is_reference(run: Values) -> bool:
    installed = declared("peft", run["config.peft.name"]).get("reference", False)
    return bool(run.get("config.peft.reference", installed))


def order(run: LabelledRun) -> tuple:
    """Return the sort key of a row: the studies' order of methods, then numbers as numbers."""
    return published_place(run.method), run.method, natural(run.detail, short_first=True)


def in_parentheses(family: str, detail: str) -> str:
    """Return "LoRA (r=4)", or the one of the two that is there."""
    return f"{family} ({detail})" if family and detail else family or detail


def _kinds(runs: list[Values]) -> tuple[list[int], list[Values]]:
    """Return the number of each run's kind, and the first run of every kind.

    Runs of a kind differ in seeds and results only, so they share a place. Kinds are few, however
    many the runs: what takes many looks at every key is done for the examples alone.
    """
    shapes = dict.fromkeys(map(tuple, runs))
    config = dict.fromkeys(key for keys in shapes for key in keys if key.startswith("config."))
    fields = (*ABOUT, *(key for key in config if not OUTSIDE.match(key)))
    numbers: dict[tuple, int] = {}
    kinds = [numbers.setdefault(tuple(map(run.get, fields)), len(numbers)) for run in runs]
    examples = dict(zip(reversed(kinds), reversed(runs), strict=True))
    return kinds, [examples[kind] for kind in numbers.values()]


def _label(run: Values, group: str) -> str:
    """Return the label of a run's word, as recorded or as installed."""
    return run.get(f"config.{group}.label") or label_of(group, run[f"config.{group}.name"])


def _family(run: Values, group: str) -> str:
    """Return what a run's word of a config group is called; nothing if an option names it."""
    label = _label(run, group) or run[f"config.{group}.name"]
    return "" if naming_options(label) else label


def _naming_option(run: Values, group: str) -> str:
    """Return the option whose value a run's word of a config group is called by, if one is."""
    options = naming_options(_label(run, group))
    return next((option for option in options if run.get(f"config.{group}.{option}")), "")


def _labels(runs: list[Values], group: str, keys: list[str]) -> list[str]:
    """Return what each run's word of a config group is called, with its details."""
    return [
        in_parentheses(_family(run, group), detail) or run[f"config.{group}.name"]
        for run, detail in zip(runs, _details(runs, group, keys), strict=True)
    ]


def _details(runs: list[Values], group: str, keys: list[str]) -> list[str]:
    """Return "r=4" and the like: the options always shown, then those on which runs disagree.

    With alpha = r throughout, alpha is not mentioned; beside a run with alpha = 2r it is.
    """
    names = [run[f"config.{group}.name"] for run in runs]
    always = [[f"config.{group}.{key}" for key in _always(run, group)] for run in runs]
    details = _shown(runs, always)
    alike = list(zip(names, details, strict=True))
    options = [key for key in keys if key.startswith(f"config.{group}.")]
    differing = _differing(runs, options, alike, [""] * len(runs))
    return _joined(details, _shown(runs, differing))


def _always(run: Values, group: str) -> list[str]:
    """Return the options that a run's label always shows: by its class, if that is installed."""
    word, option = run[f"config.{group}.name"], _naming_option(run, group)
    shown = forms(group, word) if class_of(group, word) else ()
    return [*([option] if option else []), *shown]


def _data_sets(runs: list[Values], keys: list[str]) -> list[str]:
    """Return the label of each run's data set: same content, same label, wherever it lies."""
    places = [str([v for k, v in run.items() if k.startswith("config.data.")]) for run in runs]
    contents = [run.get("data.fingerprint") for run in runs]
    # a run that failed before it read its data is known by the same words in another run
    known = {place: content for place, content in zip(places, contents, strict=True) if content}
    contents = [c or known.get(place, place) for c, place in zip(contents, places, strict=True)]
    # of runs on the same content, one whose data have a name comes last and names them
    by_place = [bool(_naming_option(run, "data")) for run in runs]
    order = sorted(range(len(runs)), key=by_place.__getitem__, reverse=True)
    examples = {contents[i]: runs[i] for i in order}
    labels = dict(zip(examples, _labels(list(examples.values()), "data", keys), strict=True))
    # a folder may be called like a set that has a name: this keeps it
    named = {c for c, run in examples.items() if not _naming_option(run, "data")}
    of_named, of_all = Counter(map(labels.__getitem__, named)), Counter(labels.values())
    uses = {c: (of_named if c in named else of_all)[label] for c, label in labels.items()}
    return [labels[c] if uses[c] == 1 else f"{labels[c]} {c[:6]}" for c in contents]


def _keys(runs: list[Values]) -> list[str]:
    """Return the keys of the config that differ between runs and can change a result."""
    first: Values = {}
    differing: set[str] = set()
    for run in runs:
        differing |= {k for k, value in run.items() if first.setdefault(k, value) != value}
    chosen = (key for key in first if key in differing and key.startswith("config."))
    return [key for key in chosen if not OUTSIDE.match(key)]


def _differing(
    runs: list[Values], keys: list[str], rows: Sequence[Hashable], cells: list[str]
) -> list[list[str]]:
    """Return, for each run, the keys that tell it from others of its row in the same cell.

    Keys are taken in turn and split rows into smaller ones, so a key that follows from earlier
    ones (alpha from the rank) is left out. A gap agrees with every value.
    """
    telling: list[list[str]] = [[] for _ in runs]
    for key in (key for key in keys if len(_distinct(runs, key)) > 1):
        values: dict[Hashable, set] = defaultdict(set)
        for run, place in zip(runs, zip(rows, cells, strict=True), strict=True):
            if (value := run.get(key)) is not None:
                values[place].add(value)
        split = {row for row, cell in zip(rows, cells, strict=True) if len(values[row, cell]) > 1}
        for shown, row in zip(telling, rows, strict=True):
            shown += [key] * (row in split)
        rows = [
            (row, run.get(key)) if row in split else row
            for run, row in zip(runs, rows, strict=True)
        ]
    return telling


def _distinct(runs: Iterable[Values], key: str) -> set:
    return {run[key] for run in runs if run.get(key) is not None}


def _shown(runs: list[Values], keys: list[list[str]]) -> list[str]:
    """Return "r=4, κ+λ, lr=0.001" for each run from its list of keys."""
    named = {key for shown in keys for key in shown}
    spelled = {key: _spelled(runs, key) for key in named}
    return [
        ", ".join(
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
    if option == _naming_option(run, group):
        return "{}"
    return forms(group, word).get(option, option + "={}")


def _spelled(runs: list[Values], key: str) -> dict[object, str]:
    """Return how values are written; of paths the last part, unless two share it."""
    group, values = key.split(".")[1], _distinct(runs, key)
    names = {run.get(f"config.{group}.name", "") for run in runs if key in run}
    symbols = {value: text for name in names for value, text in spelling(group, name).items()}
    full = {value: symbols.get(value, str(value)) for value in values}
    short = {value: text.rstrip("/").rpartition("/")[2] for value, text in full.items()}
    return short if len(set(short.values())) == len(values) else full


def _joined(left: list[str], right: list[str]) -> list[str]:
    return [", ".join(part for part in pair if part) for pair in zip(left, right, strict=True)]
