"""Count the pretrained weights of timm that stand on model.backbone.layout=timm_vit.

    python scripts/count_vits.py [file ...]

A file is a module of timm.models, such as `eva`; all that have pretrained models if none is named.
Every model is built without weights and given the shape of an image. Prints, for each file, how
many models and weights work, under which licences, which want to be told `img_size`, and where the
attention has one weight `attn.qkv`; and why others are refused. What reads numbers of its images
cannot be tried by shapes.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter, defaultdict
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg_value, model_entrypoint

from segsweep.base.errors import UserError
from segsweep.model.family import BackboneConfig

SIZE = [512, 512]  # of all images, where it must be told
ONE_SIZE = "takes no images"
KINDS = {"is no vision": "no ViT", ONE_SIZE: "not tried", "gives a map": "odd map"}


def main() -> None:
    """Try all models of the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    warnings.filterwarnings("ignore")
    tags = defaultdict(list)
    for name in timm.list_pretrained():
        tags[name.partition(".")[0]].append(name)
    files = defaultdict(list)
    for name in tags:
        files[model_entrypoint(name).__module__.rpartition(".")[2]].append(name)
    parser.add_argument("file", nargs="*", choices=[*sorted(files), []], metavar="file")
    total = Counter()
    for file in parser.parse_args().file or sorted(files):
        counts, licences = Counter(), Counter()
        for name in files[file]:
            kind = outcome(name)
            counts[kind] += 1
            if kind.startswith("works"):
                counts["weights"] += len(tags[name])
                licences.update(str(get_pretrained_cfg_value(t, "license")) for t in tags[name])
        print(file, dict(counts), dict(licences), flush=True)
        total.update(counts + licences)
    print(dict(total))


def outcome(name: str, **kwargs: Any) -> str:
    """Build a backbone of shapes alone, and say what came of it."""
    try:
        with torch.device("meta"):
            backbone = BackboneConfig(name, "timm_vit", kwargs).build()
    except UserError as error:
        if ONE_SIZE in str(error) and not kwargs:
            return outcome(name, img_size=SIZE)
        return next((kind for sign, kind in KINDS.items() if sign in str(error)), str(error))
    fused = any(n.endswith("attn.qkv.weight") for n, _ in backbone.named_parameters())
    return "works" + ", one size" * bool(kwargs) + ", attn.qkv" * fused


if __name__ == "__main__":
    main()
