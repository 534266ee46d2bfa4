"""The page of methods says of every word what its method says of itself."""

import re
from contextlib import suppress
from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.base.errors import Unfit
from segsweep.base.words import files

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \|.*\| (any|blocks) \| (yes|no) \| (yes|no) \|$", re.MULTILINE)
MODELS = (["model=maskdino_tiny", "data=digits"], ["model=sam_tiny", "data=digits_binary"])


def test_every_method_stands_there_once():
    assert sorted(row[0] for row in ROW.findall(PAGE)) == sorted(files("peft"))


@pytest.mark.parametrize(("word", "where", "base", "merges"), ROW.findall(PAGE))
def test_what_is_said_of_it_is_true(word, where, base, merges):
    methods = []
    for words in MODELS:
        with suppress(Unfit):
            methods.append(compose([f"peft={word}", *words]).peft)
    assert ("any" if len(methods) == len(MODELS) else "blocks") == where
    assert (methods[0].identity, methods[0].mergeable) == (base == "yes", merges == "yes")
