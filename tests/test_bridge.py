"""Models of transformers, lent whole: a yaml of `model/hf.py` is tested by being there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.package import installed
from segsweep.data.base import BACKGROUND, Subject
from segsweep.data.loader import Batch, Target
from segsweep.model.files import identity
from segsweep.model.hf import HF, NETWORK, merged
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply, merge
from segsweep.peft.lora import LoRA
from segsweep.peft.select import Select
from segsweep.run.identity import Run
from segsweep.story import train
from tests.words import class_of, files

WORDS = [word for word in files("model") if issubclass(class_of("model", word), HF)]
NAMES, SIDE = ("crate", "bottle", "bag"), 64
SWIN = {
    "model_type": "swin", "image_size": SIDE, "embed_dim": 8, "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2], "window_size": 4, "drop_path_rate": 0.0,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
VIT = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIDE,
    "num_queries": 6, "num_blocks": 2, "train_num_points": 64,
}  # fmt: skip
SMALL = {  # of each architecture
    "mask2former": {
        "backbone_config": SWIN, "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32,
        "encoder_feedforward_dim": 32, "dim_feedforward": 32, "encoder_layers": 1,
        "decoder_layers": 3, "num_attention_heads": 2, "num_queries": 6, "train_num_points": 64,
    },
    "maskformer": {
        "backbone_config": SWIN, "fpn_feature_size": 32, "mask_feature_size": 32,
        "decoder_config": {
            "model_type": "detr", "d_model": 16, "decoder_layers": 2, "encoder_layers": 1,
            "decoder_ffn_dim": 32, "encoder_ffn_dim": 32, "decoder_attention_heads": 2,
            "encoder_attention_heads": 2, "num_queries": 6, "dropout": 0.0,
        },
    },
    "rf_detr": {
        "backbone_config": {
            "model_type": "rf_detr_dinov2", "hidden_size": 16, "num_hidden_layers": 3,
            "num_attention_heads": 2, "patch_size": 8, "num_windows": 2, "image_size": SIDE,
            "out_features": ["stage1", "stage3"],
        },
        "d_model": 16, "decoder_ffn_dim": 32, "intermediate_size": 16, "decoder_layers": 2,
        "decoder_self_attention_heads": 2, "decoder_cross_attention_heads": 2, "num_queries": 6,
        "decoder_n_points": 2, "group_detr": 2, "dropout": 0.0,
    },
    "eomt": VIT,
    "eomt_dinov3": VIT | {"intermediate_size": 32},
}  # fmt: skip

needs_package = pytest.mark.skipif(
    not installed(HF.package), reason=f"could not import '{HF.package}'"
)


@cache
def family(word: str) -> HF:
    """A tiny one of a word's architecture, without weights."""
    said = [f"model={word}", "data=digits", "model.weights=null"]
    model = compose(said).model
    return replace(model, sizes=SMALL[model.model_type])


def built(chosen: HF, task: str = "instances", names: tuple[str, ...] = NAMES) -> Segmenter:
    torch.manual_seed(0)
    model = chosen.build(Subject(names, task))
    chosen.load(model, list(names), seed=0)
    return model


def batch() -> Batch:
    """Two images, the second one smaller than the frame and without objects."""
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 8:40, 8:24], masks[1, 30:60, 20:56] = True, True
    boxes = torch.tensor([[16, 24, 16, 32], [38, 45, 36, 30]]) / SIDE
    full = Target(torch.tensor([0, 2]), boxes, masks)
    empty = Target(torch.zeros(0, dtype=torch.long), boxes[:0], masks[:0])
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return Batch(images, [(64, 64), (48, 64)], [(90, 90), (60, 80)], [1, 2], [full, empty])


