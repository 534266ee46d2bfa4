"""Fields of config classes: what they say of a run's identity, and which values they may have.

A number is finite and not negative unless its field declares another range. Nothing imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING as ABSENT
from dataclasses import Field, field, fields, is_dataclass
from enum import Enum
from typing import Any

from segsweep.base.errors import UserError


def within(default: Any = ABSENT, *, default_factory: Any = ABSENT, **facts: Any) -> Any:
    """Declare a field with facts: the range of its numbers, and what stands for it in identities.

    `least=1` or `above=0` begins the range, `below=1` ends it. `identity=function` gives of a value
    what a run's identity holds in its place: of a path, say, what the file holds.
    """
    return field(default=default, default_factory=default_factory, metadata=facts)


def outside(default: Any = ABSENT, *, default_factory: Any = ABSENT, **facts: Any) -> Any:
    """Declare a field that cannot change a result, hence is no part of a run's identity."""
    return within(default, default_factory=default_factory, outside=True, **facts)


def neutral(default: Any = ABSENT, *, default_factory: Any = ABSENT, **facts: Any) -> Any:
    """Declare a field that is left out of a run's identity while it has its default value.

    Options that are added later are declared so: old runs keep their names. As in `field`, lists
    and dicts come from a `default_factory`.
    """
    return within(default, default_factory=default_factory, neutral=True, **facts)


def default_of(f: Field[Any]) -> Any:
    """Return the default value of a dataclass field."""
    return f.default if f.default_factory is ABSENT else f.default_factory()


def plain(value: Any) -> Any:
    """Return nested dicts, lists and words of a typed config, ready for YAML and JSON.

    What OmegaConf is to ignore is no part of it: other words decide it.
    """
    if isinstance(value, Enum):
        return value.name
    if is_dataclass(value):
        named = [f.name for f in fields(value) if not f.metadata.get("omegaconf_ignore")]
        return {name: plain(getattr(value, name)) for name in named}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def check(value: Any, place: str = "") -> None:
    """Refuse values of a typed config that lie outside of what their fields declare.

    Raises UserError naming the key, which begins with `place`, its value and what it may be.
    """
    for f in fields(value):
        item, key = getattr(value, f.name), place + f.name
        if is_dataclass(item):
            check(item, f"{key}.")
            continue
        for number in numbers(item):
            if reason := objection(number, f.metadata):
                several = "" if number is item else "each "
                raise UserError(f"{key}={plain(item)}: {several}must {reason}")
        refuse_references(item, key)


def numbers(value: Any) -> Iterator[int | float]:
    """Yield the numbers in nested dicts and lists."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def objection(number: float, facts: Any) -> str | None:
    """Return what a number must be that it is not, by the facts of its field."""
    least = facts.get("least", -math.inf if "above" in facts else 0)
    above, below = facts.get("above", -math.inf), facts.get("below", math.inf)
    if not math.isfinite(number):
        return "be a finite number"
    if number < least:
        return f"be at least {least}" if least else "not be negative"
    if number <= above:
        return f"be more than {above}"
    return f"be less than {below}" if number >= below else None


def refuse_references(value: Any, place: str) -> None:
    """Refuse `${...}` in nested dicts and lists: a config that is resolved holds no reference.

    What a file from elsewhere refers to, a variable of the environment, say, is never looked up.
    Raises UserError naming `place`.
    """
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            refuse_references(item, place)
    elif isinstance(value, str) and "${" in value:
        raise UserError(
            f"{place}: {value!r} is a reference, which a resolved config does not hold; it was not "
            "looked up. Write the value itself"
        )
