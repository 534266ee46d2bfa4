"""What all tests share: folders of words that one test names are no other test's."""

from __future__ import annotations

import pytest

from segsweep.base.words import FOLDERS, own_folders


@pytest.fixture(autouse=True)
def _folders_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the folders that a test names, when it ends."""
    monkeypatch.setenv(FOLDERS, ":".join(map(str, own_folders())))