def learn(model: Segmenter) -> dict[str, Tensor]:
    """Gradients of one training step of all that trains."""
    seen = batch()
    torch.manual_seed(3)
    model.train().loss(model(seen.images, seen.targets), seen.targets)["loss"].backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def saved(word: str, folder: Path) -> Path:
    """A tiny model of transformers as it writes it itself."""
    from segsweep.model.heads import hf

    config = hf.configuration(family(word).model_type, SMALL[family(word).model_type])
    config.id2label = dict(enumerate(NAMES))
    torch.manual_seed(5)
    with hf.silent():
        hf.network(config, family(word).head).save_pretrained(folder)
    return folder


@pytest.fixture(params=WORDS)
def word(request: pytest.FixtureRequest) -> str:
    return request.param


@needs_package
@pytest.mark.parametrize("model_type", SMALL)
def test_outputs_and_loss_are_those_of_transformers_to_the_bit(
    model_type: str, tmp_path: Path
) -> None:
    word = next(word for word in WORDS if family(word).model_type == model_type)
    folder = saved(word, tmp_path)
    theirs = family(word).head.builds.from_pretrained(folder).eval()
    ours, seen = built(replace(family(word), weights=str(folder), sizes={})).eval(), batch()
    assert ours.sem_seg_head.network is not theirs
    with torch.no_grad():
        raw, found = theirs(seen.images), ours.sem_seg_head.tensors(ours(seen.images))
    truth: dict[str, Any] = {
        "mask_labels": [target.masks.float() for target in seen.targets],
        "class_labels": [target.labels for target in seen.targets],
    }
    if model_type == "rf_detr":
        said = {"logits": raw.logits, "masks": raw.pred_masks, "boxes": raw.pred_boxes}
        both = (truth["class_labels"], truth["mask_labels"], seen.targets)
        rows = zip(*both, strict=True)
        truth = {"labels": [{"class_labels": c, "masks": m, "boxes": t.boxes} for c, m, t in rows]}
    else:
        said = {"logits": raw.class_queries_logits, "masks": raw.masks_queries_logits}
    assert found.keys() == said.keys()
    for name, tensor in said.items():
        assert torch.equal(found[name], tensor), name
    torch.manual_seed(3)
    loss = theirs.train()(seen.images, **truth).loss
    loss.backward()
    learnt = learn(ours)
    for name, parameter in theirs.named_parameters():
        if parameter.grad is not None:
            assert torch.equal(learnt[NETWORK + name], parameter.grad), name
    torch.manual_seed(3)
    assert torch.equal(ours.loss(ours(seen.images, seen.targets), seen.targets)["loss"], loss)


@needs_package
def test_methods_edit_it_learn_and_are_merged(word: str) -> None:
    chosen = family(word)
    model, seen = built(chosen).eval(), batch()
    names, before = model.state_dict().keys(), model(seen.images)
    counts = apply(model, LoRA(rank=2), chosen.roles)
    assert counts.added > 0
    start = model.eval()(seen.images)
    assert (start.masks - before.masks).abs().max() < 1e-5
    learnt = learn(model)
    assert learnt.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * parameter.requires_grad)
    edited = model.eval()(seen.images)
    assert not torch.equal(edited.logits, start.logits)
    assert merge(model) == []
    assert model.state_dict().keys() == names
    again = model(seen.images)
    assert (again.logits - edited.logits).abs().max() < 1e-5


@needs_package
def test_roles_name_all_that_learns(word: str) -> None:
    """Backbone and head are everything that has a gradient; every role but the empty is found."""
    chosen = family(word)
    model = built(chosen)
    whole = learn(model.requires_grad_(True)).keys()
    model.zero_grad()
    apply(model, Select(train=["backbone", "head"]), chosen.roles)
    assert learn(model).keys() == whole
    for role, patterns in chosen.roles.items():
        if patterns:
            assert apply(model, Select(train=[role]), chosen.roles).trainable > 0
    assert {*chosen.scopes} <= chosen.roles.keys()


