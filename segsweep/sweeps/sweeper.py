"""A sweep is a product of blocks; a block is a list of override lines in Hydra's sweep syntax.

    settings:                                        alternatives, one under the other
      - peft=full_head,decoder_only
      - peft=lora peft.rank=2,4,8,16
    seeds:                                           times
      - seed=0,1,2

An alternative may have blocks of its own in the place of a line: what is their product.

The command line narrows: `peft=lora` keeps the combinations that say so; a value that no
combination has takes the key's place where it stands; a new key is added to all.

Combinations whose words cannot go together, a method and a model without places for it, say, are
left out with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from omegaconf import DictConfig

from segsweep.base.config import Config
from segsweep.base.errors import Unfit, UserError
from segsweep.base.hydra_parts import initialized, parsed
from segsweep.base.overrides import readable
from segsweep.base.terminal import watched
from segsweep.base.words import without_folders
from segsweep.sweeps.composer import Composer

Combination = list[str]  # override strings of one run
Line = str | Mapping[str, Sequence[Any]]  # words, or blocks inside of a block
T = TypeVar("T")
MOST = 1_000_000  # runs of one command: their words alone take more than a gigabyte


def alternatives(words: Sequence[str]) -> dict[str, list[str]]:
    """Parse override words; `{"peft.rank": ["peft.rank=2", "peft.rank=4"]}` for `peft.rank=2,4`."""
    values: dict[str, list[str]] = {}
    for override in parsed(words):
        key = override.get_key_element()
        if override.is_sweep_override():
            swept = itertools.islice(override.sweep_string_iterator(), MOST)
            values[key] = [f"{key}={value}" for value in swept]
        else:
            values[key] = [str(override.input_line)]
    return values


def product(words: Sequence[str]) -> list[Combination]:
    """Expand one line: the product of its words' values."""
    return [list(choice) for choice in crossed(alternatives(words))]


def crossed(axes: Mapping[str, Sequence[T]]) -> Iterable[tuple[T, ...]]:
    """Return the product of axes. Raises UserError before there are `MOST` combinations."""
    sizes = {axis: len(values) for axis, values in axes.items()}
    if (total := math.prod(sizes.values())) >= MOST:
        named = ", ".join(f"{axis} ({size:,})" for axis, size in sizes.items() if size > 1)
        raise UserError(
            f"{total:,} runs or more, the product of {named}: a command starts fewer than "
            f"{MOST:,}; give fewer values, or the parts of the sweep by commands of their own"
        )
    return itertools.product(*axes.values())


def expand(
    blocks: Mapping[str, Sequence[Line]], command_line: Sequence[str] = ()
) -> list[Combination]:
    """Expand blocks times the command line into one list of overrides per run, duplicates once."""
    combinations = multiplied(blocks)
    added: dict[str, list[Combination]] = {}
    for key, words in alternatives(command_line).items():
        having = [c for c in combinations if any(word.startswith(f"{key}=") for word in c)]
        if having:
            combinations = narrow(having, key, words)
        else:
            added[key] = [[word] for word in words]
    every = crossed({"the sweep itself": combinations} | added)
    return distinct([list(itertools.chain(*parts)) for parts in every])


def multiplied(blocks: Mapping[str, Sequence[Line]]) -> list[Combination]:
    """Return the product of blocks, each the union of its lines and of blocks of its own."""
    unions = {name: [c for line in lines for c in _of_line(line)] for name, lines in blocks.items()}
    return [list(itertools.chain(*parts)) for parts in crossed(unions)]


def _of_line(line: Line) -> list[Combination]:
    return multiplied(line) if isinstance(line, Mapping) else product(shlex.split(str(line)))


def narrow(combinations: list[Combination], key: str, words: list[str]) -> list[Combination]:
    """Keep combinations that have one of `words`; put words that none has in the key's place."""
    having = [c for c in combinations if any(word in words for word in c)]
    new = [word for word in words if not any(word in c for c in combinations)]
    without = distinct([[w for w in c if not w.startswith(f"{key}=")] for c in combinations])
    return having + [[*c, word] for word in new for c in without]


def distinct(combinations: list[Combination]) -> list[Combination]:
    """Return each combination once, in order."""
    return [list(unique) for unique in dict.fromkeys(tuple(c) for c in combinations)]


def fitting(
    combinations: Sequence[Combination], compose: Callable[[Combination], T]
) -> Iterator[tuple[Combination, T]]:
    """Compose all combinations but those whose words cannot go together; print these at the end.

    On stderr it tells how far it is.

    Raises:
        UserError: words that mean nothing.
        Unfit: the reasons, where no combination would be left.
    """
    unfit: list[str] = []
    fit = 0
    for words in watched(combinations, len(combinations), "composing"):
        try:
            composed = compose(words)
        except Unfit as reason:
            unfit.append(str(reason))
            continue
        fit += 1
        yield words, composed
    if unfit and not fit:
        raise Unfit("\n".join(dict.fromkeys(unfit)))
    print(*left_out(unfit, len(unfit) + fit), sep="\n", end="\n" if unfit else "")


def left_out(reasons: Sequence[str], total: int) -> list[str]:
    """Return how many of all combinations are left out, and why, each reason once."""
    head, counts = f"{len(reasons)} of {total} combinations are left out:", Counter(reasons)
    if len(counts) < 2:
        return [f"{head} {reason}" for reason in counts]
    return [head, *(f"  {number}: {reason}" for reason, number in counts.items())]


@contextlib.contextmanager
def composing(arguments: Sequence[str]) -> Iterator[tuple[DictConfig, list[Combination]]]:
    """Set up Hydra for a command line; give its own config, and what each run would override."""
    import hydra

    words = [w for w in without_folders(arguments) if w not in ("-m", "--multirun")]
    words = readable(words)
    hydras = [w for w in words if w.startswith(("+sweep=", "hydra.", "hydra/", "+hydra"))]
    overrides = [word for word in words if word not in hydras]
    with initialized():
        whole = hydra.compose("train", overrides=hydras, return_hydra_config=True)
        yield whole, expand(whole.hydra.sweeper.blocks, overrides)


def configs(arguments: Sequence[str]) -> Iterator[tuple[Combination, Config]]:
    """Compose every run of a command line (`+sweep=table2 peft=lora`) without running any.

    Raises as `fitting`.
    """
    with composing(arguments) as (_, combinations):
        yield from fitting(combinations, composer())


def composer() -> Composer:
    """Return what composes the runs of a command line inside `composing`."""
    import hydra

    return Composer(partial(hydra.compose, "train"))
