"""Warnings are lines for users: without a file, a line number and a category of Python's."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest

import segsweep
from segsweep.base.errors import UserError
from segsweep.base.remarks import loading_told, plainly
from tests.small_coco import content, write
from tests.spoken import answers

SOURCE = re.compile(r"\.py:\d+: |\w+Warning: |warnings\.warn\(")
"""What Python prints of a warning where nobody says how."""


def unusable(folder: Path) -> str:
    """Write a set with an object that is left out; return the word that names it."""
    train = content()
    train["annotations"][0]["segmentation"] = [[1, 1]]
    write(folder, train=train)
    return f"data.root={folder}"


def test_warnings_of_verbs_are_lines(tmp_path: Path) -> None:
    word = unusable(tmp_path / "set")
    lines = [["plan", "data=coco", word], ["data=coco", word, "data.slices=[site]"]]
    for line, answer in answers(lines, tmp_path).items():
        text = answer.out + answer.err
        assert not SOURCE.search(text), line
        assert text.count("warning: ") == text.count("1 annotations left out") == 1, text


def test_warnings_in_a_notebook_are_lines(tmp_path: Path, capsys) -> None:
    word = unusable(tmp_path)
    with pytest.raises(UserError, match="no column"):
        segsweep.train("data=coco", word, "data.slices=[site]")
    told = capsys.readouterr().err
    assert not SOURCE.search(told)
    assert told.count("warning: ") == told.count("1 annotations left out") == 1


def test_a_warning_is_told_once_and_as_long_as_it_regards_users(capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with plainly(), plainly():
            for _ in range(2):
                warnings.warn("first\nsecond", stacklevel=1)
                warnings.warn("called\x1b[31m wrongly\nstack", RuntimeWarning, stacklevel=1)
                warnings.warn("the dataloader does not have many workers", stacklevel=1)
    assert capsys.readouterr().err == "warning: first\n  second\nwarning: called wrongly\n"


def test_torch_is_announced_on_a_terminal_only(monkeypatch, capsys) -> None:
    before = [*sys.meta_path]
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with loading_told():
            if terminal:
                assert sys.meta_path[0].find_spec("torchvision") is None
                assert sys.meta_path[0].find_spec("torch") is None
        assert capsys.readouterr().err == ("loading torch ...\n" if terminal else "")
        assert sys.meta_path == before
