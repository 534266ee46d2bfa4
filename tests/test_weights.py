from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import pickle
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from segsweep.base.config import compose, words
from segsweep.base.errors import UserError
from segsweep.base.words import files
from segsweep.data.base import Subject
from segsweep.data.sets.kvasir import Kvasir
from segsweep.model import weights
from segsweep.model.family import BackboneConfig, Family, weights_of
from segsweep.model.files import BaseWeights, class_names
from segsweep.model.maskdino import MaskDINO, to_official
from segsweep.model.segmenter import Segmenter

NAMES = ["crate", "bottle"]
NEW = ["a", "b", "c"]
HEAD = "sem_seg_head.predictor."
PER_CLASS = {f"{HEAD}class_embed.weight", f"{HEAD}class_embed.bias", f"{HEAD}label_enc.weight"}
NOBODY = "http://127.0.0.1:9"  # the discard port: no one answers


def family(**changes) -> MaskDINO:
    narrow = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    dims = {"hidden": 32, "mask_dim": 32, "queries": 5, "points": 16}
    dims |= {f"{part}_heads": 2 for part in ("encoder", "decoder")}
    dims |= {f"{part}_layers": 1 for part in ("encoder", "decoder")}
    dims |= {f"{part}_ffn": 32 for part in ("encoder", "decoder")}
    dims |= changes
    return MaskDINO(backbone=BackboneConfig("resnet50", "resnet", narrow), **dims)


def build(seed: int = 0, names: Sequence[str] = NAMES) -> Segmenter:
    torch.manual_seed(seed)
    model = family().build(Subject(names))
    for name, buffer in model.named_buffers():  # no two tensors alike
        if "backbone" in name:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return model


def save(path: Path, model: Segmenter, classes: list[str], half: bool = False) -> None:
    state = {name: tensor.detach().clone() for name, tensor in weights.tensors(model).items()}
    if half:
        state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, path, metadata={"classes": json.dumps(classes)})


def differences(a: Segmenter, b: Segmenter) -> set[str]:
    other = weights.tensors(b)
    return {n for n, t in weights.tensors(a).items() if not torch.equal(t, other[n])}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No folder of the user is looked at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGSWEEP_WEIGHTS", raising=False)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "base.safetensors"
    save(path, build(), NAMES)
    return path


@pytest.fixture
def official(tmp_path) -> Path:
    """A checkpoint as detectron2 writes it: official names, aliases and all."""
    path = tmp_path / "official.pth"
    state = to_official(build().state_dict(), "resnet")
    torch.save({"model": state, "iteration": 3}, path)
    return path


def refusal(source: object, **changes) -> str:
    with pytest.raises(UserError) as error:
        family(weights=str(source), **changes).load(build(), NAMES, 0)
    return str(error.value)


def test_without_weights():
    model = build(1)
    report = family().load(model, NAMES, 0)
    assert str(report) == "weights: random"
    assert differences(model, build(1)) == set()


def test_round_trip(file):
    model = build(1)
    assert differences(model, build())
    report = family(weights=str(file)).load(model, NAMES, 0)
    assert differences(model, build()) == set()
    assert report.loaded == len(weights.tensors(model))
    assert not report.drawn
    assert str(file) in str(report)


def test_half_precision_file(tmp_path):
    path = tmp_path / "half.safetensors"
    save(path, build(), NAMES, half=True)
    model = build(1)
    family(weights=str(path)).load(model, NAMES, 0)
    expected = weights.tensors(build())
    for name, tensor in weights.tensors(model).items():
        assert tensor.dtype == expected[name].dtype
        torch.testing.assert_close(tensor, expected[name].half().to(tensor.dtype))


def test_official_checkpoint(official):
    model = build(1)
    report = family(weights=str(official)).load(model, ["of", "others"], 0)
    assert differences(model, build()) == set()  # the file names no classes, their number fits
    assert "it names no classes" in str(report)


