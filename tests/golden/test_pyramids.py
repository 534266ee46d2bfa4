"""Necks agree with mmdet and VFM-Adapter in outputs, gradients, names and numbers of weights."""

from __future__ import annotations

import re

import pytest
import torch
from recorded import FOLDER
from sam_models import Heads, gradients

from segsweep.model.necks import fpn, sfp

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
}


@pytest.fixture(scope="module")
def heads() -> Heads:
    return Heads(FOLDER / "heads")


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
