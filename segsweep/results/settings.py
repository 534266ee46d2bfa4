"""Which runs belong together: the models, rows (settings) and columns (data sets) of a table.

Runs are averaged only if they differ in nothing but seed and repeat. Any other difference is found
by comparing the recorded configs and becomes part of a label, so a new method or option needs no
entry here: what a word is called it declares itself, see wording.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, fields
from functools import cache

from segsweep.base.fields import default_of, plain
from segsweep.base.words import GROUPS
from segsweep.results.details import (
    OUTSIDE,
    decides,
    details_of,
    distinct,
    family_of,
    keys_of,
    naming_option,
    telling_keys,
    written,
)
from segsweep.results.wording import (
    Values,
    class_of,
    declared,
    natural,
    published_place,
)

# Beside the config: what a run is about, as far as it is known, and whether it decides on labels.
ABOUT = (
    *("config.model.name", "config.peft.name", "config.data.name"),
    *("model", "data_set", "data.fingerprint", "data.classes", "status"),
)
SAID = re.compile(r"[#&](knows|larger|licence|megabytes)=[^&]*")
"""What words say of weights to people (model/files.py)."""


@dataclass(frozen=True)
class LabelledRun:
    """One run and its place in the tables; `setting` is the family with details in parentheses.

    A detail is one option, "r=4", whose value may hold commas; `reference` says whether other
    methods are compared with its own.
    """

    values: Values
    method: str
    family: str
    details: tuple[str, ...]
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
    def detail(self) -> str:
        """All details as they are read."""
        return ", ".join(self.details)

    @property
    def setting(self) -> str:
        """The label of the run's row, "LoRA (r=4)"."""
        return in_parentheses(self.family, self.detail)


def locate(runs: list[Values]) -> list[Values]:
    """Say of every run of ours what it is about: model, architecture, backbone, data set.

    They join the recorded values as columns of the frame, `origin` with them.
    """
    _unite_weights(runs)
    _fill(runs)
    kinds, examples = _kinds(runs)
    keys = keys_of(examples)
    models = _labels(examples, "model", keys)
    data_sets = _data_sets(examples, keys, _begun(runs, kinds))
    for run, kind in zip(runs, kinds, strict=True):
        run |= {"origin": "ours", "model": models[kind], **data_sets[kind]}
        run |= _anatomy(run, models[kind])
    return runs


def _unite_weights(runs: list[Values]) -> None:
    """Let base weights of one content have one name, wherever the file lay when a run began.

    What their words say of them beside their content tells no runs apart.
    """
    key, names = "config.model.weights", {}
    for run in runs:
        content, place = run.get("weights.sha256"), run.get(key)
        if place and SAID.search(place):
            place = run[key] = SAID.sub("", place)
        if content and place and "://" not in place:
            name = place.partition("#")[0].replace("\\", "/").rpartition("/")[2]
            run[key] = names.setdefault(content, f"{name}#sha256={content}")


def _fill(runs: list[Values]) -> None:
    """Let runs of earlier versions have the neutral values of options that came after them.

    That is of options which other runs have.
    """
    had = {key for shape in dict.fromkeys(map(tuple, runs)) for key in shape}
    for run in runs:
        for group in GROUPS:
            for key, value in _neutral(group, str(run.get(f"config.{group}.name"))).items():
                if key in had:
                    run.setdefault(key, value)


@cache
def _neutral(group: str, word: str) -> Values:
    """Return the options of a word that are no part of a run at their defaults, with these."""
    kind = class_of(group, word)
    options = [f for f in fields(kind) if f.metadata.get("neutral")] if kind else []
    values = {f"config.{group}.{f.name}": plain(default_of(f)) for f in options}
    return {key: value for key, value in values.items() if not isinstance(value, dict)}


