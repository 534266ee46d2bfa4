"""The tiny SAM that ships: a whole one that answers prompts, and learns what its word shows."""

import sys
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

from segsweep.base.config import compose
from segsweep.data.loader import EvalLoader, TrainLoader
from segsweep.model.files import locate
from segsweep.model.weights import read
from segsweep.peft.apply import apply

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
pretraining = import_module("pretrain_sam")

WORDS = ["model=sam_tiny", "data=digits_binary", "data.train=8", "data.val=8"]


def test_its_file_is_a_whole_sam_that_finds_what_a_point_is_on():
    config = compose([*WORDS, "data.domain=source"])
    file = locate(config.model.weights)
    assert file.stat().st_size < 1.5e6
    with safe_open(str(file), "pt") as content:
        assert "source_point_IoU" in content.metadata()
    model = config.model.whole()
    model.load_state_dict(config.model.ours(read(file)[0]))
    (batch,) = EvalLoader(
        compose(["data=digits", "data.domain=source", "data.val=8"]).data, "val", 8
    )
    truth = torch.stack([target.masks[0] for target in batch.targets])
    torch.manual_seed(0)
    with torch.no_grad():
        masks, quality = model.eval()(batch.images, **pretraining.points_on(truth, truth))
        loss = pretraining.prompted_loss(model, batch.images, batch.targets)
    found = pretraining.iou(
        F.interpolate(masks, truth.shape[1:], mode="bilinear"), truth[:, None].float()
    )
    best = quality[:, 1:].argmax(1, keepdim=True) + 1
    assert found.gather(1, best).mean() > 0.6
    assert (quality - found).abs().mean() < 0.2
    assert loss < 4


def test_without_prompts_it_finds_no_family_of_strokes_and_learns_to():
    config = compose([*WORDS, "peft=lora"])
    model = config.model.build(config.data.subject())
    assert not config.model.load(model, config.data.classes(), 0).drawn
    evaluator = config.metrics.evaluator(config.data, "val")
    for batch in EvalLoader(config.data, "val", 8):
        evaluator.update(batch, model.find(batch))
    assert evaluator.compute()["IoU_set"] < 10
    torch.manual_seed(0)
    apply(model, config.peft, config.model.roles)
    batch = next(TrainLoader(config.data, 4, 0).batches(0))
    trained = [p for p in model.train().parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, config.hparams.lr), []
    for _ in range(12):
        losses.append(model.loss(model(batch.images, batch.targets), batch.targets)["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
