"""Pretrain a tiny model on the source domain of the embedded digits (`make base`).

Everything trains from scratch, the text encoder of SEEM too; the weights are written in half
precision, with the recipe as metadata, to segsweep/weights/<model>.safetensors. What a step sees is
a function of the seed; numbers are the same again on the same kind of device.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from segsweep.base.config import Config, compose
from segsweep.base.files import write_atomically
from segsweep.data.loader import Batch, EvalLoader, TrainLoader
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


def pretrain(
    model: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    config: Config,
    a: argparse.Namespace,
) -> None:
    """Train all of a model for a number of steps, then round it to half precision as it ships.

    `a.state` is a file to go on from if it exists; every 500 steps it is written.
    """
    steps, device, state = a.steps, a.device, a.state
    model.to(device).requires_grad_(True)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config.hparams, config.model.roles))
    done = restore(state, model, optimizer)
    loader = TrainLoader(config.data, config.hparams.batch_size, config.seed, a.workers)
    begun, total = time.time(), torch.zeros((), device=device)
    for step, batch in enumerate(loader.batches(done, steps - done), done):
        torch.manual_seed(step_seed(config.seed, step))
        factor = learning_rate_factor(config.hparams, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        loss = loss_of(batch.to(device))
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
    model.requires_grad_(False).eval().half().float()


def restore(state: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load what `keep` wrote, if anything; return the number of steps done."""
    if state is None or not state.exists():
        return 0
    parts = torch.load(state, map_location="cpu", weights_only=True)
    model.load_state_dict(parts["model"])
    optimizer.load_state_dict(parts["optimizer"])
    return parts["step"]


def keep(state: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write what is needed to go on after a step."""
    parts = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    write_atomically(state, lambda path: torch.save(parts, path))


def score(config: Config, model: Segmenter, device: str) -> dict[str, float]:
    """Evaluate on the validation scenes of the source domain."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for batch in EvalLoader(config.data, "val", 16):
        evaluator.update(batch, model.find(batch.to(device)))
    return evaluator.compute()


def write(a: argparse.Namespace, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write weights in half precision, and say what the model's yaml is to name."""
    state = {n: t.cpu() for n, t in weights.items()}
    state = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    recipe = {name: str(getattr(a, name)) for name in ("seed", "device", *a.recipe)}
    content = save(state, metadata={"recipe": json.dumps(recipe), **metadata})
    a.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(a.out, lambda path: path.write_bytes(content))
    digest = sha256(content).hexdigest()
    print(f"{a.out}  {len(content) / 2**20:.2f} MiB")
    facts = f"sha256={digest}&knows=digits&licence=apache-2.0"  # as the package
    print(f"conf/model/{a.model}.yaml: weights: segsweep://{a.out.name}#{facts}")


def arguments(recipes: Mapping[str, Mapping[str, float]]) -> argparse.Namespace:
    """Read the command line; what it leaves out comes from the model's recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    first = next(iter(recipes))
    parser.add_argument("--model", choices=recipes, default=first)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: segsweep/weights/<model>.safetensors")
    parser.add_argument("--state", type=Path, help="file to stop and go on with")
    for name, value in recipes[first].items():
        parser.add_argument(f"--{name}", type=type(value))
    known, _ = parser.parse_known_args()
    recipe = recipes[known.model]
    parser.set_defaults(**recipe, recipe=[*recipe], out=WEIGHTS / f"{known.model}.safetensors")
    return parser.parse_args()


def words(a: argparse.Namespace) -> list[str]:
    """Return the words of a run with the sizes of a recipe."""
    return [
        *(f"model={a.model}", f"seed={a.seed}", f"hparams.batch_size={a.batch}"),
        *(f"hparams.{name}={getattr(a, name)}" for name in ("lr", "warmup", "clip")),
    ]


def main() -> None:
    """Train, write the weights, print what they reach."""
    a = arguments(RECIPES)
    sizes = [f"data.train={a.scenes}", f"model.loss.ce={a.ce}"]
    config = compose([*OVERRIDES.split(), *words(a), *sizes])
    torch.manual_seed(config.seed)
    model = config.model.build(config.data.subject())

    def loss_of(batch: Batch) -> Tensor:
        output = model(recolour(batch.images), batch.targets)
        return model.loss(output, batch.targets)["loss"]

    pretrain(model, loss_of, config, a)
    values = score(config, model, a.device)
    print({name: round(value, 2) for name, value in values.items() if value is not None})
    metadata = {
        "classes": json.dumps(config.data.classes()),
        "source_segm_AP": f"{values['segm_AP']:.2f}",
    }
    write(a, tensors(model), metadata)


if __name__ == "__main__":
    main()
