"""Pretrain a tiny model on the source domain of the embedded digits (`make base`).

Everything trains from scratch, the text encoder of SEEM too; the weights are written in half
precision, with the recipe as metadata, to segsweep/weights/<model>.safetensors. What a step sees is
a function of the seed; numbers are the same again on the same kind of device.
"""

from __future__ import annotations

import argparse
import json
import time
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from segsweep.base.config import Config, compose
from segsweep.base.files import write_atomically
from segsweep.data.loader import EvalLoader, TrainLoader
from segsweep.model.segmenter import Segmenter
from segsweep.model.weights import tensors
from segsweep.run.module import learning_rate_factor, parameter_groups, step_seed

WEIGHTS = Path(__file__).parent.parent / "segsweep" / "weights"
RECIPES = {  # SEEM's queries have no denoising to be guided by: more steps, and classes count more
    "maskdino_tiny": {
        "steps": 4000, "batch": 8, "scenes": 8000, "lr": 5e-4,
        "warmup": 200, "clip": 1.0, "ce": 4.0,
    },
    "seem_tiny": {
        "steps": 6000, "batch": 8, "scenes": 8000, "lr": 1e-3,
        "warmup": 200, "clip": 1.0, "ce": 8.0,
    },
}  # fmt: skip
OVERRIDES = (
    "model.weights=null data=digits data.domain=source data.val=64 hparams.schedule=cosine "
    "hparams.weight_decay=0.05 hparams.backbone_lr=1.0"
)


def recolour(images: Tensor) -> Tensor:
    """Change polarity, channels and contrast at random, so that shape is what counts.

    (B, 3, H, W) normalised -> the same; a base that knows one polarity only could not be adapted
    to dark digits on white by training its head.
    """
    several, device = images.shape[0], images.device
    sign = torch.randint(0, 2, (several, 1, 1, 1)) * 2 - 1
    gain = torch.empty(several, 3, 1, 1).uniform_(0.6, 1.4)
    shift = torch.empty(several, 3, 1, 1).uniform_(-0.5, 0.5)
    channels = torch.rand(several, 3).argsort(1)[:, :, None, None]
    mixed = images.gather(1, channels.to(device).expand_as(images))
    return mixed * sign.to(device) * gain.to(device) + shift.to(device)


def pretrain(config: Config, steps: int, device: str, state: Path | None) -> Segmenter:
    """Train everything from scratch for a number of steps; return the model.

    `state` is a file to go on from if it exists; every 500 steps it is written.
    """
    torch.manual_seed(config.seed)
    model = config.model.build(config.data.subject()).to(device)
    model.requires_grad_(True)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config.hparams, config.model.roles))
    done = restore(state, model, optimizer)
    loader = TrainLoader(
        config.data, config.hparams.batch_size, config.seed, config.io.workers or 0
    )
    begun, total = time.time(), torch.zeros((), device=device)
    for step, batch in enumerate(loader.batches(done, steps - done), done):
        torch.manual_seed(step_seed(config.seed, step))
        factor = learning_rate_factor(config.hparams, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        batch = batch.to(device)
        output = model(recolour(batch.images), batch.targets)
        loss = model.loss(output, batch.targets)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.hparams.clip)
        optimizer.step()
        total += loss.detach()
        if (step + 1) % 50 == 0:
            left = (steps - step - 1) * (time.time() - begun) / (step + 1 - done) / 60
            mean = total.item() / 50
            print(f"step {step + 1}/{steps}  loss {mean:.2f}  {left:.0f} min left", flush=True)
            total.zero_()
        if state and (step + 1) % 500 == 0:
            keep(state, step + 1, model, optimizer)
    return model.requires_grad_(False).eval()


def restore(state: Path | None, model: Segmenter, optimizer: torch.optim.Optimizer) -> int:
    """Load what `keep` wrote, if anything; return the number of steps done."""
    if state is None or not state.exists():
        return 0
    parts = torch.load(state, map_location="cpu", weights_only=True)
    model.load_state_dict(parts["model"])
    optimizer.load_state_dict(parts["optimizer"])
    return parts["step"]


def keep(state: Path, step: int, model: Segmenter, optimizer: torch.optim.Optimizer) -> None:
    """Write what is needed to go on after a step."""
    parts = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    write_atomically(state, lambda path: torch.save(parts, path))


def score(config: Config, model: Segmenter, device: str) -> dict[str, float]:
    """Evaluate on the validation scenes of the source domain."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for batch in EvalLoader(config.data, "val", 16):
        evaluator.update(batch, model.find(batch.to(device)))
    return evaluator.compute()


def arguments() -> argparse.Namespace:
    """Read the command line; what it leaves out comes from the model's recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=RECIPES, default="maskdino_tiny")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: segsweep/weights/<model>.safetensors")
    parser.add_argument("--state", type=Path, help="file to stop and go on with")
    for name, value in RECIPES["maskdino_tiny"].items():
        parser.add_argument(f"--{name}", type=type(value))
    known, _ = parser.parse_known_args()
    parser.set_defaults(**RECIPES[known.model], out=WEIGHTS / f"{known.model}.safetensors")
    return parser.parse_args()


def main() -> None:
    """Train, write the weights, print what they reach."""
    a = arguments()
    sizes = (
        f"model={a.model} seed={a.seed} data.train={a.scenes} io.workers={a.workers} "
        f"hparams.batch_size={a.batch} hparams.lr={a.lr} hparams.warmup={a.warmup} "
        f"hparams.clip={a.clip} model.loss.ce={a.ce}"
    )
    config = compose([*OVERRIDES.split(), *sizes.split()])
    # measure what is shipped
    model = pretrain(config, a.steps, a.device, a.state).half().float()
    values = score(config, model, a.device)
    print({name: round(value, 2) for name, value in values.items() if value is not None})
    recipe = {name: str(getattr(a, name)) for name in ("seed", "device", *RECIPES[a.model])}
    metadata = {
        "classes": json.dumps(config.data.classes()),
        "recipe": json.dumps(recipe),
        "source_segm_AP": f"{values['segm_AP']:.2f}",
    }
    state = {n: t.cpu() for n, t in tensors(model).items()}
    state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    content = save(state, metadata=metadata)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(a.out, lambda path: path.write_bytes(content))
    digest = sha256(content).hexdigest()
    print(f"{a.out}  {len(content) / 2**20:.2f} MiB")
    facts = f"sha256={digest}&knows={config.data.name}"
    print(f"conf/model/{a.model}.yaml: weights: segsweep://{a.out.name}#{facts}")


if __name__ == "__main__":
    main()