def test_official_weights_know_their_classes(tmp_path):
    """80 classes of one's own are not COCO's 80, of which the official files do not speak."""
    coco, path = class_names("coco"), tmp_path / "official.pth"
    torch.save({"model": to_official(build(names=coco).state_dict(), "resnet")}, path)
    words = [file.stem for file in Path("conf/model").glob("maskdino_*.yaml")]
    knowing = [w for w in words if (compose([f"model={w}"]).model.weights or "").startswith("http")]
    assert len(knowing) == 2
    assert all("#classes=coco" in compose([f"model={w}"]).model.weights for w in knowing)
    own = [f"defect {i}" for i in range(len(coco))]
    for names, drawn in ((coco, False), (own, True), ([*coco[1:], coco[0]], True)):
        model = build(1, names)
        report = family(weights=f"{path}#classes=coco").load(model, names, 0)
        assert bool(report.drawn) == drawn
        assert PER_CLASS.isdisjoint(differences(model, build(names=coco))) != drawn
    assert report.facts()["drawn"] == report.drawn


def sizes_fetched(model: Family) -> list[int]:
    """Megabytes of the whole models of a family that are fetched, of its backbone if there are."""
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for word in [w for w in files("model") if issubclass(words("model")[w], type(model))]:
        weights = BaseWeights.of(weights_of(word))
        if weights.remote and weights.megabytes:
            content: Any = OmegaConf.load(files("model")[word])
            layout = content.get("backbone", {}).get("layout")
            sizes[layout == model.backbone.layout].append(int(weights.megabytes))
    return sizes[True] or sizes[False]


def digits_for(word: str) -> str:
    """The set of digits that a model is for."""
    tasks = words("model")[word].tasks  # type: ignore[attr-defined]
    return (
        "digits_binary" if "semantic" in tasks else f"digits_{tasks[0]}".removesuffix("_instances")
    )


def test_a_base_that_knows_other_data_only_says_what_would_help(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SEGSWEEP_WEIGHTS", raising=False)
    packaged = [w for w in files("model") if BaseWeights.of(weights_of(w)).knows]
    configs = [compose([f"model={word}", f"data={digits_for(word)}"]) for word in packaged]
    assert len(configs) >= 3
    other = Kvasir(name="kvasir", root=str(tmp_path))
    for config in configs:
        source = BaseWeights.of(config.model.weights)
        assert source.knows == "digits" == (config.data.pictures_of or config.data.name)
        for data in (config.data, compose(["data=digits"]).data):
            assert config.model.advice(data) == ""
        (line,) = config.model.advice(other).splitlines()
        larger = BaseWeights.of(weights_of(source.larger))
        assert int(larger.megabytes) == min(sizes_fetched(config.model))  # the smallest
        for part in (f"data={source.knows}", f"model={source.larger}", f"{larger.megabytes} MB"):
            assert part in line
        assert "fetches" in line
        own = tmp_path / larger.name
        own.write_bytes(b"weights")
        with monkeypatch.context() as here:
            here.setenv("SEGSWEEP_WEIGHTS", str(tmp_path))
            assert "fetches" not in config.model.advice(other)
        assert replace(config.model, weights=str(own)).advice(other) == ""
        assert replace(config.model, weights=None).advice(other) == ""


def test_the_list_of_coco_is_that_of_torchvision():
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights as Weights

    names = [n for n in Weights.COCO_V1.meta["categories"] if n not in ("__background__", "N/A")]
    assert class_names("coco") == names


def test_arrays_of_an_official_checkpoint(tmp_path):
    path = tmp_path / "arrays.pth"
    state = to_official(build().state_dict(), "resnet")
    torch.save({"model": {n: t.numpy() for n, t in state.items()}, "step": np.float64(3)}, path)
    model = build(1)
    family(weights=str(path)).load(model, NAMES, 0)
    assert differences(model, build()) == set()


def test_other_number_of_classes_draws_only_what_belongs_to_classes(file):
    report, models = None, [build(seed, NEW) for seed in (1, 2, 1)]
    for model, seed in zip(models, (7, 7, 8), strict=True):
        report = family(weights=str(file)).load(model, NEW, seed)
    assert report is not None
    assert set(report.drawn) == PER_CLASS | {"criterion.empty_weight"}
    assert f"class layers start at random, as the classes are others ({len(report.drawn)} " in str(
        report
    )
    assert differences(models[0], models[1]) == set()  # by the seed alone
    assert differences(models[0], models[2]) == PER_CLASS
    base = weights.tensors(build())
    kept = weights.tensors(models[0])
    assert all(base[n].equal(kept[n]) for n in base if n not in report.drawn)
    assert models[0].criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 0.1])


def test_same_number_of_other_classes(file):
    report = family(weights=str(file)).load(build(1), ["bottle", "crate"], 0)
    assert set(report.drawn) == PER_CLASS | {"criterion.empty_weight"}


