"""A run as one plain checkpoint under the official program's names.

The file is written only if a base model that loads it gives the outputs of the run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from segsweep.base.errors import UserError
from segsweep.exporting.labels import facts
from segsweep.exporting.place import staged

if TYPE_CHECKING:
    from torch import Tensor

    from segsweep.base.config import Config
    from segsweep.model.segmenter import Segmenter
    from segsweep.run.restore import Restored

TOLERANCE = 1e-5
IMAGES = 2
SUFFIXES = (".safetensors", ".pth", ".pt")


def write(restored: Restored, out: Path, force: bool = False) -> list[str]:
    """Merge a restored run, changing its model, and write it; return what there is to say.

    Raises UserError where the file would be another model, or cannot be written.
    """
    from segsweep.exporting.inference import Inference, differences, examples, in_words, outputs
    from segsweep.peft.apply import merge
    from segsweep.peft.sites import named_weights

    config, model = restored.config, restored.model
    images, source = examples(config.data, IMAGES)
    before = outputs(Inference(model, config.data), images)
    filled = merge(model)
    state = config.model.official(model)
    with staged(out, force) as file:
        _save(file, state, restored)
        again = Inference(loaded(restored, file, filled=bool(filled)), config.data)
        gaps = differences(outputs(again, images), before)
        if max(gaps.values()) > TOLERANCE:
            raise UserError(
                f"{restored.directory}: a base model with the merged weights differs from the run "
                f"({in_words(gaps)}; allowed {TOLERANCE:g}), so nothing was written"
            )
    added = [name for name, site in named_weights(model).items() if site.added]
    return [
        f"wrote {out}: {len(state)} tensors",
        f"  a base model that loads it differs from the run by at most {max(gaps.values()):.1e} "
        f"({source})",
        *foreign(added, config),
        *config.model.caveats(state),
    ]


def foreign(added: list[str], config: Config) -> list[str]:
    """Say which names are none of the official program's: those that a method added, and others."""
    lines = []
    if added:
        lines.append(
            f"  {len(added)} tensors are of peft={config.peft.name}, which cannot be folded; the "
            f"official program has none and cannot load them: {added[0]} ... {added[-1]}"
        )
    layout = config.model.backbone.layout
    if layout not in config.model.layouts:
        lines.append(
            f"  backbone.* has names of layout={layout}: the official program has no such backbone"
        )
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
    about = facts(restored.record) | {"classes": restored.record["data"]["classes"]}
    torch.save({key: plain, "segsweep": about} if key else plain, file)


def loaded(restored: Restored, file: Path, filled: bool) -> Segmenter:
    """Build the base model anew, with untrained fillings where they stay, and load the file."""
    from segsweep.peft.apply import apply, merge
    from segsweep.run.restore import subject

    config, data = restored.config, restored.record["data"]
    backbone = replace(config.model.backbone, pretrained=False)
    family = replace(config.model, backbone=backbone)
    model = family.build(subject(restored.config, restored.record))
    if filled:
        apply(model, config.peft, family.roles)
        merge(model)  # what is folded has no names of its own
    replace(family, weights=str(file)).load(model, data["classes"], config.seed)
    return model.eval()
