"""What a run says of itself at its end."""

from __future__ import annotations

from segsweep.base.config import compose
from segsweep.run.messages import unlearnt
from tests.records import record


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
