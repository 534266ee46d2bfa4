"""Patch kernels and position codes of a file, resampled for a model of other sizes."""

from __future__ import annotations

from math import isqrt

import torch.nn.functional as F
from timm.layers import resample_patch_embed
from torch import Tensor

from segsweep.base.errors import UserError
from segsweep.model.backbones.host import Grid, resampled, single
from segsweep.model.backbones.names import PATCHES

State = dict[str, Tensor]
CODE, CLASS_TOKEN = "pos_embed", "cls_token"


def fitted(state: State, own: State, coded: int, grid: Grid, repatch: str) -> State:
    """Resample kernel and code of weights under our names for a model of weights `own`.

    Args:
        state: weights of a file.
        own: weights of the model.
        coded: prefix tokens with a position code in the model.
        grid: rows and columns of its position code.
        repatch: `bicubic`, `pi` or `none`, see `repatched`.

    Raises:
        UserError: patches are of another size, and `repatch` is none.
    """
    state = dict(state)
    if PATCHES in state and PATCHES in own:
        height, width = own[PATCHES].shape[2:]
        state[PATCHES] = repatched(state[PATCHES], (height, width), repatch)
    if CODE in own and CODE in state and state[CODE].ndim == 3:  # SAM has 4
        ahead, code = _split(state[CODE], coded, grid)
        if ahead.shape[1] and not coded:  # as in official files of DINOv2 with registers
            state[CLASS_TOKEN] = state[CLASS_TOKEN] + ahead[:, :1]
            ahead = ahead[:, :0]
        code = resampled(single(code), grid).flatten(1, 2)
        state[CODE] = F.pad(code, (0, 0, ahead.shape[1], 0))
        state[CODE][:, : ahead.shape[1]] = ahead
    return state


def repatched(kernel: Tensor, size: Grid, how: str) -> Tensor:
    """Resize the kernel of a patch embedding. (C, 3, h, w) -> (C, 3, H, W)

    `bicubic` is plain interpolation without antialias, which leaves the sum of a kernel to change,
    as in the code of VFM-Adapter; `pi` gives the kernel that answers to resized patches as the old
    one does to patches (FlexiViT, Beyer 2023, arXiv:2212.08013), by timm.

    Raises:
        UserError: the sizes differ, and it is `none`.
    """
    if tuple(kernel.shape[2:]) == size:
        return kernel
    if how == "pi":
        return resample_patch_embed(single(kernel), list(size))
    if how == "bicubic":
        return F.interpolate(single(kernel), size, mode="bicubic")
    there, here = (" x ".join(map(str, sides)) for sides in (kernel.shape[2:], size))
    raise UserError(
        f"model.backbone.repatch={how}: the patches of model.weights are {there}, those of the "
        f"model {here}; choose model.backbone.repatch=bicubic|pi, weights with patches of {here}, "
        f"or model.backbone.kwargs.patch_size={kernel.shape[2]}"
    )


def _split(code: Tensor, coded: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """Part a code of a file: (1, P + h w, C) -> (1, P, C), (1, h, w, C); h = w unless h w = H W."""
    count = code.shape[1] - coded
    if count == grid[0] * grid[1]:
        return code[:, :coded], code[:, coded:].unflatten(1, grid)
    side = isqrt(count)
    if side**2 != count:
        side = isqrt(code.shape[1])
        coded = code.shape[1] - side**2
    return code[:, :coded], code[:, coded:].unflatten(1, (side, side))
