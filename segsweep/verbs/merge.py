"""The verb `merge`: a run as one plain checkpoint under the official program's names.

    python -m segsweep merge run=3f2a91
    python -m segsweep merge run=3f2a91 out=model.pth      in the layout that this program reads

Low-rank edits are folded into the weights. Adapters cannot be: they stay, under names that the
official program does not have. The file is written only if a base model that loads it gives the
outputs of the run. docs/export.md says more.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.exporting.labels import facts
from segsweep.exporting.place import staged, truth, vacant
from segsweep.sweep.names import single_run, spoken

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.model.segmenter import Segmenter
    from segsweep.run.restore import Restored

TOLERANCE = 1e-5
IMAGES = 2
SUFFIXES = (".safetensors", ".pth", ".pt")


def main(argv: list[str] | None = None) -> int:
    """Merge one run."""
    options = spoken(_parser(), argv)
    directory = single_run(options.results, options.run)
    out = options.out or options.results / "exports" / directory.name / "merged.safetensors"
    if out.suffix not in SUFFIXES:
        raise UserError(f"out={out}: must end in one of {', '.join(SUFFIXES)}")
    from segsweep.run.restore import restore

    vacant(out, options.force)
    for line in write(restore(directory, words=options.words), out, options.force):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m segsweep merge", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", help="name or id of a run, also its beginning, or its folder")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.add_argument("--out", type=Path, help="default: exports below the results")
    parser.add_argument("--force", type=truth, default=False, help="true: replace the file")
    return parser


def write(restored: Restored, out: Path, force: bool = False) -> list[str]:
    """Merge a restored run, changing its model, and write it; return what there is to say.

    Raises UserError where the file would be another model, or cannot be written.
    """
    from segsweep.exporting.inference import Inference, differences, examples, outputs, told
    from segsweep.peft.base import merge

    config, model = restored.config, restored.model
    images, source = examples(config.data, IMAGES)
    before = outputs(Inference(model, config.data), images)
    adapted = merge(model)
    state = config.model.official(model)
    with staged(out, force) as file:
        _save(file, state, restored)
        again = Inference(loaded(restored, file, bool(adapted)), config.data)
        gaps = differences(outputs(again, images), before)
        if max(gaps.values()) > TOLERANCE:
            raise UserError(
                f"{restored.directory}: a base model with the merged weights differs from the run "
                f"({told(gaps)}; allowed {TOLERANCE:g}), so nothing was written"
            )
    own = [name for name in state if ".filling." in name]
    return [
        f"wrote {out}: {len(state)} tensors",
        f"  a base model that loads it differs from the run by at most {max(gaps.values()):.1e} "
        f"({source})",
        *foreign(own, config.model.backbone.layout.name),
    ]


def foreign(own: list[str], layout: str) -> list[str]:
    """Say which names are none of the official program's."""
    lines = []
    if own:
        lines.append(
            f"  {len(own)} tensors are of adapters, which cannot be folded; the official program "
            f"has none and cannot load them: {own[0]} ... {own[-1]}"
        )
    if layout == "timm":
        lines.append("  backbone.* has timm's names: the official program has no such backbone")
    return lines


def _save(file: Path, state: dict[str, Tensor], restored: Restored) -> None:
    """Write a checkpoint; tensors of several names are written under all of them."""
    if file.suffix == ".safetensors":
        from safetensors.torch import save

        about = {"segsweep": json.dumps(facts(restored.record)), "format": "pt"}
        about["classes"] = json.dumps(restored.record["data"]["classes"])
        copies = {name: t.detach().clone().contiguous() for name, t in state.items()}
        file.write_bytes(save(copies, about))
        return
    import torch

    plain = {name: tensor.detach() for name, tensor in state.items()}
    key = restored.config.model.envelope
    torch.save({key: plain, "segsweep": facts(restored.record)} if key else plain, file)


def loaded(restored: Restored, file: Path, adapters: bool) -> Segmenter:
    """Build the base model anew, with empty adapters where they stay, and load the file."""
    from segsweep.peft.base import apply

    config, data = restored.config, restored.record["data"]
    backbone = replace(config.model.backbone, pretrained=False)
    family = replace(config.model, weights=str(file), backbone=backbone)
    model = family.build(data["prompts"])
    if adapters:
        apply(model, config.peft, family.roles)
    family.load(model, data["classes"], config.seed)
    return model.eval()
