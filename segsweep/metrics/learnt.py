"""Whether a value shows that anything was learnt: one rule for runs, tables, reports, decisions.

Average precision and its like begin at 0 for who finds nothing, so what stays below a point of
percent is no model yet, and differences between such values are none between methods. Of metrics
in which less is better, and of those that are no percentages, this says nothing: there a frozen
base tells. Nothing is imported here.
"""

from __future__ import annotations

FLOOR = 1.0  # points of a metric in percent
CURES = (
    "More epochs (hparams.epochs), a larger learning rate (hparams.lr) or a base that knows such "
    "images (model) may help."
)


def learnt(value: float, unit: str, direction: str, floor: float = FLOOR) -> bool:
    """Say whether a value is not so low that nothing can have been learnt."""
    return unit != "%" or direction != "higher" or value >= floor
