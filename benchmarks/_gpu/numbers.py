"""Does a GPU give the numbers of a CPU? Losses, and the reads of deformable attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from benchmarks._gpu.parts import Scale, Step, attempted, measured, tf32
from segsweep.model.layers import deformable

Read = Callable[..., Tensor]
STRIDES = (8, 16, 32, 64)
HEADS, DIM, POINTS = 8, 32, 4


class DrawsOnCPU(TorchFunctionMode):
    """Random numbers are drawn by the CPU's generator, wherever they are wanted."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.rand, torch.randint, torch.randn) and "device" in kwargs:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


def losses(scale: Scale) -> Iterator[dict[str, Any]]:
    """Loss of a training forward on the device against that on the CPU, same draws and weights."""
    side = 256 if scale.full else 64
    cpu = Scale(torch.device("cpu"), scale.full)
    there, here = Step(cpu, scale.model, side=side), Step(scale, scale.model, side=side)
    here.images = there.images.to(scale.device)
    here.targets = [target.to(scale.device) for target in there.targets]

    def drawn(step: Step) -> float:
        torch.manual_seed(1)
        with torch.no_grad(), DrawsOnCPU():
            return step.loss().item()

    expected = drawn(there)
    for name in ("fp32", "tf32", "bf16"):
        tf32(name == "tf32")
        with torch.autocast(scale.device.type, torch.bfloat16, enabled=name == "bf16"):
            found = drawn(here)
        yield {"precision": name, "loss": found, "CPU": expected, "off": found / expected - 1}


def attention(scale: Scale) -> Iterator[dict[str, Any]]:
    """Encoder self-attention's reads: table and bags, a `grid_sample` per level, and the kernel."""
    inputs, shapes = places(scale)
    sides: dict[str, Read] = {"embedding_bag": deformable.read, "grid_sample": by_level}
    if scale.cuda:
        from segsweep.model.layers import deformable_triton

        sides["triton"] = deformable_triton.read
        yield {"gradcheck": attempted(lambda: {"triton": exact(deformable_triton.read, scale)})}
    else:
        yield {"skipped": "triton: needs a GPU (tests/test_kernel.py interprets it)"}
    upstream = torch.randn(*inputs[1].shape[:2], HEADS * DIM, device=scale.device)
    expected: list[Tensor] = []
    for name, read in sides.items():

        def side(name: str = name, read: Read = read) -> dict[str, Any]:
            value, *rest = inputs
            leaves = [tensor.detach().requires_grad_() for tensor in (value, *rest)]

            def whole() -> list[Tensor]:
                out = read(leaves[0], shapes, *leaves[1:])
                return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]

            results = whole()
            expected[:] = expected or results
            pairs = zip(results, expected, strict=True)
            off = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
            with torch.no_grad():
                forward = measured(lambda: read(value, shapes, *rest), scale)
            both = measured(whole, scale)
            return {"off": off, "forward": forward, "forward and backward": both}

        yield {"side": name} | attempted(side)


def places(scale: Scale) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Values, places near every token of every level, and weights, as an encoder layer has them."""
    shapes = [(max(1, scale.side // stride), max(1, scale.side // stride)) for stride in STRIDES]
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    reads = scale.images, tokens, HEADS, levels, POINTS
    at = torch.cat([torch.rand(h * w, device=scale.device) for h, w in shapes])
    sides = torch.tensor([float(h) for h, _ in shapes], device=scale.device)[:, None]
    x, y = (
        (at.roll(n)[:, None, None, None] * sides + torch.randn(reads, device=scale.device)).flatten(
            2
        )
        for n in (0, 1)
    )
    weights = torch.rand(reads, device=scale.device).flatten(2) / (levels * POINTS)
    value = torch.randn(scale.images, tokens, HEADS, DIM, device=scale.device)
    return [value, x, y, weights], shapes


def by_level(value: Tensor, shapes: Any, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The same reads, a sampled map of every level at a time."""
    batch, count, heads = *x.shape[:2], value.shape[2]
    x, y, weights = (t.view(batch, count, heads, len(shapes), -1) for t in (x, y, weights))
    out = value.new_zeros(batch * heads, value.shape[3], count)
    for level, part in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        height, width = shapes[level]
        maps = part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, width))
        at = torch.stack([x[..., level, :] / width, y[..., level, :] / height], dim=-1)
        grid = 2 * at.transpose(1, 2).flatten(0, 1) - 1
        sampled = F.grid_sample(maps, grid, align_corners=False)
        share = weights[..., level, :].transpose(1, 2).flatten(0, 1)
        out = out + (sampled * share[:, None]).sum(-1)
    return out.view(batch, -1, count).transpose(1, 2)


def exact(read: Read, scale: Scale) -> bool:
    """Compare the gradients in double precision with differences. Raises where they differ."""
    shapes, draws = [(5, 7), (3, 2)], torch.Generator(scale.device).manual_seed(0)
    double = {"dtype": torch.double, "device": scale.device, "generator": draws}
    value = torch.randn(1, 41, 2, 3, **double)
    x, y, weights = (3 + torch.randn(1, 4, 16, **double) for _ in range(3))
    leaves = [tensor.requires_grad_() for tensor in (value, x, y, weights)]
    return torch.autograd.gradcheck(
        lambda v, *rest: read(v, shapes, *rest), leaves, nondet_tol=1e-9
    )
