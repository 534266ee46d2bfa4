"""Several methods in one model, each at its places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from segsweep.base.config import identity, plain, within
from segsweep.base.errors import UserError
from segsweep.peft.method import Method

if TYPE_CHECKING:
    from segsweep.data.base import DataSet
    from segsweep.model.family import Family
    from segsweep.peft.places import Places
    from segsweep.peft.sites import Taken

Shapes = dict[str, tuple[int, ...]]


@dataclass
class Hybrid(Method):
    """All of `parts` at once, each a word of `conf/peft`, or a word and the options that differ.

    [ia3, {name: lora, rank: 4, scope: backbone}, {name: adapter, scope: decoder}], say: adapters
    and LoRA together, or LoRA of two ranks (future work of the paper on adapters and LoRA for Mask
    DINO and SEEM). A weight is edited by one part, a seam filled by one. Parameters add up; what
    any part trains of the base trains; edits merge, fillings stay. `scope` holds for parts that
    have none of their own, `lr` for all.
    """

    parts: list[Any] = within(default_factory=list, least=-math.inf)

    def __post_init__(self) -> None:
        self.methods = [part(i, given) for i, given in enumerate(self.parts)]
        self.parts = [identity(method) for method in self.methods]
        self.train = list(dict.fromkeys(w for m in (self, *self.methods) for w in m.train))
        self.label = self.label or " + ".join(map(described, self.methods))

    @property
    def identity(self) -> bool:
        """Whether every part leaves the outputs unchanged."""
        return all(method.identity for method in self.methods)

    @property
    def mergeable(self) -> bool:
        """Whether every part can be folded into the weights."""
        return all(method.mergeable for method in self.methods)

    @property
    def has_auxiliary_loss(self) -> bool:  # type: ignore[override]
        """Whether a part has."""
        return any(method.has_auxiliary_loss for method in self.methods)

    @property
    def detached(self) -> bool:  # type: ignore[override]
        """Whether a part is."""
        return any(method.detached for method in self.methods)

    @property
    def sparse(self) -> bool:  # type: ignore[override]
        """Whether a part is."""
        return any(method.sparse for method in self.methods)

    def check(self, data: DataSet, model: Family) -> None:
        """Raise UserError as every part does, and without parts."""
        super().check(data, model)
        if not self.methods:
            raise UserError("peft.parts=[]: name some, as in peft.parts=[{name: lora, rank: 4}]")
        for i, method in enumerate(self.methods):
            try:
                method.check(data, model)
            except UserError as error:
                raise type(error)(f"peft.parts.{i}: {error}") from error

    def inject(self, places: Places) -> Shapes:
        """Let every part add its own, see `Method.inject`; names begin with the part's number.

        Raises UserError where two parts edit one weight, or fill one seam.
        """
        from segsweep.model.layers.seam import seams
        from segsweep.peft.apply import refuse_blind
        from segsweep.peft.places import Places
        from segsweep.peft.sites import Taken

        shapes: Shapes = {}
        model, number = places.model, dict.fromkeys(places.model.modules(), -1)
        for i, method in enumerate(self.methods):
            try:
                own = method.inject(Places(model, places.roles, method.scope or self.scope))
            except Taken as taken:
                if (other := number.get(taken.by, -1)) < 0:
                    raise
                raise self._overlap(other, i, taken) from taken
            except UserError as error:
                raise type(error)(f"peft.parts.{i}: {error}") from error
            its = {n: seam for n, seam in seams(model).items() if seam.filling not in number}
            refuse_blind(method, its)
            number |= {module: i for module in model.modules() if module not in number}
            shapes |= {f"{i}/{name}": shape for name, shape in own.items()}
        return shapes

    def _overlap(self, first: int, second: int, taken: Taken) -> UserError:
        """Say which two parts are at one place."""
        parts = [f"{i} ({described(self.methods[i])})" for i in (first, second)]
        return UserError(
            f"peft.parts: '{taken.place}' would be {taken.how} by {' and '.join(parts)}; give them "
            "places apart, by their scope, say, or their targets, or leave one out"
        )

    def once(self, places: Mapping[str, tuple[int, ...]]) -> int:
        """Count what every part adds, by its own formula."""
        count = 0
        for i, method in enumerate(self.methods):
            own = {n.partition("/")[2]: s for n, s in places.items() if n.startswith(f"{i}/")}
            count += method.once(own) + sum(map(method.size, own.values()))
        return count


def part(number: int, given: Any) -> Method:
    """Return the method that a part describes.

    Raises UserError for an unknown word, unknown keys, wrong values and what is of the whole.
    """
    from segsweep.base.nested import chosen

    place, given = f"peft.parts.{number}", {"name": given} if isinstance(given, str) else given
    if not isinstance(given, dict) or "name" not in given:
        raise UserError(f"{place}={given}: names no method; say {{name: lora, rank: 4}}, or lora")
    method = chosen("peft", place, given)
    assert isinstance(method, Method)
    for f in fields(method):
        if f.metadata.get("outside") and f.name in given:
            raise UserError(f"{place}.{f.name}: parts have one in common; say peft.{f.name}=...")
    return method


def described(method: Method) -> str:
    """Call a method by its label, the options that labels show, and those that were given."""
    shown = {key: plain(getattr(method, key)) for key in method.shown}
    usual = vars(part(0, {"name": method.name, **shown}))
    given = {key: method.spelling.get(v, v) for key, v in shown.items() if v is not None}
    words = [method.shown[key].format(value) for key, value in given.items()]
    for f in fields(method):
        value = getattr(method, f.name)
        if not f.metadata.get("outside") and f.name not in shown and value != usual[f.name]:
            text = "|".join(map(str, value)) if isinstance(value, list) else plain(value)
            words.append(f"{f.name}={text}")
    return " ".join([method.label or method.name, *words])
