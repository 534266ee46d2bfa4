"""Try one model of every family of timm as a backbone: each works or is refused in a sentence.

    python scripts/try_timm.py [family ...]

A family is a module of timm that has pretrained models; its smallest one by parameters, among those
that a word like `tiny` calls small if there are any, is built with random weights under
model.backbone.layout=timm and given one image. What is refused because it takes images of one size
is tried again with the size that timm gives it. Ends with an error if anything was neither right
nor refused.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter, defaultdict

import timm
import torch
from timm.models import get_pretrained_cfg_value, model_entrypoint

from segsweep.base.errors import UserError
from segsweep.model.backbones.timm import SIZE
from segsweep.model.family import BackboneConfig

SMALL = ("atto", "femto", "pico", "nano", "tiny", "xxs", "small", "mini", "test")
KINDS = {"none at": "other strides", "takes no images": "one size", "gives of an image": "odd maps"}


def families() -> dict[str, list[str]]:
    """Names of pretrained models by the module that defines them."""
    found = defaultdict(set)
    for name in timm.list_pretrained():
        plain = name.partition(".")[0]
        found[model_entrypoint(plain).__module__.rpartition(".")[2]].add(plain)
    return {family: sorted(names) for family, names in sorted(found.items())}


def parameters(name: str) -> int:
    """Count the parameters of a model without making any."""
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


def outcome(name: str, size: tuple[int, int], **kwargs: object) -> str:
    """Build a backbone, give it an image, and say what came of it."""
    try:
        backbone = BackboneConfig(name, "timm", dict(kwargs)).build().eval()
        with torch.no_grad():
            maps = backbone(torch.randn(1, 3, *size))
    except UserError as error:
        return next((kind for sign, kind in KINDS.items() if sign in str(error)), str(error))
    except Exception as error:
        return f"FAILS {type(error).__name__}: {error}"
    levels = zip(backbone.channels, backbone.strides, strict=True)
    right = [(1, c, size[0] // stride, size[1] // stride) for c, stride in levels]
    return "works" if [tuple(m.shape) for m in maps] == right else f"FAILS {right}"


def main() -> None:
    """Try the families named, or all."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    counts = Counter()
    for family, names in families().items():
        if sys.argv[1:] and family not in sys.argv[1:]:
            continue
        small = [name for name in names if any(word in name for word in SMALL)]
        name = min(small or names, key=parameters)
        said = outcome(name, SIZE)
        if said == "one size":
            _, height, width = get_pretrained_cfg_value(name, "input_size") or (3, 224, 224)
            own = outcome(name, (height, width), img_size=[height, width])
            said += f"; img_size=[{height},{width}]: {own}"
        counts[said.partition(":")[0].partition(";")[0]] += 1
        print(f"{family:28} {len(names):4} {name:36} {said}", flush=True)
    print(", ".join(f"{kind} {count}" for kind, count in counts.most_common()))
    if any("FAILS" in kind for kind in counts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
