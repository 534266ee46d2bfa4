"""Which runs have a setting of a sweep (`conf/sweep/<name>.yaml`), for tables of these."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from segsweep.results.frame import flatten
from segsweep.results.wording import Values

if TYPE_CHECKING:
    from segsweep.base.config import Config


Word = tuple[str, str]
"""The word of a model, and that of a method."""


def asked_by(sweep: str, runs: list[Values]) -> list[Values]:
    """Return the runs whose model a sweep has with their method and all its options.

    Data, recipe and seeds are not looked at.

    Raises UserError for a sweep that there is not, or that cannot be composed.
    """
    settings = _settings(sweep, {_word(run) for run in runs}) if runs else {}
    return [
        run
        for run in runs
        if any(
            all(run.get(key, value) == value for key, value in options.items())
            for options in settings[_word(run)]
        )
    ]


def _settings(sweep: str, words: set[Word]) -> dict[Word, list[Values]]:
    """Compose the settings that a sweep has of some models and methods; return their options."""
    from segsweep.base.errors import Unfit
    from segsweep.base.explain import explained
    from segsweep.sweeps.sweeper import composer, composing

    wanted = [{f"model={model}", f"peft={peft}"} for model, peft in words]
    settings: dict[Word, list[Values]] = {word: [] for word in words}
    composed: set[tuple[str, ...]] = set()
    with explained(), composing([f"+sweep={sweep}"]) as (_, combinations):
        compose = composer()
        for combination in combinations:
            setting = tuple(w for w in combination if w.startswith(("model", "peft")))
            named = {w for w in setting if w.startswith(("model=", "peft="))}
            if setting in composed or not any(named <= both for both in wanted):
                continue
            try:
                config = compose(combination)
            except Unfit:  # with the data of this combination
                continue
            composed.add(setting)
            word = config.model.name, config.peft.name
            settings.setdefault(word, []).append(_options(config))
    return settings


def _word(run: Values) -> Word:
    return run["config.model.name"], run["config.peft.name"]


def _options(config: Config) -> Values:
    """Return the options of a method that can change a result, as the frame has them."""
    from segsweep.base.config import plain

    options = {
        f.name: plain(getattr(config.peft, f.name))
        for f in fields(config.peft)
        if not f.metadata.get("outside")
    }
    return flatten({"config": {"peft": options}})
