"""Pretrain the tiny Mask DINO on the source domain of the embedded digits (`make base`).

Backbone and head train from scratch; the weights are written in half precision, with the recipe as
metadata, to segsweep/weights/maskdino_tiny.safetensors. Everything is a function of the seed.
"""

from __future__ import annotations

import argparse
import json
import time
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from segsweep.config import Config, compose
from segsweep.data.loader import TrainLoader, eval_loader
from segsweep.model.segmenter import Segmenter
from segsweep.model.weights import tensors
from segsweep.module import learning_rate_factor, parameter_groups, predict, step_seed
from segsweep.sweep.files import write_atomically

WEIGHTS = Path(__file__).parent.parent / "segsweep" / "weights" / "maskdino_tiny.safetensors"
OVERRIDES = (
    "model=maskdino_tiny model.weights=null data=digits data.domain=source data.val=64 "
    "hparams.schedule=cosine hparams.warmup=200 hparams.weight_decay=0.05 hparams.clip=1.0 "
    "hparams.backbone_lr=1.0 trainer.accelerator=cpu"
)


def recolour(images: torch.Tensor) -> torch.Tensor:
    """Change polarity, channels and contrast at random, so that shape is what counts.

    (B, 3, H, W) normalised -> the same; a base that knows one polarity only could not be adapted
    to dark digits on white by training its head.
    """
    several = images.shape[0]
    sign = torch.randint(0, 2, (several, 1, 1, 1)) * 2 - 1
    gain = torch.empty(several, 3, 1, 1).uniform_(0.6, 1.4)
    shift = torch.empty(several, 3, 1, 1).uniform_(-0.5, 0.5)
    channels = torch.rand(several, 3).argsort(1)[:, :, None, None].expand_as(images)
    return images.gather(1, channels) * sign * gain + shift


def pretrain(config: Config, steps: int) -> Segmenter:
    """Train everything from scratch for a number of steps; return the model."""
    torch.manual_seed(config.seed)
    model = config.model.build(len(config.data.classes()))
    model.requires_grad_(True)
    model.train()
    groups = parameter_groups(model, config.hparams)
    optimizer = torch.optim.AdamW(groups)
    loader = TrainLoader(config.data, config.hparams.batch_size, config.seed)
    begun, step = time.time(), 0
    while step < steps:
        for batch in loader:
            torch.manual_seed(step_seed(config.seed, step))
            factor = learning_rate_factor(config.hparams, step, steps)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
            output = model(recolour(batch.images), batch.targets)
            losses = model.loss(output, batch.targets)
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.hparams.clip)
            optimizer.step()
            step += 1
            if step % 50 == 0:
                speed = (time.time() - begun) / step
                left = (steps - step) * speed / 60
                print(f"step {step}/{steps}  loss {losses['loss'].item():.2f}  {left:.0f} min left")
            if step == steps:
                break
    return model.requires_grad_(False).eval()


def score(config: Config, model: Segmenter) -> dict[str, float]:
    """Evaluate on the validation scenes of the source domain."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for batch in eval_loader(config.data, "val", 16):
        evaluator.update(batch, predict(model, batch))
    return evaluator.compute()


def main() -> None:
    """Parse the size of the job, train, write the weights, print what they reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    a = parser.parse_args()
    sizes = f"data.train={a.scenes} hparams.batch_size={a.batch} hparams.lr={a.lr} seed={a.seed}"
    config = compose([*OVERRIDES.split(), *sizes.split()])
    model = pretrain(config, a.steps).half().float()  # measure what is shipped
    values = score(config, model)
    print({name: round(value, 2) for name, value in values.items() if value is not None})
    recipe = {k: str(v) for k, v in vars(a).items() if k != "out"}
    metadata = {
        "classes": json.dumps(config.data.classes()),
        "recipe": json.dumps(recipe),
        "source_segm_AP": f"{values['segm_AP']:.2f}",
    }
    state = {n: t.half() if t.is_floating_point() else t for n, t in tensors(model).items()}
    content = save(state, metadata=metadata)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(a.out, lambda path: path.write_bytes(content))
    print(f"{a.out}  {len(content) / 2**20:.2f} MiB")
    print(f"conf/model/maskdino_tiny.yaml: weights: ...#sha256={sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