def test_missing_file(tmp_path):
    message = refusal(tmp_path / "none.safetensors")
    assert "none.safetensors" in message
    assert "model.weights" in message
    assert "looked for" in refusal("segsweep://none.safetensors")


def test_no_network(tmp_path):
    message = refusal(f"{NOBODY}/base.pth")
    assert f"{NOBODY}/base.pth" in message
    assert str(tmp_path / "cache" / "segsweep" / "base.pth") in message
    assert "SEGSWEEP_WEIGHTS" in message
    assert not list((tmp_path / "cache" / "segsweep").glob("[!.]*"))


def test_offline_folder(file, tmp_path, monkeypatch):
    monkeypatch.setenv("SEGSWEEP_WEIGHTS", str(tmp_path))
    for source in (f"{NOBODY}/{file.name}", f"segsweep://{file.name}", f"/gone/{file.name}"):
        assert weights.locate(source) == file


def test_download_is_kept(file, tmp_path):
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            asked.append(args)

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{file.name}"
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        first, second = (weights.locate(f"{url}#sha256={sha256}") for _ in range(2))
        message = refusal(url.replace("base", "absent"))
        server.shutdown()
    assert first == second == tmp_path / "cache" / "segsweep" / file.name
    assert first.read_bytes() == file.read_bytes()
    assert len([a for a in asked if "base" in str(a)]) == 1
    assert "404" in message
    assert {*first.parent.glob("[!.]*")} == {first, first.with_name(f"{file.name}.json")}


def test_wrong_hash(file):
    message = refusal(f"{file}#sha256={'0' * 64}")
    assert "hash in model.weights" in message
    assert hashlib.sha256(file.read_bytes()).hexdigest() in message


def test_a_text_file_is_no_checkpoint(tmp_path):
    file = tmp_path / "notes.pth"
    file.write_text("junk\n")
    assert "no checkpoint" in refusal(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("damage", ["cut", "garbled", "empty"])
def test_damaged_file(file, official, tmp_path, suffix, damage):
    content = (file if suffix == ".safetensors" else official).read_bytes()
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(
        {"cut": content[: len(content) // 2], "garbled": b"x" * 999, "empty": b""}[damage]
    )
    message = refusal(path)
    assert str(path) in message
    assert "fetch it again" in message


def test_foreign_checkpoint(file, tmp_path):
    state = {n: t.clone() for n, t in weights.tensors(build()).items()}
    first = next(name for name in state if "encoder" in name)
    del state[first]
    state["module.stray"] = torch.zeros(1)
    state[f"{HEAD}enc_output.bias"] = torch.zeros(7)
    path = tmp_path / "foreign.safetensors"
    save_file(state, path)
    before = build(1)
    message = refusal(path)
    assert str(path) in message
    assert f"1 missing ({first})" in message
    assert "1 unexpected (module.stray)" in message
    assert "enc_output.bias (7,) instead of (32,)" in message
    model = build(1)
    with pytest.raises(UserError):
        family(weights=str(path)).load(model, NAMES, 0)
    assert differences(model, before) == set()  # nothing was half loaded


def test_something_else_than_a_checkpoint(tmp_path):
    torch.save([1, 2, 3], tmp_path / "list.pth")
    assert "holds list" in refusal(tmp_path / "list.pth")
    torch.save({"model": {"a": "text"}}, tmp_path / "text.pth")
    assert "'a' is str" in refusal(tmp_path / "text.pth")


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_code_is_never_run(tmp_path):
    bang = tmp_path / "bang"
    for new in (True, False):
        torch.save({"model": Bomb(bang)}, tmp_path / "bomb.pth", _use_new_zipfile_serialization=new)
        message = refusal(tmp_path / "bomb.pth")
        assert "it wants to run code: getattr" in message  # of Path.touch
        assert "fetch it again" not in message
    for code, name in ((os.system, "posix.system"), (eval, "eval"), (Bomb, f"{__name__}.Bomb")):
        (tmp_path / "code.pth").write_bytes(pickle.dumps({"a": code}, protocol=2))
        assert f"it wants to run code: {name}. " in refusal(tmp_path / "code.pth")
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(bang)))
    message = refusal(tmp_path / "bomb.pkl")
    assert "torch.save" in message
    assert not bang.exists()
