"""What a run says of itself at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from segsweep.base.config import compose
from segsweep.model.family import weights_of
from segsweep.model.files import BaseWeights
from segsweep.run.messages import advise, unlearnt
from tests.records import record
from tests.small_coco import write


def test_a_run_that_learnt_nothing_says_so_and_what_may_help() -> None:
    config = compose(["hparams.epochs=3", "hparams.lr=2e-4"])
    metric = record("lora", 0.2)["metrics"]["segm_AP"]
    values = (0.2, 1.0, 40.0, None)
    said = {value: unlearnt(config, metric | {"value": value}) for value in values}
    assert [value for value, words in said.items() if words] == [0.2]
    for part in ("segm_AP is below 1", "hparams.epochs=3", "hparams.lr=0.0002", "maskdino_tiny"):
        assert part in said[0.2]
    assert unlearnt(config, metric | {"direction": "lower"}) == ""
    assert unlearnt(config, None) == ""


def test_pictures_that_the_base_does_not_know_are_said_with_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGSWEEP_WEIGHTS", raising=False)
    write(tmp_path / "set")
    low = record("lora", 0.2)["metrics"]["segm_AP"]
    for word in ("maskdino_tiny", "seem_tiny"):
        config = compose([f"model={word}", "data=coco", f"data.root={tmp_path / 'set'}"])
        larger = BaseWeights.of(config.model.weights or "").larger
        official = BaseWeights.of(weights_of(larger))
        host = official.place.split("/")[2]
        advise(config)
        for said in (capsys.readouterr().out.rstrip("\n"), unlearnt(config, low)):
            assert "\n" not in said
            assert f"model={larger} (fetches about {official.megabytes} MB from {host})" in said
    known = compose([])
    advise(known)
    assert not capsys.readouterr().out
    assert "fetches" not in unlearnt(known, low)
