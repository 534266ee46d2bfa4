"""Runs keep their names: the ids of a few configs, as they were when results were first kept."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from segsweep.base import content
from segsweep.base.config import compose, fingerprint, plain, typed, words
from segsweep.base.errors import UserError
from segsweep.data.base import DataSet
from segsweep.model.files import locate

IDS = {
    "model=maskdino_tiny peft=lora": "1c8b706dcf75",
    "model=maskdino_tiny peft=adapter": "03806246af9f",
    "model=maskdino_r50 peft=full_head": "f37d90fc277d",
    "model=maskdino_swinl peft=decoder_only": "c4f90c171a6a",
    "model=seem_tiny peft=lora": "8bb880a71d60",
    "model=seem_focall peft=embeddings_only": "5df499246b0b",
    "model=seem_focalt peft=frozen": "65cc88406c7d",
    "peft=lora peft.init=xavier peft.fused=joint": "17bddb3b20ed",
    "peft=adapter peft.residual=lambda peft.init=bert": "d7177401e39c",
    "model=seem_tiny model.text_encoder=trained": "0fe78e4e83bc",
    "model.backbone.layout=focal_dw model.backbone.drop_path=0.1": "92a522e0c2f5",
    "model.loss.ce=3": "cb1fc39eaf1c",
    "hparams=seem_released model=seem_tiny": "1671b841357f",
    "hparams.schedule=cosine hparams.warmup=4 hparams.patience=3": "6a5b15521494",
    "hparams.ema=0.5 hparams.lr_factors={embeddings:0.1} hparams.decays={*.bias:0}": "4f558821bd09",
    "data.transform=lsj data.scale=[0.5,1.5]": "e63978c732c0",
    "data.domain=xray data.negatives=keep": "1ef6bbaa2f2b",
    "trainer.devices=2 trainer.precision=fp16 trainer.cache_features=memory": "b3dae563d84b",
    "metrics=coco_255 peft=ia3": "4a6605cca38f",
    "peft=hybrid peft.parts.0.rank=2": "3914663f56e3",
}


@pytest.mark.parametrize("line", IDS)
def test_runs_keep_their_names(line: str) -> None:
    assert fingerprint(compose(["data=digits", *line.split()])) == IDS[line]


RECORDED = {
    ("maskdino_tiny", "frozen"): "6816d0270363",
    ("maskdino_tiny", "lora"): "affa50883e17",
    ("maskdino_tiny", "adapter"): "17b4807ca6ca",
    ("maskdino_tiny", "embeddings_only"): "0ee212b71be3",
    ("maskdino_tiny", "decoder_only"): "95d130515543",
    ("maskdino_tiny", "full_head"): "72f1095e3679",
    ("seem_tiny", "frozen"): "dc6bc90ba784",
    ("seem_tiny", "lora"): "ec20ff1ffd00",
    ("seem_tiny", "adapter"): "ed3a686644e2",
    ("seem_tiny", "embeddings_only"): "f2ca520fa656",
    ("seem_tiny", "decoder_only"): "6d91054ed39a",
    ("seem_tiny", "full_head"): "58e1345847d5",
}


def recorded() -> Iterator[dict[str, Any]]:
    """The configs of the first recorded run of each model and method, from the table of all."""
    told = set()
    with (Path(__file__).parents[1] / "results/mini/runs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            parts: dict[str, Any] = {}
            for key, text in row.items():
                if key.startswith("config.") and text:
                    *path, last = key.split(".")[1:]
                    place = reduce(lambda group, part: group.setdefault(part, {}), path, parts)
                    place[last] = json.loads(text) if text[0] in "[{" else text
            if (row["config.model.name"], row["config.peft.name"]) not in told:
                told.add((row["config.model.name"], row["config.peft.name"]))
                yield parts


def test_recorded_runs_keep_their_names() -> None:
    found = {}
    for parts in recorded():
        config = typed(OmegaConf.create(parts))
        found[config.model.name, config.peft.name] = fingerprint(config)
    assert found == RECORDED


def test_base_weights_are_what_they_hold(tmp_path, monkeypatch) -> None:
    """Another file at the same place is another run, the same file elsewhere is the same run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packaged = locate("segsweep://maskdino_tiny.safetensors")
    moved = tmp_path / "elsewhere" / "mine.safetensors"
    moved.parent.mkdir()
    shutil.copy(packaged, moved)

    def name(weights: object) -> str:
        return fingerprint(compose(["data=digits", f"model.weights={weights}"]))

    assert name(moved) == name("segsweep://maskdino_tiny.safetensors") == fingerprint(compose([]))
    os.utime(moved, (0, 1_000_000_000))
    before = moved.stat()
    old = name(moved)
    changed = bytearray(moved.read_bytes())
    changed[-1] ^= 1
    moved.write_bytes(changed)
    os.utime(moved, (0, 1_000_000_000))  # of the same size and time
    assert (moved.stat().st_size, moved.stat().st_mtime) == (before.st_size, before.st_mtime)
    assert name(moved) != old
    assert name("null") not in (name(moved), old)
    moved.unlink()
    with pytest.raises(UserError, match=r"model\.weights=.*mine.*no such file"):
        name(moved)


def test_a_large_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, hashed = tmp_path / "base.pth", []
    monkeypatch.setattr(content, "sha256", lambda path: hashed.append(path) or f"{len(hashed)}")
    monkeypatch.setattr(content, "FRESH", -(10**18))  # whatever was written was written long ago
    file.write_bytes(b"a")
    assert [content.content_of(file) for _ in range(3)] == ["1"] * 3
    content._remembered.cache_clear()  # as in another process
    assert content.content_of(file) == "1"
    file.write_bytes(b"ab")
    assert content.content_of(file) == "2"


def test_kept_features_are_one_thing_wherever_they_are_kept() -> None:
    word = "trainer.cache_features"
    off, memory, disk = (fingerprint(compose([f"{word}={w}"])) for w in ("off", "memory", "disk"))
    assert off == fingerprint(compose([]))
    assert memory == disk != off


def test_every_data_set_says_what_its_fingerprint_leaves_out() -> None:
    for word, kind in words("data").items():
        assert issubclass(kind, DataSet)
        assert kind.not_hashed is not DataSet.not_hashed, word


def test_words_stand_in_configs_as_they_did() -> None:
    config = compose(["model=maskdino_swinl", "data=digits"])
    assert plain(config)["model"]["backbone"]["layout"] == "swin"
