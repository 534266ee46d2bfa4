"""Layers of the package peft (Hugging Face) that compute a weight, whatever layer that is of."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints
from unittest.mock import patch

import torch
from torch import Tensor, nn

from segsweep.base.errors import UserError

if TYPE_CHECKING:
    from segsweep.peft.sites import Site

ADAPTER = "default"  # the library's name of a layer's only set of parameters
# What says which layers of a model are edited, how the library writes its files, or wants a call
# in every step: there is nothing here that would heed it.
UNHEEDED = {
    *("target_modules", "exclude_modules", "modules_to_save", "layers_to_transform"),
    *("layers_pattern", "fan_in_fan_out", "megatron_core", "runtime_offload_base_weight"),
    *("save_projection", "save_indices", "save_only_topk_weights", "save_precomputed_indices"),
    *("inference_mode", "task_type", "peft_type", "peft_version", "base_model_name_or_path"),
    *("revision", "bias", "lora_bias", "use_asa", "boft_n_butterfly_factor"),
}
REFUSALS = (ValueError, TypeError, AssertionError, RuntimeError, UserWarning)


def edits(
    sites: Sequence[Site], tuner: str, rank: int | None, options: dict[str, Any]
) -> list[Layer]:
    """Build the library's layers, all at once since some share tensors, as edits of the sites.

    They are built on the CPU whatever the device, so that what is drawn is the same everywhere;
    BOFT would compile a kernel for a GPU where there is one.

    Raises UserError for what the library refuses or does not know.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.boft import layer as boft

    if not sites:
        return []
    weights = {_path(site): _matrix(site) for site in sites}
    holder = nn.Module()
    for path, weight in weights.items():
        stand_in = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
        stand_in.weight = nn.Parameter(weight.clone(), requires_grad=False)
        _put(holder, path, stand_in)
    no_kernel = patch.object(boft, "_FBD_CUDA", False, create=True)
    with torch.device("cpu"), _refusing(tuner), no_kernel:
        config = _configuration(list(weights), tuner, rank, options)
        PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](holder, config, ADAPTER)
    layers = [holder.get_submodule(path) for path in weights]
    additive = is_additive(layers[0])
    parts = zip(sites, layers, weights.values(), strict=True)
    built = [Layer(site, layer, weight, additive) for site, layer, weight in parts]
    return [edit.to(site.parameter.device) for edit, site in zip(built, sites, strict=True)]


def _path(site: Site) -> str:
    """Return the name of a site as one of a module; the library sees by names what is alike."""
    return site.name.removesuffix(".weight").replace(":", "_")


def _put(holder: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(holder, parent):
            holder.add_module(parent, nn.Module())
        holder = getattr(holder, parent)
    holder.add_module(name, module)


def _matrix(site: Site) -> Tensor:
    """Return the site's weight, (out, in) or of a convolution (out, in k k); meta: any values."""
    if len(site.shape) < 2:
        raise UserError(f"peft.targets: '{site.name}' is no matrix: {site.shape}")
    part = site.parameter.detach()[site.start : site.start + site.shape[0]].flatten(1)
    return torch.randn(part.shape, dtype=part.dtype) if part.is_meta else part.cpu()


class Layer(nn.Module):
    """The weight that a layer of the library computes with, as an edit of the weight in its place.

    Args:
        site: the weight, or the third of its rows, that is edited.
        layer: of the library, built on a stand-in for the weight. What of it does not train
            becomes buffers that are in no state dict.
        weight: as it was before the layer was built: some take a part out of it.
        additive: see `is_additive`.
    """

    shift: Tensor | None

    def __init__(self, site: Site, layer: Any, weight: Tensor, additive: bool) -> None:
        super().__init__()
        self.rows, self.start, self.end = site.rows, site.start, site.start + site.shape[0]
        self.layer, self.additive = layer, additive
        base = layer.get_base_layer()
        shift = base.weight.detach() - weight
        self.register_buffer("shift", shift if shift.any() else None, persistent=False)
        base.weight = nn.Parameter(torch.empty(0), requires_grad=False)
        _freeze(layer)

    def forward(self, weight: Tensor) -> Tensor:
        """Edit the weight, its other rows unchanged: (out, ...) -> (out, ...)."""
        if weight.is_meta:  # nothing is computed, and the library could not do it there
            return weight
        part = weight[self.start : self.end]
        with torch.autocast(weight.device.type, enabled=False):
            edited = self.compute(part.flatten(1)).view_as(part)
        if not self.rows:
            return edited
        return torch.cat((weight[: self.start], edited, weight[self.end :]))

    def compute(self, weight: Tensor) -> Tensor:
        """Return W' where W is the base weight of the layer: (out, in) -> (out, in)."""
        base = self.layer.get_base_layer()
        empty, base.weight = base.weight, weight if self.shift is None else weight + self.shift
        try:
            if self.additive:
                return base.weight + self.layer.get_delta_weight(ADAPTER)
            return _seen(self.layer)
        finally:
            base.weight = empty


def is_additive(layer: Any) -> bool:
    """Whether a layer's `get_delta_weight` is what it adds to its base weight, as an update is.

    It spares the product with the identity. Not all mean that by the name (OFT's is a rotation,
    HiRA's a factor), so it is tried on parameters that have left their start.
    """
    trial = copy.deepcopy(layer)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in trial.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        weight, seen = trial.get_base_layer().weight, _seen(trial)
        try:
            update = trial.get_delta_weight(ADAPTER)
        except (AttributeError, TypeError):
            return False
        if not isinstance(update, Tensor) or update.shape != weight.shape:
            return False
        return bool((weight + update - seen).abs().max() <= 1e-5 * seen.abs().max())


def _seen(layer: Any) -> Tensor:
    """Return what a layer gives for the identity, transposed, its weight: (out, in)."""
    weight = layer.get_base_layer().weight
    return layer(torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)).T


