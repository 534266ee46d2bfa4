"""What a run becomes elsewhere computes what the run computes, and says where it cannot."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts_semantic import packed
from PIL import Image
from safetensors import safe_open
from small_coco import write as write_coco
from torch import Tensor, nn

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.data.base import Subject
from segsweep.data.loader import EvalLoader
from segsweep.exporting import checkpoint, hf_lora, program
from segsweep.exporting.bundle import portable
from segsweep.exporting.inference import Inference, differences, examples, outputs
from segsweep.exporting.place import staged, verify
from segsweep.model.heads.query import QueryHead
from segsweep.model.maskdino import MaskDINO
from segsweep.peft.delta import delta_state_dict
from segsweep.peft.pissa import PiSSA
from segsweep.peft.select import Select
from segsweep.run.evaluate import predict_batches
from segsweep.run.identity import Run
from segsweep.run.restore import assemble, restore
from segsweep.story import train
from segsweep.verbs import export, merge, predict

SMALL = [
    "data.size=[64,64]", "model.encoder_layers=1", "model.decoder_layers=1", "model.weights=null",
    "model.queries=8", "model.points=32", "hparams.batch_size=2", "hparams.epochs=1",
    "hparams.lr=0.01", "io.progress=false",
]  # fmt: skip
DIGITS = ["data.train=4", "data.val=3"]
METHODS = {
    "lora": [*DIGITS, "model.dn_number=8", "peft=lora", "peft.rank=2"],
    "linear": [*DIGITS, "peft=lora", "peft.targets=[deformable]", "peft.alpha=3", "peft.rank=2",
               "peft.train=['*.class_embed.*','*.mask_embed.*']"],
    "adapter": [*DIGITS, "peft=adapter", "peft.init=bert"],
    "full_head": ["data=coco", "peft=full_head"],
    "seem": [*DIGITS, "model=seem_tiny", "peft=lora", "peft.rank=2"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Directories of trained runs by method; `full_head` is of a COCO set at an absolute path."""
    folder = tmp_path_factory.mktemp("machine")
    root = f"data.root={write_coco(folder / 'my-set').root}"
    found = {}
    for name, words in METHODS.items():
        place = [root] if name == "full_head" else []
        run = Run(compose([*words, *SMALL, *place, f"io.results={folder / 'results'}"]))
        run.once(train)
        found[name] = run.directory
    return found


def pixels() -> Tensor:
    return 255 * torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def run_outputs(directory: Path) -> dict[str, Tensor]:
    """What a run gives, its edits in place."""
    restored = restore(directory)
    return outputs(Inference(restored.model, restored.config.data), pixels())


def called(verb: Any, *words: object) -> None:
    assert verb.main([str(word) for word in words]) == 0


@pytest.mark.parametrize(
    ("method", "suffix"),
    [("lora", "safetensors"), ("adapter", "safetensors"), ("full_head", "pth"), ("seem", "pth")],
)
def test_a_merged_checkpoint_is_the_run(runs, tmp_path: Path, capsys, method: str, suffix: str):
    out = tmp_path / f"merged.{suffix}"
    called(merge, f"run={runs[method]}", f"out={out}")
    said = capsys.readouterr().out
    assert "differs from the run by at most 0.0e+00" in said
    if suffix == "safetensors":
        with safe_open(out, "pt") as file:
            names, facts = list(file.keys()), file.metadata()
        record = read_json(runs[method] / "record.json")
        about = json.loads(facts["segsweep"])
        assert (about["run"], about["commit"]) == (record["id"], record["git"]["commit"])
        assert about["base_hash"] == record["params"]["base_hash"]
    else:
        content = torch.load(
            out, weights_only=True
        )  # Mask DINO's program wants "model", SEEM's none
        names = list(content if method == "seem" else content["model"])
    assert not [name for name in names if "lora" in name or "parametrizations" in name]
    own = [name for name in names if ".filling." in name]
    assert bool(own) == (method == "adapter") == ("cannot load them" in said)
    if not own:  # anybody's base model takes it
        config = restore(runs[method]).config
        family = replace(config.model, weights=str(out))
        data = read_json(runs[method] / "record.json")["data"]
        model = family.build(Subject(data["prompts"])).eval()
        assert family.load(model, data["classes"], 9).drawn == []
        found = outputs(Inference(model, config.data), pixels())
        assert max(differences(found, run_outputs(runs[method])).values()) < 1e-5


