"""Pretrain a head upon EfficientNet-Lite0 on scenes of class-free objects (photo_scenes.py).

    python scripts/vendor_lite0.py WHEEL --out lite0.safetensors
    python scripts/pretrain_photo.py --model photo_solo --lite0 lite0.safetensors \
        --steps 2000 --state solo.pt --out solo.safetensors

The backbone stays frozen. What a step sees is a function of the seed. The rate is full after the
warm-up, and falls to 0 over the last fifth of the steps; the state file is written while it is
full only, so that the same command with more steps, or another side, goes on from there. Beside it
lies the learning curve (.jsonl): scores on held scenes by step and by seconds of the processor that
training took. `--steps 0` writes the backbone under a head as it is drawn, to compare with.
The file names no classes: a set of one class takes what "object" has learnt for it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from photo_scenes import draw
from pretrain_tiny import keep, restore
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segsweep.base.config import Config, compose
from segsweep.data.base import BACKGROUND, Annotation, DataSet, Record
from segsweep.data.formats import masks as rle
from segsweep.data.loader import Batch, EvalLoader, collate
from segsweep.data.transforms import Sample
from segsweep.model.segmenter import Segmenter
from segsweep.model.weights import tensors
from segsweep.run.module import parameter_groups, step_seed

WORDS = Path(__file__).parent / "photo"
RECIPES = {  # rate, and the norm that gradients are clipped at
    "photo_tiny": {"lr": 5e-4, "clip": 1.0},
    "photo_solo": {"lr": 1e-3, "clip": 10.0},
    "photo_segformer": {"lr": 1e-3, "clip": 10.0},
}
WARMUP, FALL = 100, 0.2  # steps, and the part of all at whose end the rate is 0
SURE = 0.5  # score of what is counted as found


@dataclass
class Scenes(DataSet):
    """Held scenes as a data set, for evaluators; training draws its own as it goes."""

    val: int = 48
    side: int = 128

    def classes(self) -> list[str]:
        """Return the one class."""
        return ["object"]

    def records(self, split: str) -> list[Record]:
        """Return the held scenes, whatever the split."""
        return self._records

    def image(self, record: Record) -> np.ndarray:
        """Return the pixels of a scene. (side, side, 3) uint8 RGB"""
        return draw("val", record.image_id, self.side)[0]

    @cached_property
    def _records(self) -> list[Record]:
        return [self._record(index) for index in range(1, self.val + 1)]

    def _record(self, index: int) -> Record:
        objects = rle.encode(draw("val", index, self.side)[1])
        annotations = [
            Annotation(0, o, rle.bbox(o), float(rle.area(o)), id=k)
            for k, o in enumerate(objects, 1)
        ]
        return Record(index, str(index), self.side, self.side, annotations)


@dataclass
class SceneMaps(Scenes):
    """The same for models of label maps; what is judged is read off the objects all the same."""

    task: ClassVar[str] = "semantic"


def composed(a: argparse.Namespace) -> Config:
    """Compose the config, and put the held scenes in its place of data."""
    rates = [f"hparams.{name}={value}" for name, value in RECIPES[a.model].items()]
    maps = a.model == "photo_segformer"
    data = "digits_semantic" if maps else "digits"  # a place for the scenes, and its metrics
    config = compose(["--config-dir", str(WORDS), f"model={a.model}", f"data={data}", *rates])
    kind = SceneMaps if maps else Scenes
    config.data = kind(name="scenes", val=a.held, side=a.side, size=[a.side, a.side])
    return config


def boxes_of(masks: np.ndarray) -> Tensor:
    """Return the boxes of masks. (n, H, W) bool -> (n, 4) cxcywh in parts of the frame"""
    rows = []
    for mask in masks:
        (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
        height, width = bottom + 1 - top, right + 1 - left
        rows.append((left + width / 2, top + height / 2, width, height))
    return torch.tensor(rows, dtype=torch.float32) / masks.shape[1]


def sample(index: int, side: int) -> Sample:
    """Draw a scene of train as a sample, its label map beside its objects."""
    pixels, objects = draw("train", index, side)
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()
    labels = torch.zeros(len(objects), dtype=torch.int64)
    painted = torch.from_numpy(np.where(objects.any(0), 0, BACKGROUND).astype(np.uint8))
    record = Record(index, str(index), side, side, [])
    return Sample(image, labels, boxes_of(objects), torch.from_numpy(objects), record, painted)


def batches(config: Config, done: int, a: argparse.Namespace) -> Iterator[Batch]:
    """Yield the batches of the steps from `done` on."""
    for step in range(done, a.steps):
        first = (a.seed << 32) + step * a.batch
        yield collate([sample(first + k, a.side) for k in range(a.batch)], config.data)


def rate_factor(step: int, steps: int) -> float:
    """Return what multiplies the rate: 1 but for the warm-up and the last fifth."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (FALL * steps))


