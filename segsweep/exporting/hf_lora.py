"""Low-rank edits in the layout of the package `peft` (adapter_config.json and its tensors).

It knows edits of whole linear layers, and whole modules that were trained. It cannot express rows
of a fused weight, single parameters, and modules that a model holds under several names.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.base.files import write_json
from segsweep.exporting.labels import facts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from segsweep.peft.method import Method
    from segsweep.run.restore import Restored

PREFIX = "base_model.model."


def check(method: Method) -> None:
    """Raise UserError for a method that has no low-rank edits."""
    if method.hf_lora() is None:
        raise UserError(f"format=hf_lora: the run's peft={method.name} is no LoRA; format=bundle")


def write(restored: Restored, folder: Path, partial: bool) -> list[str]:
    """Write both files into a folder; return what there is to say.

    Raises UserError where a trained tensor cannot be expressed, unless the rest is wanted alone.
    """
    from safetensors.torch import save

    from segsweep.peft.delta import delta_state_dict

    delta, method = delta_state_dict(restored.model), restored.config.peft
    edits, modules = edited(restored.model, delta), whole(restored.model, delta)
    expressed = {f"{m}.{n}": t for m, part in modules.items() for n, t in part.items()}
    names = {f"{m}.weight.{n}" for m, own in edits.items() for n in own} | expressed.keys()
    missing = [name for name in delta if name not in names]
    for module, own in edits.items():
        factors = method.hf_factors(own).items()
        expressed |= {f"{module}.{name}.weight": factor for name, factor in factors}
    if not edits:
        raise UserError("format=hf_lora: none of this run's edits is one of a whole linear layer")
    if missing and not partial:
        raise UserError(
            f"format=hf_lora cannot express {len(missing)} of {len(delta)} trained tensors: "
            f"{', '.join(reasons(restored.model, missing))}. Say partial=true for the others "
            "alone, which is another model, or use `merge` or format=bundle"
        )
    tensors = {PREFIX + name: t.detach().cpu().clone() for name, t in expressed.items()}
    about = {"format": "pt", "segsweep": json.dumps(facts(restored.record))}
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, about))
    write_json(
        folder / "adapter_config.json",
        {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": restored.record["params"]["base"],
            "inference_mode": True,
            **(method.hf_lora() or {}),
            "lora_dropout": 0.0,
            "use_rslora": False,
            "bias": "none",
            "fan_in_fan_out": False,
            "target_modules": sorted(edits),
            "modules_to_save": sorted(modules) or None,
        },
    )
    lines = [f"  {len(edits)} linear layers, {len(modules)} trained modules"]
    if missing:
        lines.append(f"  WITHOUT {len(missing)} trained tensors, so it is another model: {missing}")
    return lines


def edited(model: nn.Module, delta: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return, by linear layer, the tensors of the edit of its whole weight."""
    from torch import nn

    edits: dict[str, dict[str, Tensor]] = {}
    for name, tensor in delta.items():
        weight, _, own = name.rpartition(".")
        module, _, attribute = weight.rpartition(".")
        if attribute == "weight" and isinstance(model.get_submodule(module), nn.Linear):
            edits.setdefault(module, {})[own] = tensor
    return edits


def whole(model: nn.Module, delta: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the modules of which everything trained, each held under one name only."""
    from torch import nn

    names = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    listed = (nn.ModuleList, nn.ModuleDict)  # which HF cannot wrap
    modules: dict[str, dict[str, Tensor]] = {}
    for path, module in model.named_modules():
        if any(path.startswith(f"{above}.") for above in modules) or isinstance(module, listed):
            continue
        if any(names[id(part)] > 1 for part in module.modules()):
            continue
        tensors = {name: delta.get(f"{path}.{name}") for name, _ in module.named_parameters()}
        if tensors and all(tensor is not None for tensor in tensors.values()):
            modules[path] = {name: t for name, t in tensors.items() if t is not None}
    return modules


def reasons(model: nn.Module, missing: list[str]) -> list[str]:
    """Say which places cannot be expressed, numbers of layers folded."""
    from segsweep.peft.sites import named_weights
    from segsweep.run.record import folded

    weights = {name for name, site in named_weights(model).items() if not site.added}
    places = {name if name in weights else name.rpartition(".")[0] for name in missing}
    return folded(sorted(places))
