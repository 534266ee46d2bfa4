"""Any model of timm that has maps at strides 4, 8, 16 and 32, and how the other files ask timm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models import FeatureListNet
from timm.models._features import FeatureGetterNet
from timm.optim import Lars
from torch import Tensor, nn

from segsweep.base.errors import UserError
from segsweep.model.backbones import STRIDES, is_pyramid, layouts
from segsweep.model.backbones.base import Backbone, State, Step, numbered

SIZE = 96, 160  # height and width of a trial: unlike, and odd multiples of 32
SMALL = {"name": "resnet10t", "kwargs": {"stem_width": 8, "channels": [8, 16, 16, 32]}}


def build(
    name: str, kwargs: dict[str, Any], drop_path: float = 0.0, pretrained: bool = False
) -> Backbone:
    """Build a model whose maps timm itself gives.

    Raises UserError for a name that timm does not know, and a model without maps at STRIDES or
    that takes no images of all sizes; `img_size` of `kwargs` says that they will have that one.
    """
    size = pair(kwargs.get("img_size"))
    indices, in_a_row = _trial(name, kwargs, size or SIZE)
    net = create(name, pretrained, features_only=True, out_indices=indices, **kwargs)
    kind = ModuleByModule if in_a_row else Whole
    return kind(net, size)


def pair(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return height and width of what timm takes as `img_size`."""
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def of_size(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return images of this size (H, W), all if it is None, or refuse those of another."""
    height, width = images.shape[-2:]
    if size not in (None, (height, width)):
        raise UserError(
            f"model.backbone.kwargs.img_size={list(size)}: there are images of "
            f"{height} x {width}, as padded to multiples of 32; choose data.size and "
            "data.transform so that all have this size, or a backbone for any size"
        )
    return images


class TimmBackbone(Backbone):
    """What timm calls a network of features, for images of one `size` (H, W) or of any."""

    def __init__(self, net: Any, size: tuple[int, int] | None):
        super().__init__()
        self.channels, self.strides = net.feature_info.channels(), list(STRIDES)
        self.size = size

    def images(self, state: State) -> Tensor:
        """Return the images, or refuse those of another size."""
        return of_size(state["images"], self.size)


class ModuleByModule(TimmBackbone):
    """A network that timm made a row of modules, some of which give maps; each is a step."""

    def __init__(self, net: FeatureListNet, size: tuple[int, int] | None):
        super().__init__(net, size)
        for name, module in net.items():
            self.add_module(name, module)
        self.ends = {name: str(i) for i, name in enumerate(net.return_layers)}
        self.channels_last = net.output_fmt.value == "NHWC"

    def steps(self) -> list[Step]:
        """Return a step per module; what one gives the next one takes, also if it is a map."""
        steps, source = [], "images"
        for name, module in self.named_children():
            target = self.ends.get(name, "stream")
            steps.append(Step((module,), partial(self._pass, module, source, target)))
            source = target
        return steps

    def _pass(self, module: nn.Module, source: str, target: str, state: State) -> State:
        maps = {name: tensor for name, tensor in state.items() if name.isdigit()}
        x = self.images(state) if source == "images" else state[source]
        return {**maps, target: module(x)}

    def maps(self, state: State) -> list[Tensor]:
        """Read the maps off the last state, which has timm's order of axes."""
        maps = super().maps(state)
        return [m.permute(0, 3, 1, 2).contiguous() for m in maps] if self.channels_last else maps


class Whole(TimmBackbone):
    """A network that only timm can lead through its modules: one step."""

    def __init__(self, net: Any, size: tuple[int, int] | None):
        super().__init__(net, size)
        self.indices = net.out_indices if isinstance(net, FeatureGetterNet) else None
        self.model: Any = net if self.indices is None else net.model

    def steps(self) -> list[Step]:
        """Return one step."""
        return [Step((self.model,), self._all)]

    def _all(self, state: State) -> State:
        images = self.images(state)
        if self.indices is None:
            return numbered(self.model(images))
        options = {"indices": self.indices, "output_fmt": "NCHW", "intermediates_only": True}
        return numbered(self.model.forward_intermediates(images, **options))


def create(name: str, pretrained: bool = False, **kwargs: Any) -> Any:
    """Build the timm model of a name, or raise UserError saying what timm has against it.

    timm fixes some sizes of the models that it names: the name of its class, such as `FocalNet`,
    is the class itself, with all sizes in `kwargs`.
    """
    make = _maker(name)
    if pretrained:
        kwargs["pretrained"] = True
    try:
        return make(**kwargs)
    except OSError as error:
        raise UserError(
            f"model.backbone.pretrained: weights of {name} cannot be fetched ({error}); fetch them "
            "where there is a network into the folder that HF_HOME names, or choose false"
        ) from error
    except Exception as error:  # what timm raises for sizes that do not fit is not listed anywhere
        raise UserError(
            f"model.backbone: timm's {name} cannot be built so ({type(error).__name__}: {error}); "
            "correct model.backbone.kwargs, or choose model.backbone.layout=timm"
        ) from error


def lars(groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """Return LARS (You 2017, arXiv:1708.03888) as MoCo v3 and MAE have it.

    What has several dimensions learns at 0.001 |w| / |gradient| times its rate, also without decay;
    biases and norms at their rate.
    """
    parts = [
        {**group, "params": params, "always_adapt": adapted, "momentum": momentum}
        for group in groups
        for adapted in (True, False)
        if (params := [p for p in group["params"] if (p.ndim > 1) is adapted])
    ]
    return Lars(parts)


def licence(name: str) -> str:
    """Return the licence of the weights that timm fetches for a name, "" where it says none."""
    known = timm.is_model(name) and timm.models.get_pretrained_cfg(name)
    return (known and known.license) or ""


def drop_paths(backbone: nn.Module) -> Iterator[nn.Module]:
    """Find the layers that drop whole residual branches in training."""
    return (module for module in backbone.modules() if isinstance(module, DropPath))


def _maker(name: str) -> Callable[..., Any]:
    """What builds a model of this name."""
    if isinstance(named := getattr(timm.models, name, None), type):
        return named
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"{name[:6]}*")[:8]) or "see timm.list_models()"
        raise UserError(f"model.backbone.name={name}: timm has no such model; near: {near}")
    return partial(timm.create_model, name)


