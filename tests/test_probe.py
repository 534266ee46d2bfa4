"""Linear probing: its sets, its head against plain torch, its recipe, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from segsweep.base.config import Hparams, compose
from segsweep.base.errors import Unfit, UserError
from segsweep.data.base import DataSet, Record, Subject
from segsweep.data.geometry import evaluation_geometry
from segsweep.data.labelled import class_of, filling
from segsweep.data.loader import EvalLoader, TrainLoader, generator
from segsweep.data.transforms import ASPECTS, sample, training_geometry
from segsweep.model.backbones.timm import lars
from segsweep.run import predictions
from segsweep.run.identity import Run
from segsweep.run.module import learning_rate_factor, parameter_groups
from segsweep.run.restore import assemble, restore
from segsweep.story import ready, train
from segsweep.verbs import analyse, check_data, predict

WORDS = ["data=digits_label", "model=vit_tiny_probe"]
TINY = [
    "model.backbone.kwargs={img_size: 16, patch_size: 8, embed_dim: 8, depth: 1, num_heads: 1}",
    "data.size=[32,32]", "model.weights=null",
]  # fmt: skip
SAM = [
    "model=samenc_tiny_probe", "data=digits_label", "data.size=[32,32]", "model.weights=null",
    "model.backbone.kwargs={img_size: 32, patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2, "
    "window_size: 2, global_attn_indexes: [1], use_rel_pos: true, neck_chans: 8}",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of the product by class: train/zero/0.png ... val/nine/3.png"""
    monkeypatch.setenv("SEGSWEEP_CACHE", str(tmp_path / "cache"))
    data = compose([*WORDS, "data.train=40", "data.val=10"]).data
    for split in ("train", "val"):
        for record in data.records(split):
            name = data.classes()[class_of(record)]
            put(tmp_path / "set" / split / name / f"p{record.image_id}.png", data.image(record))
    return tmp_path / "set"


