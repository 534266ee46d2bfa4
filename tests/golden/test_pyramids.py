"""Necks and SegFormer's head agree with their programs: outputs, losses, gradients, names, sizes.

The programs are mmdet, VFM-Adapter, mmseg and NVlabs/SegFormer.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from recorded import FOLDER
from sam_models import Heads, gradients
from torch import nn

from segsweep.data.base import IGNORE, Subject
from segsweep.data.loader import Target
from segsweep.loss.outputs import PixelLogits
from segsweep.model.necks import fpn, none, sfp
from segsweep.model.segformer import Average, HeadForm, SegFormer

pytestmark = pytest.mark.golden
SFP = {"atss": [2, 1, 0.5, 0.25], "vitdet": [4, 2, 1, 0.5]}
FPN = {
    "swin_atss": {"start": 1, "outputs": 5, "extra": "conv"},
    "solo": {"start": 0, "outputs": 5, "extra": "pool"},
    "seg4": {"start": 0, "outputs": 4},
}
WIDTHS = {
    "Swin-T": [96, 192, 384, 768],
    "Swin-B": [128, 256, 512, 1024],
    "Swin-L": [192, 384, 768, 1536],
    "R50": [256, 512, 1024, 2048],
}
READ = {
    "sfp": r"in/x|\w+/(sd/.+|grad_in|cotangent\d|out\d(_detectron2_lastlevelmaxpool)?)",
    "fpn": r"in/x\d|\w+/(sd/.+|grad_in3|out\d)",
    "segformer": r"in/(label|x\d)|(mm|nv)/(sd/.+|(eval_logits|train_logits_nodropout)"
    r"|loss_ce(_avg_non_ignore)?|acc_seg|grad_in1|pred_argmax\d|running_mean_after)",
}
FORMS = {"mm": HeadForm["mmseg"], "nv": HeadForm["nvidia"]}


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(FOLDER / "heads")


@pytest.fixture(scope="module", params=FORMS)
def segformer(heads, request) -> tuple[str, SegFormer, nn.Module]:
    """One of both forms with the recorded weights, without dropout, and its family."""
    case, config = request.param, heads.config("segformer")
    family = SegFormer(name="x", form=FORMS[case], channels=config["ch"], dropout=0)
    neck = none.build(config["ins"], [4, 8, 16, 32])
    head = family.head(neck, subject_of(config["K"]))
    head.load_state_dict(recorded_weights(heads, case))
    return case, family, head


def recorded_weights(heads: Heads, case: str) -> dict[str, torch.Tensor]:
    """All that are used: NVlabs' head has `conv_seg` from its base class, and never calls it."""
    state = heads.state("segformer", f"{case}/sd/")
    return {n: t for n, t in state.items() if case != "nv" or not n.startswith("conv_seg.")}


def subject_of(classes: int) -> Subject:
    return Subject(tuple(map(str, range(classes))), "semantic", background=False)