def _begun(runs: list[Values], kinds: list[int]) -> list[str]:
    """Return when the first run of each kind began."""
    first: dict[int, str] = {}
    for run, kind in zip(runs, kinds, strict=True):
        started = str(run.get("started") or "")
        first[kind] = min(first.get(kind, started), started)
    return [first[kind] for kind in range(len(first))]


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
    keys = keys_of(examples)
    details = details_of(examples, "peft", keys)
    families = [family_of(run, "peft") for run in examples]
    models, cells = ([run[key] for run in examples] for key in ("model", "data_set"))
    rows = list(zip(models, methods, families, details, strict=True))
    # what else runs of the same cell disagree on, apart from seeds and places of files
    others = [key for key in keys if not key.startswith(("config.peft.", "config.model."))]
    others = [key for key in others if not any("/" in str(v) for v in distinct(examples, key))]
    more = written(examples, telling_keys(examples, others, rows, cells))
    details = [a + b for a, b in zip(details, more, strict=True)]
    references = [_is_reference(run) for run in examples]
    places = list(zip(methods, families, details, references, strict=True))
    return [LabelledRun(run, *places[kind]) for run, kind in zip(runs, kinds, strict=True)]


def _is_reference(run: Values) -> bool:
    installed = declared("peft", run["config.peft.name"]).get("reference", False)
    return bool(run.get("config.peft.reference", installed))


def order(run: LabelledRun) -> tuple:
    """Return the sort key of a row: the studies' order of methods, then numbers as numbers."""
    details = natural(run.detail, short_first=True)
    return published_place(run.method), run.method, natural(run.family), details


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


def _labels(runs: list[Values], group: str, keys: list[str]) -> list[str]:
    """Return what each run's word of a config group is called, with its details."""
    return [
        in_parentheses(family_of(run, group), ", ".join(details)) or run[f"config.{group}.name"]
        for run, details in zip(runs, details_of(runs, group, keys), strict=True)
    ]


def _data_sets(runs: list[Values], keys: list[str], begun: list[str]) -> list[Values]:
    """Return what each run's data set is called: same content, same label, wherever it lies.

    Several contents of one name are its versions, numbered by when a run first began on them; the
    first has the name alone. `data.title` is the name where versions have labels of their own.
    """
    places = [str([v for k, v in run.items() if k.startswith("config.data.")]) for run in runs]
    contents = _contents(runs)
    # a run that failed before it read its data is known by the same words in another run
    known = {place: content for place, content in zip(places, contents, strict=True) if content}
    contents = [c or known.get(place, place) for c, place in zip(contents, places, strict=True)]
    # of runs on the same content, one whose data have a name comes last and names them
    by_place = [bool(naming_option(run, "data")) for run in runs]
    examples = {contents[i]: runs[i] for i in sorted(range(len(runs)), key=lambda i: -by_place[i])}
    titles = dict(zip(examples, _labels(list(examples.values()), "data", keys), strict=True))
    # a folder may be called like a set that has a name, and is not that set
    named = {content for content, run in examples.items() if not naming_option(run, "data")}
    taken = {titles[content] for content in named}
    titles = {c: f"folder {t}" if t in taken and c not in named else t for c, t in titles.items()}
    versions: dict[str, dict[Hashable, None]] = defaultdict(dict)
    for i in sorted(range(len(runs)), key=lambda i: (begun[i], str(contents[i]))):
        if decides(runs[i]):
            versions[titles[contents[i]]][contents[i]] = None
    return [_versioned(titles[c], c, [*versions[titles[c]]]) for c in contents]


def _contents(runs: list[Values]) -> list[Hashable]:
    """Return fingerprint and classes of each run's data, as far as they are known."""
    key, also = "data.fingerprint", "data.classes"
    classes = {run[key]: run[also] for run in runs if run.get(key) and run.get(also)}
    return [(c, run.get(also) or classes.get(c)) if (c := run.get(key)) else None for run in runs]


def _versioned(title: str, content: Hashable, versions: list[Hashable]) -> Values:
    """Return the label of a data set; what a failed run would have read is taken for the newest."""
    number = versions.index(content) + 1 if content in versions else len(versions)
    if len(versions) < 2:
        return {"data_set": title}
    return {"data_set": f"{title}, version {number}" if number > 1 else title, "data.title": title}
