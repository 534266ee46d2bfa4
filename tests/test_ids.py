"""Runs keep their names: the ids of a few configs, as they were when results were first kept."""

from __future__ import annotations

import pytest

from segsweep.base.config import compose, fingerprint, plain

IDS = {
    "model=maskdino_tiny peft=lora": "40b0f6e6f775",
    "model=maskdino_tiny peft=adapter": "65a435b25698",
    "model=maskdino_r50 peft=full_head": "0d05ed9b7151",
    "model=maskdino_swinl peft=decoder_only": "7a97c210ff90",
    "model=seem_tiny peft=lora": "c5cbb1ab08d8",
    "model=seem_focall peft=embeddings_only": "5df499246b0b",
    "model=seem_focalt peft=frozen": "65cc88406c7d",
    "peft=lora peft.init=xavier peft.fused=joint": "ca5a0f166312",
    "peft=adapter peft.residual=lambda peft.init=bert": "d1b38b1f28ad",
    "model=seem_tiny model.text_encoder=trained": "e04412dab1cc",
    "model.backbone.layout=focal_dw model.backbone.drop_path=0.1": "55400cacc792",
    "model.loss.ce=3": "f98cea1870e0",
}


@pytest.mark.parametrize("line", IDS)
def test_runs_keep_their_names(line: str) -> None:
    assert fingerprint(compose(["data=digits", *line.split()])) == IDS[line]


def test_words_stand_in_configs_as_they_did() -> None:
    config = compose(["model=maskdino_swinl", "data=digits"])
    assert plain(config)["model"]["backbone"]["layout"] == "swin"
