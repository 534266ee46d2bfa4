"""How much each setting of a sweep trains, without weights and without data.

Models are built on the meta device: shapes only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from segsweep.base.config import Config, plain

if TYPE_CHECKING:
    from segsweep.peft.apply import Counts


@dataclass(frozen=True)
class SettingSize:
    """Counts of one setting."""

    model: str
    peft: str
    label: str
    classes: int
    counts: Counts


class Bases:
    """Models on the meta device, each built once."""

    def __init__(self) -> None:
        self.built: dict[str, Any] = {}

    def counts(self, config: Config, classes: int) -> dict[str, Counts]:
        """Count the parameters of a setting by the readings of its roles, the chosen one first."""
        import torch

        from segsweep.peft.apply import apply

        subject = config.data.subject(classes)
        key = json.dumps([plain(config.model), asdict(subject)])
        if key not in self.built:
            with torch.device("meta"):
                self.built[key] = config.model.build(subject)
        return {
            title: apply(copy.deepcopy(self.built[key]), config.peft, reading.roles)
            for title, reading in config.model.readings.items()
        }


def sizes(
    configs: Iterable[tuple[list[str], Config]], classes: Callable[[Config], int]
) -> list[SettingSize]:
    """Count every setting's parameters for as many classes as `classes` says.

    Runs that differ in their data or seed alone are one setting.
    """
    bases, rows = Bases(), dict[str, list[SettingSize]]()
    for overrides, config in configs:
        number = classes(config)
        parts = plain(config.model), asdict(config.data.subject(number)), plain(config.peft)
        if (key := json.dumps(parts)) in rows:
            continue
        label = " ".join(word[5:] for word in overrides if word.startswith("peft."))
        words = config.model.name, config.peft.name
        readings = [
            SettingSize(*words, f"{label} {title}".strip(), number, counts)
            for title, counts in bases.counts(config, number).items()
        ]
        if len({row.counts for row in readings}) == 1:
            readings = [replace(readings[0], label=label)]
        rows[key] = readings
    return [row for readings in rows.values() for row in readings]