@needs_package
def test_what_is_found_has_the_form_of_its_task(word: str) -> None:
    seen = batch()
    first, second = built(family(word)).eval().find(seen)
    assert len(first.scores) == len(first.rles) == 18  # 6 queries of 3 classes
    assert first.masks.shape[1:] == (90, 90)
    assert second.masks.shape[1:] == (60, 80)
    assert first.scores.diff().le(0).all()
    assert first.labels.max() < 3
    if "semantic" not in family(word).tasks:
        return
    maps = built(family(word), "semantic").eval().find(seen)
    assert [tuple(m.classes.shape) for m in maps] == [(90, 90), (60, 80)]
    assert all(m.classes.lt(3).logical_or(m.classes.eq(BACKGROUND)).all() for m in maps)


@needs_package
def test_classes_of_others_are_drawn_anew_by_the_seed(tmp_path: Path) -> None:
    chosen = replace(family("hf_eomt_l"), weights=str(saved("hf_eomt_l", tmp_path)))
    kept, heads = NETWORK + "class_predictor.weight", {}
    for names in (NAMES, NAMES[::-1], (*NAMES, "box")):
        for seed in (1, 1, 2):
            model = chosen.build(Subject(names, "instances"))
            report = chosen.load(model, list(names), seed)
            assert bool(report.drawn) == (names != NAMES)
            heads.setdefault((names, seed), []).append(model.state_dict()[kept].clone())
    assert heads[(*NAMES, "box"), 1][0].shape[0] == 5  # "no object" is the last
    for (names, seed), drawn in heads.items():
        assert all(torch.equal(drawn[0], head) for head in drawn)
        assert torch.equal(drawn[0], heads[names, 1][0]) == (seed == 1 or names == NAMES)
    with torch.device("meta"):
        model = chosen.build(Subject(NAMES[::-1], "instances"))
    assert chosen.load(model, list(NAMES[::-1]), 1).drawn  # names and shapes alone were read


@needs_package
def test_a_detector_draws_the_classes_of_all_groups_and_learns_of_images_without_objects(
    tmp_path: Path,
) -> None:
    word = "hf_rfdetr_seg_s"
    chosen = replace(family(word), weights=str(saved(word, tmp_path)))
    model = chosen.build(Subject((*NAMES, "box"), "instances"))
    drawn = {name.removeprefix(NETWORK) for name in chosen.load(model, [*NAMES, "box"], 1).drawn}
    layers = ("model.class_embed", *(f"model.model.enc_out_class_embed.{g}" for g in range(2)))
    assert drawn == {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
    seen = batch()
    empty = [seen.targets[1]] * 2
    loss = model.train().loss(model(seen.images, empty), empty)["loss"]
    loss.backward()
    assert loss > 0
    assert model.get_parameter(NETWORK + layers[0] + ".bias").grad is not None


@needs_package
def test_a_detector_sees_its_side_whatever_batches_are_padded_to() -> None:
    """A side of 72 in frames of 96, as medium has 432 in 448; and frames of 64 in it."""
    chosen = family("hf_rfdetr_seg_s")
    sizes = merged(chosen.sizes, {"backbone_config": {"image_size": 72, "patch_size": 12}})
    model = built(replace(chosen, sizes=sizes)).eval()
    head, seen = model.sem_seg_head, torch.randn(1, 3, 72, 72)
    exact = head.tensors(model(seen))
    more = head.tensors(model(torch.nn.functional.pad(seen, (0, 24, 0, 24))))
    assert torch.equal(more["masks"][..., :18, :18], exact["masks"])
    assert more["masks"].shape[-2:] == (24, 24)
    assert torch.allclose(more["boxes"] * 96, exact["boxes"] * 72, rtol=1e-5)
    small = seen[..., :64, :64]
    padded = torch.nn.functional.pad(small, (0, 8, 0, 8))
    exact, less = (head.tensors(model(images)) for images in (padded, small))
    assert torch.equal(less["masks"], exact["masks"][..., :16, :16])
    assert torch.allclose(less["boxes"] * 64, exact["boxes"] * 72, rtol=1e-5)


@needs_package
def test_a_folder_is_trained_for_two_steps_and_found_again(tmp_path: Path) -> None:
    """Of images that are smaller than the square that the model takes."""
    folder = saved("hf_eomt_l", tmp_path / "base")
    run = Run(compose([
        "model=hf_eomt_l", f"model.weights={folder}", "peft=lora",
        "data=digits", "data.size=[32,64]", "data.train=2", "data.val=1", "hparams.batch_size=1",
        "hparams.epochs=1", "trainer.accelerator=cpu", "io.progress=false",
        f"io.results={tmp_path / 'results'}",
    ]))  # fmt: skip
    run.directory.mkdir(parents=True)
    body = train(run)
    assert body["optimizer"]
    assert body["weights"]["drawn"]
    assert len(body["weights"]["sha256"].split("+")) == 2
    assert body["metrics"]


@needs_package
def test_what_does_not_fit_is_refused_while_composing(tmp_path: Path) -> None:
    folder = saved("hf_eomt_l", tmp_path / "eomt")

    def refused(*words: str) -> str:
        with pytest.raises(UserError) as error:
            compose(["data=digits", *words])
        return str(error.value)

    said = refused("model=hf_mask2former_swin_t", f"model.weights={folder}")
    assert "model_type is eomt, that of model=hf_mask2former_swin_t is mask2former" in said
    said = refused("model=hf_eomt_l", f"model.weights={folder}")
    assert "data.size=[128, 128]: model=hf_eomt_l takes images of 64 x 64" in said
    assert "say data.size=[64,64]" in said
    assert "OWNER/NAME@REVISION" in refused("model=hf_eomt_l", "model.weights=hf://eomt")
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"a folder that lacks model.safetensors or config.json"):
        identity(str(folder))
    wrong = replace(family("hf_eomt_l"), options={"num_attention_heads": 5})
    with pytest.raises(UserError, match=r"transformers (builds no eomt|cannot read them)"):
        wrong.build(Subject(NAMES, "instances"))