def put(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def image_folder(root: Path, *words: str) -> DataSet:
    return compose(["model=vit_tiny_probe", "data=imagefolder", f"data.root={root}", *words]).data


def test_digits_are_cut_out_evenly_and_stay_where_more_are_asked_for() -> None:
    few, more = (compose([*WORDS, f"data.train={n}", "data.val=10"]).data for n in (20, 24))
    records = few.records("train")
    assert [r.file for r in records] == [r.file for r in more.records("train")[:20]]
    counts = np.bincount([class_of(r) for r in records], minlength=10)
    assert 1 <= counts.min() <= counts.max() <= 3
    for record in records[:4]:
        assert few.image(record).shape == (record.height, record.width, 3)
        scene, _, number = record.file.rpartition("#")
        drawn = few.scene(scene)  # type: ignore[attr-defined]
        assert drawn.labels[int(number)] == class_of(record)
        rows, columns = few._cut(scene, int(number))  # type: ignore[attr-defined]
        assert drawn.masks[int(number)][rows, columns].sum() == drawn.masks[int(number)].sum()


def test_folders_of_classes_are_a_set(folder: Path) -> None:
    data = image_folder(folder)
    assert data.classes() == sorted(p.name for p in (folder / "train").iterdir())
    for split in ("train", "val"):
        known = {r.file: data.classes()[class_of(r)] for r in data.records(split)}
        there = {p.relative_to(folder).as_posix(): p.parent.name
                 for p in (folder / split).rglob("*.png")}  # fmt: skip
        assert known == there
    alone = image_folder(folder / "train", "data.share=0.5")
    assert {class_of(r) for r in alone.records("val")} <= {*range(10)}
    assert len(alone.records("train")) + len(alone.records("val")) == 40
    assert not {r.file for r in alone.records("train")} & {r.file for r in alone.records("val")}
    assert alone.fingerprint() != image_folder(folder / "train", "data.share=0.3").fingerprint()


def test_faulty_folders_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    put(folder / "val/ten/1.png", pixels)
    with pytest.raises(UserError, match=r"val: has folders of classes that train lacks: 1 \(ten\)"):
        image_folder(folder).records("train")
    put(tmp_path / "flat/1.png", pixels)
    with pytest.raises(UserError, match=r"train has no class folders.*a folder of pictures"):
        image_folder(tmp_path / "flat").classes()
    put(tmp_path / "one/cat/1.png", pixels)
    with pytest.raises(UserError, match="1 pictures of cat are of one photograph"):
        image_folder(tmp_path / "one").records("train")
    for name in ("1.png", "b.png"):
        put(tmp_path / f"one/cat/{name}", pixels)
    with pytest.raises(UserError, match="has one class, cat"):
        image_folder(tmp_path / "one").records("train")


@pytest.mark.parametrize(("words", "told"), [
    (["data.train=9", "data.val=1"], "has 10 classes, but train only 9 pictures"),
    (["data.domain=clean"], "has one class, digit"),
])  # fmt: skip
def test_what_cannot_be_told_apart_is_refused_before_torch(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ready(compose([*WORDS, *words]))


@pytest.mark.parametrize(("words", "told"), [
    (["model=vit_tiny_probe", "data=digits"], "serves the task label, that of data=digits"),
    (["data=digits_label"], "model=maskdino_tiny serves .* that of data=digits_label is label"),
    ([*WORDS, "metrics=miou"], "judges label maps, but data=digits_label has classes of pictures"),
])  # fmt: skip
def test_words_of_another_task_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(Unfit, match=told):
        compose(words)


@pytest.mark.parametrize(("words", "told"), [
    (["data=digits", "data.transform=part"], "may cut off what is to be found"),
    ([*WORDS, "data.transform=part"], r"scale=\[0.1, 2.0\]: .* at most 1"),
    (["hparams.warmup=3", "hparams.warmup_part=0.1"], "warmup=3: hparams.warmup_part=0.1 says"),
    ([*WORDS, "data.negatives=keep"], "negatives=keep: is for sets of instances"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        compose(words)


@pytest.mark.parametrize("pool", ["cls", "avg"])
def test_the_head_is_ten_lines_of_torch(pool: str) -> None:
    config = compose([*WORDS, *TINY, f"model.pool={pool}", "data.train=10", "data.val=4"])
    torch.manual_seed(0)
    model = config.model.build(config.data.subject()).train()
    batch = next(TrainLoader(config.data, 5, 0).batches(0))
    vit, head = model.backbone, model.sem_seg_head
    tokens = vit.norm(vit.steps()[1].run(vit.steps()[0].run({"images": batch.images}))["x"])
    vector = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)
    normed = (vector - vector.mean(0)) / (vector.var(0, unbiased=False) + 1e-6).sqrt()
    logits = F.linear(normed, head.fc.weight, head.fc.bias)
    truth = torch.cat([target.labels for target in batch.targets])
    loss = -logits.log_softmax(1)[range(5), truth].mean()
    torch.testing.assert_close(model(batch.images).logits, logits)
    torch.testing.assert_close(model.loss(model(batch.images), batch.targets)["loss"], loss)
    found = model.eval().find(batch)
    running = (vector - head.norm.running_mean) / (head.norm.running_var + 1e-6).sqrt()
    scores = F.linear(running, head.fc.weight, head.fc.bias).softmax(1)
    torch.testing.assert_close(torch.stack([each.scores for each in found]), scores)
    assert head.fc.weight.std().item() == pytest.approx(0.01, rel=0.3)


def test_what_is_pooled_of_sam_is_before_its_neck_or_behind_it() -> None:
    behind, before = (compose([*SAM, f"model.pool={pool}"]) for pool in ("avg_neck", "avg"))
    (with_neck, _, _), (without, _, _) = (
        assemble(c, c.data.classes(), c.data.subject()) for c in (behind, before)
    )
    images = torch.randn(2, 3, 32, 32)
    without.backbone.load_state_dict(with_neck.backbone.state_dict(), strict=False)
    neck, (tokens,) = with_neck.backbone.neck, without.backbone(images)
    assert tokens.shape == (2, 16, 4, 4)
    torch.testing.assert_close(neck(tokens), with_neck.backbone(images)[0])
    assert with_neck.sem_seg_head.fc.in_features == 8
    with pytest.raises(UserError, match=r"has no class token; choose model\.pool=avg"):
        compose([*SAM, "model.pool=cls"]).model.build(Subject(["a", "b"], "label"))
    with pytest.raises(UserError, match=r"has no neck of its own; choose model\.pool=avg"):
        compose([*WORDS, "model.pool=avg_neck"]).model.build(Subject(["a", "b"], "label"))


def test_any_vision_transformer_of_timm_gives_its_class_token() -> None:
    kwargs = "{img_size: 32, patch_size: 16, embed_dim: 16, depth: 1, num_heads: 2}"
    words = ["model=vit_probe", "data=digits_label", "model.backbone.name=Eva",
             f"model.backbone.kwargs={kwargs}"]  # fmt: skip
    model = compose(words).model.build(Subject(["a", "b"], "label")).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = model.backbone.model.forward_features(images)
    torch.testing.assert_close(model.backbone(images)[0][..., 0, 0], tokens[:, 0])


def test_one_picture_alone_cannot_be_normed() -> None:
    config = compose([*WORDS, *TINY])
    model = config.model.build(Subject(["a", "b"], "label")).train()
    with pytest.raises(UserError, match=r"choose hparams\.batch_size"):
        model(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("method", [
    "fix", "full_ft", "bitfit", "lora", "ssf", "vpt", "lst peft.reduction=8"
])  # fmt: skip
def test_methods_act_on_a_probe(method: str) -> None:
    for word in ("vit_tiny_probe", "samenc_tiny_probe"):
        config = compose(["data=digits_label", f"model={word}", *f"peft={method}".split()])
        model, _, counts = assemble(config, list("ab"), Subject(list("ab"), "label"))
        head = model.sem_seg_head
        assert head.fc.weight.requires_grad
        assert (counts.trainable == 2 * head.fc.in_features + 2) == (method == "fix")
        loss = model.train()(torch.randn(2, 3, 32, 32)).logits[:, 0].square().sum()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_parts_of_pictures_are_those_of_torchvision() -> None:
    data = image_folder(Path("any"), "data.size=[28,28]", "data.resample=bicubic")
    record = Record(1, "a.png", 60, 90, [filling(0, (60, 90))])
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    seen = sample(pixels, record, evaluation_geometry(data, record)).image
    steps = v2.Compose(
        [v2.Resize(32, v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(28)]
    )
    torch.testing.assert_close(seen, steps(torch.from_numpy(pixels).permute(2, 0, 1)))
    areas, aspects, flips = [], [], 0
    for k in range(400):
        geometry = training_geometry(data, record, generator(0, 0, k))
        height, width = (28 * a / r for a, r in zip((60, 90), geometry.resized, strict=True))
        areas.append(height * width / 5400)
        aspects.append(width / height)
        flips += geometry.flip
        assert (geometry.size, geometry.resample) == ((28, 28), data.resample)
        assert all(o + 28 <= r for o, r in zip(geometry.offset, geometry.resized, strict=True))
    assert 0.07 < min(areas) < 0.12
    assert max(areas) <= 1
    assert ASPECTS[0] * 0.95 < min(aspects) < max(aspects) < ASPECTS[1] * 1.05
    assert 150 < flips < 250


def test_top1_is_a_direct_count_and_comes_from_what_is_kept(tmp_path: Path) -> None:
    words = [*WORDS, *TINY, "data.train=20", "data.val=10", "peft=fix", "hparams=probe",
             "hparams.epochs=2", "hparams.batch_size=10", f"io.results={tmp_path}",
             "io.progress=false", "trainer.accelerator=cpu"]  # fmt: skip
    run = Run(compose(words))
    run.once(train)
    record = json.loads((run.directory / "record.json").read_text())
    kept = dict(predictions.of_run(run.directory))
    truth = {r.image_id: class_of(r) for r in run.config.data.records("val")}
    right = [kept[image_id][0] == label for image_id, label in truth.items()]
    assert record["metrics"]["top1"]["value"] == pytest.approx(100 * np.mean(right))
    assert record["optimizer"][0]["lr"] == pytest.approx(0.1 * 10 / 256)
    assert [row["class"] for row in record["classes"]] == run.config.data.classes()
    restored = restore(run.directory)
    for batch in EvalLoader(run.config.data, "val", 10):
        assert [each.best[0] for each in restored.model.find(batch)] == [
            kept[image_id][0] for image_id in batch.image_ids
        ]
    picture = tmp_path / "a.png"
    put(picture, run.config.data.image(run.config.data.records("val")[0]))
    out = tmp_path / "out"
    assert predict.main([str(run.directory), f"images={picture}", f"out={out}"]) == 0
    name = run.config.data.classes()[kept[1][0]]
    assert (out / "classes.csv").read_text().splitlines()[1].startswith(f"a.png,{name},")
    with pytest.raises(UserError, match="no objects and no regions to match"):
        analyse.main([str(run.directory), "--results", str(tmp_path)])


def test_check_data_counts_the_pictures_of_each_class(folder: Path, tmp_path: Path) -> None:
    words = ["model=vit_tiny_probe", "data=imagefolder", f"data.root={folder}", "--quiet"]
    check_data.main([*words, "--out", str(tmp_path / "report")])
    report = json.loads((tmp_path / "report/report.json").read_text())
    rows = {row["name"]: row["images"] for row in report["parts"]["train"]["classes"]}
    assert rows == {p.name: len([*p.iterdir()]) for p in (folder / "train").iterdir()}
    assert report["ceilings"] == {}


def test_lars_is_that_of_mae() -> None:
    """MAE's rule: q = 0.001 |w| / |g| for matrices, 1 for biases; m = 0.9 m + q g; w -= lr m."""
    torch.manual_seed(0)
    layer, lr = nn.Linear(4, 3), 0.5
    mine, moments = [p.detach().clone() for p in layer.parameters()], [0.0, 0.0]
    optimizer = lars([{"params": [*layer.parameters()], "lr": lr, "weight_decay": 0.0}], 0.9)
    x = torch.randn(5, 4)
    for _ in range(3):
        layer.zero_grad()
        layer(x).square().sum().backward()
        for k, p in enumerate(layer.parameters()):
            assert p.grad is not None
            q = 0.001 * mine[k].norm() / p.grad.norm() if p.ndim > 1 else 1.0
            moments[k] = 0.9 * moments[k] + q * p.grad
            mine[k] = mine[k] - lr * moments[k]
        optimizer.step()
    for p, wanted in zip(layer.parameters(), mine, strict=True):
        torch.testing.assert_close(p.detach(), wanted)


def test_the_rate_follows_the_batch_and_a_part_of_training_warms_up() -> None:
    h = compose(["hparams=probe", "hparams.batch_size=512", *WORDS]).hparams
    assert h.rate == pytest.approx(0.2)
    assert Hparams("x", lr=0.3, batch_size=7).rate == 0.3
    found = [learning_rate_factor(h, step, 900) for step in (0, 99, 100, 500, 900)]
    wanted = [1 / 101, 100 / 101, 1, 0.5, 0]
    assert found == pytest.approx(wanted, abs=1e-3)
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert parameter_groups(model, h, {})[-1]["lr"] == pytest.approx(0.2)
