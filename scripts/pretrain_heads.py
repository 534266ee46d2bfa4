"""Pretrain a tiny backbone under its three heads at once, on the source domain.

Boxes (ATSS), masks (SOLO) and label maps (SegFormer) of the same scenes: what the backbone gives is
read by all three, their losses are added. That teaches SegFormer's head figure and ground, and
hardly a class: it goes on alone, on the backbone as it is then, with most of the background left
out. One file holds the backbone once, and each neck and head under the prefix of its official
program.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import torch
from pretrain_tiny import arguments, pretrain, recolour, words, write
from torch import Tensor, nn

from segsweep.base.config import Config, compose
from segsweep.data.base import BACKGROUND, IGNORE
from segsweep.data.loader import Batch, EvalLoader, TrainLoader
from segsweep.model.segmenter import Segmenter
from segsweep.model.weights import tensors

HEADS = {"atss": "digits", "solo": "digits", "segformer": "digits_semantic"}  # and their data
WEIGHTS = {"atss": 1.0, "solo": 1.0, "segformer": 1.0}  # of the losses
RECIPE = {
    "steps": 2000, "batch": 8, "scenes": 4000, "lr": 1e-3,
    "warmup": 200, "clip": 1.0, "map_steps": 2500, "map_lr": 3e-3, "map_background": 0.15,
}  # fmt: skip
RECIPES = {"vit_tiny": RECIPE, "samenc_tiny": RECIPE, "swin_tiny": RECIPE}
OVERRIDES = (
    "model.weights=null data.domain=source data.val=64 hparams.schedule=cosine "
    "hparams.weight_decay=0.05 hparams.backbone_lr=1.0"
)
SHARED = "backbone."


def composed(a: argparse.Namespace) -> dict[str, Config]:
    """Compose the config of each head on its data."""
    backbone, found = a.model, {}
    for head, data in HEADS.items():
        a.model = f"{backbone}_{head}"
        sizes = [f"data={data}", f"data.train={a.scenes}"]
        found[head] = compose([*words(a), *sizes, *OVERRIDES.split()])
    found["segformer"].hparams.lr = a.map_lr
    a.model = backbone
    return found


def together(configs: dict[str, Config]) -> dict[str, Segmenter]:
    """Build the models of all heads around one backbone."""
    models = {h: c.model.build(c.data.subject()) for h, c in configs.items()}
    first, *others = models.values()
    for model in others:
        model.backbone = first.backbone
    return models


def label_maps(config: Config, a: argparse.Namespace) -> Iterator[Batch]:
    """Yield the batches of label maps, of the same scenes as those of instances."""
    done = 0
    if a.state is not None and a.state.exists():
        done = torch.load(a.state, map_location="cpu", weights_only=True)["step"]
    yield from TrainLoader(config.data, a.batch, a.seed, a.workers).batches(done)


def without_background(batch: Batch, share: float) -> Batch:
    """Let only a share of the pixels of no class be known."""
    for target in batch.targets:
        assert target.label_map is not None
        hidden = torch.rand(target.label_map.shape).to(target.label_map.device) >= share
        target.label_map[(target.label_map == BACKGROUND) & hidden] = IGNORE
    return batch


def score(config: Config, model: Segmenter, device: str) -> dict[str, float | None]:
    """Evaluate on the validation scenes of the source domain."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for batch in EvalLoader(config.data, "val", 16):
        evaluator.update(batch, model.find(batch.to(device)))
    return evaluator.compute()


def main() -> None:
    """Train, write the weights, print what they reach."""
    a = arguments(RECIPES)
    configs = composed(a)
    torch.manual_seed(a.seed)
    models = together(configs)
    maps = label_maps(configs["segformer"], a)

    def loss_of(batch: Batch) -> Tensor:
        painted = next(maps).to(a.device)
        if not torch.equal(painted.images, batch.images):
            raise RuntimeError("label maps and instances are of other scenes")
        features = models["atss"].features(recolour(batch.images))
        total = batch.images.new_zeros(())
        for head, model in models.items():
            targets = (painted if HEADS[head] != "digits" else batch).targets
            output = model.sem_seg_head(features, targets)
            total = total + WEIGHTS[head] * model.loss(output, targets)["loss"]
        return total

    def loss_of_map(batch: Batch) -> Tensor:
        with torch.no_grad():
            features = models["segformer"].features(recolour(batch.images))
        targets = without_background(batch, a.map_background).targets
        output = models["segformer"].sem_seg_head(features, targets)
        return models["segformer"].loss(output, targets)["loss"]

    pretrain(nn.ModuleDict(models), loss_of, configs["atss"], a)
    alone = {"steps": a.map_steps, "state": a.state and a.state.with_suffix(".maps.pt")}
    of_maps = argparse.Namespace(**vars(a) | alone)
    pretrain(models["segformer"].sem_seg_head, loss_of_map, configs["segformer"], of_maps)
    reached, state = {}, {}
    for head, model in models.items():
        config, prefix = configs[head], configs[head].model.prefix
        values = score(config, model, a.device)
        print(head, {name: round(value, 2) for name, value in values.items() if value is not None})
        reached[f"source_{head}_{config.metrics.key}"] = f"{values[config.metrics.key]:.2f}"
        for name, tensor in tensors(model).items():
            if name.startswith(SHARED):
                state[name] = tensor
            elif name.startswith("sem_seg_head."):
                state[prefix + name.removeprefix("sem_seg_head.")] = tensor
    classes = json.dumps(configs["atss"].data.classes())
    write(a, state, {"classes": classes, **reached})


if __name__ == "__main__":
    main()