def compare_norms(heads: Heads, file: str, case: str, model: torch.nn.Module) -> None:
    """Gradients of all parameters, of which only the norms are recorded."""
    norms = heads.manifest[file]["grad_norms"][case]
    found = {name: float(g.norm()) for name, g in gradients(model).items()}
    assert found == pytest.approx(norms, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("case", SFP)
def test_simple_feature_pyramid(heads, case):
    arrays, config = heads.arrays("sfp"), heads.config("sfp")
    state = heads.state("sfp", f"{case}/sd/")
    neck = sfp.build([config["dim"]], [16], SFP[case], config["out"])
    neck.load_state_dict(state)
    x = arrays["in/x"].clone().requires_grad_()
    levels = neck([x])
    assert neck.strides == [16 / scale for scale in SFP[case]] + [32 / SFP[case][-1]]
    assert [level.shape[1] for level in levels] == neck.channels
    for i, level in enumerate(levels):
        heads.check("sfp", f"{case}/out{i}", level)
    sum((y * arrays[f"{case}/cotangent{i}"]).sum() for i, y in enumerate(levels)).backward()
    heads.check("sfp", f"{case}/grad_in", x.grad)
    compare_norms(heads, "sfp", case, neck)
    other = sfp.build([config["dim"]], [16], SFP[case], config["out"], top="subsample")
    other.load_state_dict(state)
    heads.check("sfp", f"{case}/out4_detectron2_lastlevelmaxpool", other([x])[4])


@pytest.mark.parametrize("case", FPN)
def test_feature_pyramid_network(heads, case):
    arrays, config = heads.arrays("fpn"), heads.config("fpn")
    neck = fpn.build(config["swin"], [4, 8, 16, 32], **FPN[case], out=config["out"])
    neck.load_state_dict(heads.state("fpn", f"{case}/sd/"))
    maps = [arrays[f"in/x{i}"] for i in range(len(config["swin"]))]
    last = maps[-1] = maps[-1].clone().requires_grad_()
    levels = neck(maps)
    first = 4 * 2 ** FPN[case]["start"]
    assert neck.strides == [first * 2**i for i in range(len(levels))]
    assert [level.shape[1] for level in levels] == neck.channels
    for i, level in enumerate(levels):
        heads.check("fpn", f"{case}/out{i}", level)
    (sum((level**2).sum() for level in levels) / 2).backward()
    heads.check("fpn", f"{case}/grad_in3", last.grad)
    compare_norms(heads, "fpn", case, neck)


@torch.no_grad()
def test_segformer_predicts(heads, segformer):
    case, _, head = segformer
    arrays, config = heads.arrays("segformer"), heads.config("segformer")
    output = head.eval()([arrays[f"in/x{i}"] for i in range(4)])
    heads.check("segformer", f"{case}/eval_logits", output.logits)
    size = tuple(config["img"])
    views = [(size, size, tuple(original)) for original in config["ori"]]
    for i, found in enumerate(head.predict(output, views)):
        heads.check("segformer", f"{case}/pred_argmax{i}", found.label_map(background=True))
    # recorded weights hold the statistics that the recorded step has left: its own cannot be redone
    last = [m for m in head.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    heads.check("segformer", f"{case}/running_mean_after", last.running_mean)


def test_segformer_trains(heads, segformer):
    """One step: logits by the statistics of the batch, losses, gradients, accuracy."""
    case, family, head = segformer
    head.load_state_dict(recorded_weights(heads, case))
    head.train().zero_grad()
    arrays = heads.arrays("segformer")
    maps = [arrays[f"in/x{i}"] for i in range(4)]
    read = maps[1] = maps[1].clone().requires_grad_()
    output = head(maps)
    heads.check("segformer", f"{case}/train_logits_nodropout", output.logits)
    none_ = torch.zeros(0)
    targets = [Target(none_, none_, none_, label_map=m) for m in arrays["in/label"][:, 0]]
    assert (arrays["in/label"] == IGNORE).any()
    losses = {}
    for average in Average:
        criterion = replace(family, average=average).criterion(head.neck, subject_of(1))
        losses[average.name] = criterion(output, targets)["loss_ce"]
    heads.check("segformer", f"{case}/loss_ce", losses["all"])
    heads.check("segformer", f"{case}/loss_ce_avg_non_ignore", losses["known"])
    losses["all"].backward()
    heads.check("segformer", f"{case}/grad_in1", read.grad)
    compare_norms(heads, "segformer", case, head)
    size = tuple(heads.config("segformer")["img"])
    found = head.predict(PixelLogits(output.logits.detach()), [(size, size, size)] * 2)
    right = torch.stack([f.classes for f in found]) == arrays["in/label"][:, 0]
    known = arrays["in/label"][:, 0] != IGNORE
    heads.check("segformer", f"{case}/acc_seg", 100 * right[known].float().mean()[None])


def test_segformer_has_the_published_sizes(heads):
    counts, seen = heads.json("param_counts"), 0
    named = r"SegformerHead (in 4x256|Swin-B) channels=(\d+) K=(\d+)"
    for name, count in counts.items():
        if match := re.fullmatch(named, name):
            seen += 1
            widths = WIDTHS.get(match[1], [256] * 4)
            with torch.device("meta"):
                family = SegFormer(name="x", channels=int(match[2]))
                neck = none.build(widths, [4, 8, 16, 32])
                head = family.head(neck, subject_of(int(match[3])))
            assert sum(p.numel() for p in head.parameters()) == count, name
    assert seen == sum(name.startswith("SegformerHead") for name in counts) == 7


def test_necks_have_the_published_sizes(heads):
    counts, seen = heads.json("param_counts"), 0
    with torch.device("meta"):
        for name, count in counts.items():
            if match := re.fullmatch(r"SFP d=(\d+) scales (\S+)", name):
                neck = sfp.build([int(match[1])], [16], [float(s) for s in match[2].split(",")])
            elif match := re.fullmatch(r"FPN (\S+) start(\d) (on_output )?(\d).*", name):
                form = {"start": int(match[2]), "outputs": int(match[4])}
                form["extra"] = "conv" if match[3] else "pool"
                neck = fpn.build(WIDTHS[match[1]], [4, 8, 16, 32], **form)
            else:
                continue
            seen += 1
            assert sum(p.numel() for p in neck.parameters()) == count, name
    assert seen == sum(name.startswith(("SFP", "FPN")) for name in counts)


@pytest.mark.parametrize("file", READ)
def test_every_array_is_compared(heads, file):
    arrays = heads.arrays(file)
    assert arrays
    assert not [name for name in arrays if not re.fullmatch(READ[file], name)]
