"""What is kept of a fine-tuned model: its delta.

A delta file holds the trained tensors and the buffers that training changed, nothing of the base;
it fits only the base it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.weights import content_hash
from segsweep.peft.sites import canonical

BUFFERS = "base_buffers"  # attribute of a model with a method: its buffers before training


def remember_buffers(model: nn.Module) -> None:
    """Keep the buffers of a base model, to tell later which of them training changed."""
    setattr(model, BUFFERS, {name: b.detach().clone() for name, b in _buffers(model)})


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """List what trains, each tensor once, under its readable name."""
    named = model.named_parameters()
    return [(canonical(model, name), p) for name, p in named if p.requires_grad]


def base_hash(model: nn.Module) -> str:
    """Hash names, types, shapes and bytes of everything that the applied method left frozen."""
    frozen = {canonical(model, n): p for n, p in model.named_parameters() if not p.requires_grad}
    frozen |= _base_buffers(model)
    return content_hash(frozen)


def delta_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Collect the trained tensors and the changed or added buffers under their readable names."""
    delta = {name: parameter.detach() for name, parameter in trained(model)}
    before = _base_buffers(model)
    changed = {
        name: buffer
        for name, buffer in _buffers(model)
        if name not in before or not torch.equal(buffer.cpu(), before[name].cpu())
    }
    return delta | changed


def delta_bytes(model: nn.Module, meta: dict[str, Any]) -> bytes:
    """Return the delta of a model as a file of safetensors.

    Args:
        model: a model that a method was applied to.
        meta: what else describes the delta (method's config, base's name ...), kept as JSON;
            `base_hash` in it, where known already, spares hashing the base again.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in delta_state_dict(model).items()}
    size = sum(parameter.numel() for _, parameter in trained(model))
    base = meta.get("base_hash") or base_hash(model)
    facts = {**meta, "base_hash": base, "trained_parameters": size}
    return save(tensors, metadata={"segsweep": json.dumps(facts)})


def load_delta(path: Path, model: nn.Module, base: str | None = None) -> dict[str, Any]:
    """Load a delta into a base model that the same method was applied to; return its facts.

    Args:
        path: a file of `delta_bytes`.
        model: the model, changed in place, unless the delta is refused.
        base: `base_hash(model)`, where it is known already.

    Raises:
        UserError: no delta file, tensors are missing, unexpected or of another shape, or the
            delta was trained on another base.
    """
    tensors, facts = read_delta(path)
    targets = _targets(model, tensors, str(path))
    base = base or base_hash(model)
    if facts["base_hash"] != base:
        raise UserError(
            f"{path} was trained on the base {facts['base_hash']}, this one is {base}; build the "
            "model with the weights, classes and seed of the run that made the delta"
        )
    _copy(tensors, targets)
    return facts


def load_state(model: nn.Module, tensors: dict[str, Tensor], source: str = "checkpoint") -> None:
    """Load what `delta_state_dict` collected, for example to go on with an interrupted run.

    Raises:
        UserError: tensors are missing, unexpected or of another shape.
    """
    _copy(tensors, _targets(model, tensors, source))


def _targets(model: nn.Module, tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Find where the tensors of a delta go; it must hold all that trains and nothing unknown."""
    learning = dict(trained(model))
    targets = learning | {name: b for name, b in _buffers(model) if name in tensors}
    _refuse(source, "lacks", targets.keys() - tensors.keys())
    _refuse(source, "has unexpected", tensors.keys() - targets.keys())
    shapes = {n for n, t in tensors.items() if t.shape != targets[n].shape}
    _refuse(source, "has other sizes for", shapes)
    return targets


def _copy(tensors: dict[str, Tensor], targets: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            targets[name].copy_(tensor)


def read_delta(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the facts of a delta file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["segsweep"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is no delta that segsweep has written ({error})") from error


def _refuse(source: str, how: str, names: Iterable[str]) -> None:
    """Refuse a delta for the tensors named, if any."""
    tensors = sorted(names)
    if tensors:
        more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
        raise UserError(
            f"{source} {how} {', '.join(tensors[:3])}{more}: it belongs to another method, size of "
            "the method, number of classes or model"
        )


def _buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """List the buffers that are part of the state dict, under their readable names."""
    names = model.state_dict().keys()
    return [(canonical(model, n), buffer) for n, buffer in model.named_buffers() if n in names]


def _base_buffers(model: nn.Module) -> dict[str, Tensor]:
    buffers = getattr(model, BUFFERS, None)
    if buffers is None:
        raise RuntimeError("apply a method first: only it knows what of the model stays frozen")
    return buffers