def _freeze(layer: nn.Module) -> None:
    """Make buffers that are in no state dict of everything that does not train."""
    for module in layer.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and not tensor.requires_grad:
                module._parameters.pop(name, None)
                module.register_buffer(name, tensor.detach(), persistent=False)


def _configuration(paths: list[str], tuner: str, rank: int | None, options: dict[str, Any]) -> Any:
    """Return the library's configuration of a tuner, by options of the names and types it has."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.utils import PeftType

    library = f"{tuner} of peft {version('peft')}"
    if tuner not in PeftType.__members__:
        raise UserError(f"peft.tuner={tuner}: there is no {library}; try a newer one")
    kind: Any = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[tuner]]
    hints = {name: hint for name, hint in get_type_hints(kind).items() if _is_of_use(name, hint)}
    ranked = hints.pop("r", None)
    for name, value in options.items():
        if name not in hints:
            raise UserError(
                f"peft.options.{name}={value}: {library} cannot be told so here; choose from "
                f"{', '.join(hints)}" + (", or peft.rank" if ranked else "")
            )
        if not _fits(value, hints[name]):
            raise UserError(f"peft.options.{name}={value!r}: must be {_words(hints[name])}")
    if rank is None:
        return kind(target_modules=paths, **options)
    if ranked is None:
        raise UserError(f"peft.rank={rank}: {library} has no rank; leave it out")
    return kind(target_modules=paths, r=rank, **options)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_of_use(name: str, hint: Any) -> bool:
    """Whether an option can be told: a single value that something here heeds."""
    if name in UNHEEDED or "dropout" in name:
        return False
    kinds = _alternatives(hint)
    return any(kind in (bool, int, float, str) or get_origin(kind) is Literal for kind in kinds)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has the type of an option; whole numbers are fractions, too."""
    return any(
        value in get_args(a) if get_origin(a) is Literal
        else type(value) is a or (a is float and type(value) is int)
        for a in _alternatives(hint)
    )  # fmt: skip


def _words(hint: Any) -> str:
    """Say what values an option has: "int or None"."""
    said = (get_args(a) if get_origin(a) is Literal else [a] for a in _alternatives(hint))
    return " or ".join(getattr(a, "__name__", repr(a)) for several in said for a in several)


@contextmanager
def _refusing(tuner: str) -> Iterator[None]:
    """Let what the library refuses, or would adjust with a warning, be an error of the user's."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=UserWarning, module=r"peft\.")
            yield
    except REFUSALS as error:
        raise UserError(f"peft.tuner={tuner}: {error} (peft {version('peft')})") from error