def score(config: Config, model: Segmenter, device: str) -> dict[str, Any]:
    """Return what is reached on held scenes, in percent: AP, AP50, empty masks, IoU of all."""
    model.eval()
    instances = config.data.task == "instances"
    evaluator = config.metrics.evaluator(config.data, "val") if instances else None
    empty = total = both = either = 0
    for batch in EvalLoader(config.data, "val", 8):
        batch = batch.to(device)
        found = model.find(batch)
        truth = torch.stack([t.masks.any(0) for t in batch.targets])
        if evaluator is not None:
            evaluator.update(batch, found)
            masks = [rle for one in found for rle in one.rles]
            empty, total = empty + sum(rle.area(m) == 0 for m in masks), total + len(masks)
            sure = [one.above(SURE).masks for one in found]
            there = torch.stack([m.any(0) for m in sure])
        else:
            there = torch.stack([one.label_map(True) != BACKGROUND for one in found])
        both, either = both + int((there & truth).sum()), either + int((there | truth).sum())
    values = {"IoU": 100 * both / max(either, 1)}
    if evaluator is not None:
        reached = evaluator.compute()
        values |= {key: reached[key] or 0.0 for key in ("segm_AP", "segm_AP50", "bbox_AP")}
        values["empty"] = 100 * empty / max(total, 1)
    return {name: round(value, 2) for name, value in values.items()}


def tell(a: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Print a line of the learning curve and keep it."""
    print(json.dumps(facts), flush=True)
    with a.state.with_suffix(".jsonl").open("a", encoding="utf-8") as curve:
        curve.write(json.dumps(facts) + "\n")


def train(config: Config, model: Segmenter, a: argparse.Namespace) -> None:
    """Train the head to the end of the steps, from the state file on if there is one."""
    optimizer = torch.optim.AdamW(parameter_groups(model, config.hparams, config.model.roles))
    done, total, count = restore(a.state, model, optimizer), 0.0, 0
    begun = time.process_time()
    for step, batch in enumerate(batches(config, done, a), done):
        model.train()
        torch.manual_seed(step_seed(a.seed, step))
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate_factor(step, a.steps)
        batch = batch.to(a.device)
        loss = model.loss(model(batch.images, batch.targets), batch.targets)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.hparams.clip)
        optimizer.step()
        total, count = total + loss.item(), count + 1
        full = step + 1 <= (1 - FALL) * a.steps
        if (step + 1) % a.every and step + 1 < a.steps:
            continue
        facts = {"model": a.model, "side": a.side, "step": step + 1, "steps": a.steps}
        seconds = {"cpu": round((time.process_time() - begun) / count, 3)}  # of a step
        tell(a, {**facts, **seconds, "loss": total / count, **score(config, model, a.device)})
        if full:
            keep(a.state, step + 1, model, optimizer)
        begun, total, count = time.process_time(), 0.0, 0


def main() -> None:
    """Train, write the whole model."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--model", choices=RECIPES, required=True)
    parser.add_argument("--lite0", type=Path, required=True, help="the backbone's weights")
    parser.add_argument("--steps", type=int, required=True, help="of all, those done included")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=128, help="pixels of a scene")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=200, help="steps between scores")
    parser.add_argument("--held", type=int, default=48, help="scenes that are scored")
    parser.add_argument("--state", type=Path, required=True, help="file to stop and go on with")
    parser.add_argument("--out", type=Path, required=True, help="the whole model")
    a = parser.parse_args()
    config = composed(a)
    torch.manual_seed(a.seed)
    model = config.model.build(config.data.subject())
    plain = load_file(a.lite0)
    model.backbone.load_state_dict(config.model.backbone.weights(plain, model.backbone))
    model.backbone.requires_grad_(False)
    model.to(a.device)
    if a.steps:
        train(config, model, a)
    state = {n: t.cpu().contiguous() for n, t in tensors(model).items()}
    state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    recipe = {k: str(v) for k, v in vars(a).items() if k not in ("lite0", "state", "out")}
    save_file(state, a.out, metadata={"recipe": json.dumps(recipe)})
    print(f"{a.out}  {a.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