def test_training_changed_what_is_compared(runs):
    """Otherwise equality would prove nothing."""
    for directory in runs.values():
        restored = restore(directory)
        before = Inference(restored.model, restored.config.data)
        data = restored.record["data"]
        frozen = replace(restored.config, peft=Select(name="frozen"))
        base, _, _ = assemble(frozen, data["classes"], Subject(data["prompts"]))
        after = Inference(base.eval(), restored.config.data)
        assert max(differences(outputs(after, pixels()), outputs(before, pixels())).values()) > 1e-3


class Wrong(MaskDINO):
    """Mask DINO whose official state is another model's."""

    def official(self, model):
        return {
            n: t * 1.01 if t.is_floating_point() else t for n, t in super().official(model).items()
        }


def test_another_model_is_never_written(runs, tmp_path: Path):
    restored = restore(runs["lora"])
    restored.config.model = Wrong(**vars(restored.config.model))
    with pytest.raises(UserError, match=r"differs from the run .* nothing was written"):
        checkpoint.write(restored, tmp_path / "merged.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_overwritten_unasked(runs, tmp_path: Path):
    out = tmp_path / "merged.pth"
    out.write_text("mine")
    with pytest.raises(UserError, match=r"merged\.pth exists; say force=true"):
        called(merge, f"run={runs['adapter']}", f"out={out}")
    assert out.read_text() == "mine"
    called(merge, f"run={runs['adapter']}", f"out={out}", "force=true")
    assert out.stat().st_size > 1000
    with pytest.raises(UserError, match="must end in one of"):
        called(merge, f"run={runs['adapter']}", f"out={tmp_path / 'merged.bin'}")


def test_folders_appear_whole_and_only_replace_exports(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").write_text("dear")
    with pytest.raises(UserError, match="no export made"), staged(tmp_path / "mine", force=True):
        pass

    def interrupted() -> None:
        with staged(tmp_path / "new", force=False) as folder:
            folder.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "letter"]


@pytest.mark.slow
def test_torch_export_computes_the_same(runs, tmp_path: Path, capsys):
    called(export, f"run={runs['seem']}", f"out={tmp_path / 'program'}", "batch=2")
    assert "differs from the run by at most" in capsys.readouterr().out
    loaded = torch.export.load(tmp_path / "program/model.pt2").module()
    gaps = differences(outputs(loaded, pixels(), batch=2), run_outputs(runs["seem"]))
    assert set(gaps) == {"logits", "masks"}
    assert max(gaps.values()) < 1e-4
    about = read_json(tmp_path / "program/model.json")
    assert about["input"]["shape"] == [2, 3, 64, 64]
    assert about["classes"] == [{"id": 0, "category_id": 1, "name": "digit", "prompt": "digit"}]


@pytest.mark.slow
def test_onnx_computes_the_same(runs, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    called(export, f"run={runs['lora']}", "format=onnx", f"out={tmp_path / 'program'}")
    session = onnxruntime.InferenceSession(tmp_path / "program/model.onnx")
    names = [output["name"] for output in read_json(tmp_path / "program/model.json")["outputs"]]

    def found(images: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {"images": images.numpy()})
        return {name: torch.as_tensor(array) for name, array in zip(names, arrays, strict=True)}

    wanted = run_outputs(runs["lora"])
    assert list(wanted) == names
    assert max(differences(outputs(found, pixels()), wanted).values()) < 1e-3


def test_queries_are_compared_in_any_order_and_each_once(runs):
    wanted, aligned = run_outputs(runs["lora"]), QueryHead(nn.Identity(), nn.Identity()).aligned
    ranks = torch.stack([torch.randperm(8), torch.randperm(8)])
    rows = torch.arange(2)[:, None]
    other = {name: tensor[rows, ranks] for name, tensor in wanted.items()}
    assert max(differences(other, wanted).values()) > 1e-3
    assert max(differences(aligned(other, wanted), wanted).values()) == 0
    other["masks"][1, 5] += 0.1
    assert differences(aligned(other, wanted), wanted)["masks"] == pytest.approx(0.1, abs=1e-4)
    twice = {name: tensor[:, [0, 0, *range(2, 8)]] for name, tensor in wanted.items()}
    assert max(differences(aligned(twice, wanted), wanted).values()) > 1e-4
    other["boxes"][0, 0] = torch.nan
    assert differences(aligned(other, wanted), wanted)["boxes"] == torch.inf


def test_missing_packages_are_named_with_the_cure(runs, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(program, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(UserError, match=r"needs no_such_package.*segsweep\[export\]"):
        called(export, f"run={runs['lora']}", "format=onnx", f"out={tmp_path / 'program'}")
    assert list(tmp_path.iterdir()) == []


def test_peft_loads_what_it_can_express(runs, tmp_path: Path):
    peft = pytest.importorskip("peft")
    called(export, f"run={runs['linear']}", "format=hf_lora", f"out={tmp_path / 'hf'}")
    restored = restore(runs["linear"])
    data = restored.record["data"]
    frozen = replace(restored.config, peft=Select(name="frozen"))
    base, _, _ = assemble(frozen, data["classes"], Subject(data["prompts"]))
    model = peft.PeftModel.from_pretrained(base.eval(), str(tmp_path / "hf")).base_model.model
    found = outputs(Inference(model.eval(), restored.config.data), pixels())
    assert max(differences(found, run_outputs(runs["linear"])).values()) < 1e-5


def test_peft_loads_principal_factors_as_lora_of_twice_the_rank(runs, tmp_path: Path):
    peft = pytest.importorskip("peft")
    linear = restore(runs["linear"])
    data, targets = linear.record["data"], ["*.sampling_offsets.weight", "*.value_proj.weight"]
    method = PiSSA(name="pissa", train=[], targets=targets, rank=3, alpha=6)
    config = replace(linear.config, peft=method)
    tuned, _, _ = assemble(config, data["classes"], Subject(data["prompts"]))
    for name, tensor in delta_state_dict(tuned).items():
        tensor.normal_(std=0.1) if name[-1] in "AB" else None
    hf_lora.write(replace(linear, config=config, model=tuned), tmp_path, partial=False)
    frozen = replace(config, peft=Select(name="frozen"))
    base, _, _ = assemble(frozen, data["classes"], Subject(data["prompts"]))
    model = peft.PeftModel.from_pretrained(base.eval(), str(tmp_path)).base_model.model
    found, wanted = (outputs(Inference(m.eval(), config.data), pixels()) for m in (model, tuned))
    assert max(differences(found, wanted).values()) < 1e-4


def test_what_peft_cannot_express_is_refused(runs, tmp_path: Path, capsys):
    words = (f"run={runs['lora']}", "format=hf_lora", f"out={tmp_path / 'hf'}")
    with pytest.raises(
        UserError, match=r"cannot express 10 of 26 .*in_proj_weight:q.*partial=true"
    ):
        called(export, *words)
    assert list(tmp_path.iterdir()) == []
    called(export, *words, "partial=true")
    assert "another model" in capsys.readouterr().out
    with pytest.raises(UserError, match="peft=adapter is no LoRA"):
        called(export, f"run={runs['adapter']}", "format=hf_lora", f"out={tmp_path / 'no'}")


def test_a_bundle_is_the_run_without_its_machine(runs, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "handed-on"
    called(export, f"run={runs['full_head']}", "format=bundle", f"out={out}")
    verified = verify(out)
    assert verified == len(list(out.iterdir())) - 1
    for file in out.iterdir():
        text = file.read_bytes().decode("latin-1")
        assert str(runs["full_head"].parents[3]) not in text
        if file.suffix != ".safetensors":
            assert re.findall(r"(?<![\w.:/])/\w+/", text) == []
    assert "host" not in read_json(out / "record.json")["device"]
    assert "my-set" in (out / "config.yaml").read_text()
    gaps = differences(run_outputs(out), run_outputs(runs["full_head"]))
    assert max(gaps.values()) == 0
    card = (out / "card.md").read_text()
    for words in ("| bolt | 1 |", "to be filled in", "segm_AP50", "Expected calibration error"):
        assert words in card
    names = [one["name"] for one in read_json(out / "labels.json")["classes"]]
    assert names == ["nut", "bolt"]

    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (90, 70), "white").save("picture.png")
    capsys.readouterr()
    exec(code, {})
    assert capsys.readouterr().out.startswith("picture.png [")

    (out / "card.md").write_text("better")
    (out / "extra").write_text("")
    with pytest.raises(UserError, match=r"card\.md changed; extra added"):
        called(export, f"verify={out}")


def test_a_bundle_of_label_maps_needs_no_data(tmp_path: Path, monkeypatch, capsys):
    root = tmp_path / "my-set"
    packed(root, {"train": [0, 1, 2], "val": [3]})
    classes = {"classes": {"thing": 255, "other": 7}, "background_label": 0}
    (root / "classes.json").write_text(json.dumps(classes))
    places = [f"data.root={root}", f"data.cache={root}", f"io.results={tmp_path / 'results'}"]
    run = Run(compose([*SMALL, "data=semantic", "peft=full_head", "hparams.epochs=8", *places]))
    run.once(train)
    restored = restore(run.directory)
    (batch,) = EvalLoader(restored.config.data, "val", 1)
    ((_, (found,)),) = predict_batches(restored.config, restored.model, [batch])
    wanted = found.label_map(background=True)
    assert len(wanted.unique()) == 2
    called(export, f"run={run.directory}", "format=bundle", f"out={tmp_path / 'handed-on'}")

    (root / "images/3.JPG").rename(tmp_path / "picture.png")
    root.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", Path("handed-on/README.md").read_text(), re.DOTALL)
    capsys.readouterr()
    exec(code, own := {})
    assert capsys.readouterr().out == "picture.png torch.Size([24, 40]) ['thing']\n"
    assert torch.equal(own["labels"], wanted)
    called(predict, "run=handed-on", "images=picture.png", "out=found")
    with Image.open("found/labels/picture.png") as file:
        assert torch.equal(torch.as_tensor(np.array(file)), wanted)
    card = Path("handed-on/card.md").read_text()
    assert not Path("handed-on/calibration.csv").exists()
    assert "| mIoU_fg | " in card
    assert re.search(r"\| class \| images .*\n.*\n\| thing \| 1 \|", card)
    assert re.search(r"\| mean \| [0-9.]+ \|", card)
    assert re.search(r"\| (thing|background) \| (thing|background) \| \d+ \|", card)
    assert str(tmp_path) not in "".join(p.read_text("latin-1") for p in Path("handed-on").iterdir())


def test_runs_without_analysis_say_what_is_lacking(runs, tmp_path: Path):
    directory = tmp_path / "runs" / runs["lora"].name
    directory.mkdir(parents=True)
    for file in ("config.yaml", "delta.safetensors"):
        (directory / file).write_bytes((runs["lora"] / file).read_bytes())
    record = read_json(runs["lora"] / "record.json") | {"analysis": None}
    del record["files"]["predictions.jsonl.gz"]
    record["weights"] |= {"licence": "cc-by-nc-4.0"}
    (directory / "record.json").write_text(json.dumps(record))
    called(export, f"run={directory}", "format=bundle", f"out={tmp_path / 'out'}")
    card = (tmp_path / "out/card.md").read_text()
    assert "The analysis of its predictions: lacking (kept no predictions" in card
    assert "| base weights | as known to segsweep: cc-by-nc-4.0 - to be confirmed |" in card
    assert read_json(tmp_path / "out/labels.json")["score_threshold"] == 0.5
    assert not (tmp_path / "out/calibration.csv").exists()


def test_only_paths_to_elsewhere_are_cut():
    kept = ["data/set", "segsweep://a.safetensors", "https://x.org/a.pth", "nut/bolt", "a", 1, None]
    assert portable(kept) == kept
    assert portable({"a": ["/srv/me/set/", "~/w.pth#sha256=1", "../up/x", "C:\\me\\x"]}) == {
        "a": ["set", "w.pth#sha256=1", "x", "x"]
    }


def test_images_of_comparison_are_those_of_evaluation(runs):
    data = restore(runs["full_head"]).config.data
    images, source = examples(data, 5)
    assert source == "2 validation images"
    assert images.shape == (2, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() > 200
    records = data.records("val")
    assert records == replace(data).records("val")  # the set is whole after it
    assert all(record.annotations for record in records)
    assert examples(replace(data, root="nowhere"), 2)[1] == "2 images of noise"
