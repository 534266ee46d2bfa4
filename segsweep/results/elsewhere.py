"""Runs on data that they were not trained on, beside what they reach on their own.

Records of the verb `evaluate` are no runs: tables have them where their specification asks for it.
Here each stands in the row of the setting that it judges, and seeds are those of its run.
"""

from __future__ import annotations

from collections.abc import Sequence

from segsweep.results.cells import Table
from segsweep.results.settings import locate
from segsweep.results.spec import KEY, Spec
from segsweep.results.tables import build
from segsweep.results.wording import Values

OWN, OTHER = "trained on", "unseen"  # in this order in the table
SHIFT = Spec(
    "elsewhere",
    title="On other data",
    caption="Runs on the data that they were trained on, and the same weights on others.",
    columns=["judged", "data_set"],
    split=["model", "trained_on"],
    metric=KEY,
)


def joined(spec: Spec, runs: Sequence[Values], elsewhere: Sequence[Values]) -> list[Values]:
    """Return runs and, where a table wants them, what others reach on sets that none is trained on.

    Of a model, a method and a set, runs that were trained on it are never averaged with others.
    """

    def place(run: Values) -> tuple:
        return tuple(run[f"config.{group}.name"] for group in ("data", "model", "peft"))

    if not spec.elsewhere:
        return [*runs]
    done = (r for r in runs if r["origin"] == "ours" and r["status"] == "done")
    trained = {place(run) for run in done if run.get("kind") != "bench"}
    return [*runs, *(one for one in elsewhere if place(one) not in trained)]


def shift_tables(runs: Sequence[Values], elsewhere: Sequence[Values]) -> list[Table]:
    """Return the tables of runs that were judged elsewhere, one for each model and training set."""
    judged = {one["judges.run"] for one in elsewhere}
    own = [dict(run) for run in runs if run["id"] in judged and run["status"] == "done"]
    known = {run["id"] for run in own}
    others = [dict(one) for one in elsewhere if one["judges.run"] in known]
    places = locate([*own, *others])
    trained_on = {run["id"]: run["data_set"] for run in own}
    for run in places:
        run["judged"] = OTHER if "judges.run" in run else OWN
        run["trained_on"] = trained_on[run.get("judges.run", run["id"])]
    return build(SHIFT, places)
