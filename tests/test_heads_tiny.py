"""The tiny backbones that ship know digits under each of their three heads."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from segsweep.base.config import compose
from segsweep.base.package import packaged
from segsweep.data.loader import EvalLoader
from segsweep.model.files import locate

BACKBONES = ("vit_tiny", "samenc_tiny", "swin_tiny")
HEADS = {  # data, what a base must reach on eight scenes
    "atss": ("digits", "bbox_AP", 55.0),
    "solo": ("digits", "segm_AP", 25.0),
    "segformer": ("digits_semantic", "mIoU_fg", 8.0),
}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_a_base_finds_what_it_was_taught(backbone, head):
    data, metric, least = HEADS[head]
    words = [f"model={backbone}_{head}", f"data={data}", "data.domain=source", "data.val=8"]
    config = compose(words)
    model = config.model.build(config.data.subject())
    report = config.model.load(model, config.data.classes(), 0)
    assert not report.drawn
    evaluator = config.metrics.evaluator(config.data, "val")
    with torch.no_grad():
        for batch in EvalLoader(config.data, "val", 8):
            evaluator.update(batch, model.eval().find(batch))
    assert evaluator.compute()[metric] > least


@pytest.mark.parametrize("backbone", BACKBONES)
def test_three_heads_share_a_file_that_says_what_it_reached(backbone):
    sources = {
        compose([f"model={backbone}_{h}", f"data={d[0]}"]).model.weights for h, d in HEADS.items()
    }
    (file,) = {locate(source) for source in (s.partition("&larger")[0] for s in sources)}
    assert file.stat().st_size < 5 * 2**20
    with safe_open(str(file), "pt") as content:
        said = content.metadata()
    assert {"recipe", "classes", "source_solo_segm_AP"} <= said.keys()
    assert float(said["source_segformer_mIoU_fg"]) > 10


def test_the_wheel_stays_small():
    weights = sum(file.stat().st_size for file in Path(packaged("segsweep/weights")).glob("*"))
    assert weights < 28 * 2**20