def _trial(name: str, kwargs: dict[str, Any], size: tuple[int, int]) -> tuple[list[int], bool]:
    """Try a model on an image of a size, without any weights.

    Returns the outputs at STRIDES, and whether tensors pass from module to module.
    """
    with torch.device("meta"):
        net = create(name, features_only=True, **kwargs)
    info = net.feature_info
    strides, outputs = info.reduction(), info.out_indices
    if missing := [stride for stride in STRIDES if stride not in strides]:
        flat = "|".join(layout for layout in layouts() if not is_pyramid(layout))
        others = f", or for a ViT model.backbone.layout={flat}" if len(set(strides)) == 1 else ""
        raise UserError(
            f"model.backbone.name={name} has maps at strides {strides}, but none at {missing}; "
            f"choose a hierarchical model, e.g. resnet50 or convnext_tiny{others}"
        )
    chosen = [len(strides) - 1 - strides[::-1].index(stride) for stride in STRIDES]
    passed: list[bool] = []
    for module in net.children():
        module.register_forward_hook(lambda _, given, out: passed.append(torch.is_tensor(out)))
    found = shapes(name, net, size)
    for i, stride in zip(chosen, STRIDES, strict=True):
        wanted = (info.channels()[i], size[0] // stride, size[1] // stride)
        if found[i] != wanted:
            raise UserError(
                f"model.backbone.name={name} gives of an image of {size[0]} x {size[1]} a map of "
                f"{found[i]} at stride {stride}, where channels, height and width should be "
                f"{wanted}; choose another model, e.g. resnet50 or convnext_tiny"
            )
    in_a_row = isinstance(net, FeatureListNet) and all(passed)
    return [outputs[i] for i in chosen], in_a_row


def shapes(name: str, net: Any, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return channels, height and width of all maps of a network on the meta device."""
    try:
        with torch.no_grad():
            maps = net.eval()(torch.empty(1, 3, *size, device="meta"))
    except Exception as error:  # timm asserts, or stumbles over shapes
        raise UserError(
            f"model.backbone.name={name} takes no images of {size[0]} x {size[1]} "
            f"({type(error).__name__}: {error}), but images have any size that is a multiple of 32 "
            "both ways; choose another model (for Swin transformers: model.backbone.layout=swin), "
            "or if all images have one size, say model.backbone.kwargs.img_size=[height,width]"
        ) from error
    if getattr(net, "output_fmt", None) == "NHWC":
        maps = [m.permute(0, 3, 1, 2) for m in maps]
    return [tuple(m.shape[1:]) for m in maps]