def test_a_configuration_names_no_code() -> None:
    said: dict[str, Any] = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(said, {"a": {"b": 4}, "d": {"e": 5}}) == {"a": {"b": 4, "c": 2}, "d": {"e": 5}}
    if not installed(HF.package):
        pytest.skip(f"could not import '{HF.package}'")
    from segsweep.model.heads import hf

    config = hf.configuration(
        "eomt", VIT | {"auto_map": {"AutoModel": "x"}, "_attn_implementation": "a/b"}
    )
    assert not hasattr(config, "auto_map")
    assert config._attn_implementation != "a/b"


ABSENT = """
import sys
from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.model.files import locate

def refused(do):
    try:
        do()
    except UserError as error:
        print(error)

words = ["model=hf_eomt_l", "data=digits"]
config = compose(words)
fingerprint(config)
refused(lambda: locate(config.model.weights, download=False))
assert not {"torch", "transformers"} & sys.modules.keys()
refused(lambda: locate(config.model.weights))
sys.modules["transformers"] = None  # as Python itself notes what must not be found
refused(lambda: compose(words))
compose(["model=maskdino_tiny", "data=digits"])
"""


@needs_package
def test_without_the_package_or_the_files_it_is_said_what_to_do(tmp_path: Path) -> None:
    """And nothing large is imported to compose."""
    here = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "SEGSWEEP_WEIGHTS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ABSENT], capture_output=True, text=True, env=os.environ | here
    )
    assert done.returncode == 0, done.stderr
    missing, offline, absent = done.stdout.splitlines()
    name = "hf://tue-mps/coco_instance_eomt_large_640@main"
    assert missing.startswith(f"model.weights={name}: is not here. Where there is a network: hf ")
    assert offline.startswith(f"model.weights={name}: cannot be fetched (")
    for line in (missing, offline):
        for part in ("coco_instance_eomt_large_640 model.safetensors config.json", "HF_HOME"):
            assert part in line
    assert absent == (
        "model=hf_eomt_l is a model of the package transformers, which is not installed: "
        "pip install 'segsweep[hf]'"
    )
