"""What the steps of a backbone at rest give, computed once per image: `trainer.cache_features`.

All steps of a backbone (`model/backbones/base.py`), or those before the first that a method acts
on, answer the same image with the same state in every epoch, in validation and in every other run
that has them. An entry is named by all that it was computed from: how many steps they are, a hash
of their weights and of how they compute, and one of the image as the network sees it. So an entry
may be missing, but it is never out of date. `segsweep.run.feature_store` keeps entries for the runs
of this process, or as files for all runs on a file system.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segsweep.base.config import Config, plain
from segsweep.base.errors import UserError
from segsweep.data.base import trainable
from segsweep.data.transforms import training_views
from segsweep.model.backbones.base import State, Step, at_rest, passed, together
from segsweep.model.weights import content_hash
from segsweep.run.feature_store import GIB, Disk, Memory, readable, size_of
from segsweep.run.identity import rank, versions

if TYPE_CHECKING:
    from segsweep.model.segmenter import Segmenter

PACKAGES = ("segsweep", "torch", "timm")  # whose versions may change a number


def cache_features(model: Segmenter, config: Config) -> None:
    """Have what the steps at rest give kept where `trainer.cache_features` says.

    A method must have been applied: it decides what trains.

    Raises:
        UserError: nothing is at rest, the same image would not give the same maps, or it is never
            seen again; or the folder of the files cannot be made.
    """
    where = config.trainer.cache_features.name
    if where == "off":
        return
    _check(model, config, where)
    evaluated = dict.fromkeys(("val", config.data.chosen_on))
    entries = sum(len(config.data.records(split)) for split in evaluated)
    if any(parameter.requires_grad for parameter in model.parameters()):
        views = training_views(config.data) or 0
        entries += views * len(trainable(config.data))
    packages = {package: versions().get(package) for package in PACKAGES}
    backbone = [plain(config.model.backbone), model.backbone.gives]
    about = json.dumps([*backbone, packages], sort_keys=True)
    room = None if config.io.features_gib is None else int(config.io.features_gib * GIB)
    if where == "disk":
        store = Disk(Path(config.io.features), room)
    else:  # the processes of a run share the machine
        store = Memory(room, config.trainer.devices)
    model.feature_cache = FeatureCache(about, store, entries, silent=rank(config.trainer) > 0)


def _check(model: Segmenter, config: Config, where: str) -> None:
    """Refuse what gives other maps, or sees other images, each time."""
    option, cure = f"trainer.cache_features={where}", "trainer.cache_features=off"
    if training_views(config.data) is None:
        raise UserError(
            f"{option}: with data.transform={config.data.transform.name} training never sees the "
            f"same image twice; choose data.transform=squash or {cure}"
        )
    if model.drop_path:
        raise UserError(
            f"{option}: model.backbone.drop_path={config.model.backbone.drop_path} draws other "
            f"maps each time; choose model.backbone.drop_path=0 or {cure}"
        )
    if not model.backbone.steps():
        raise UserError(f"{option}: model={config.model.name} has no backbone of its own; {cure}")
    if not at_rest(model.backbone.steps()):
        trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
        raise UserError(
            f"{option}: with peft={config.peft.name} {len(trained)} tensors of the backbone train, "
            f"in its first step, too (backbone.{trained[0]}, ...), so that nothing stays the same; "
            f"choose a method that leaves its beginning frozen or {cure}"
        )


class FeatureCache:
    """Gives what steps at rest make of images from a store, and computes what is not there yet.

    `about` names how the backbone computes, `entries` is what a run asks for at most; unless
    `silent`, it says at the first call what will be kept where.
    """

    def __init__(
        self, about: str, store: Memory | Disk, entries: int, silent: bool = False
    ) -> None:
        self.about, self.store, self.entries = about, store, entries
        self.announced = silent
        self.hashes: dict[int, str] = {}  # of the weights of so many steps, which are frozen

    def __call__(self, steps: Sequence[Step], images: Tensor) -> State:
        """(B, 3, H, W) -> their state (B, ...) after the steps"""
        count = len(steps)
        if count not in self.hashes:
            modules = nn.ModuleList(nn.ModuleList(step.modules) for step in steps)
            self.hashes[count] = content_hash(modules.state_dict())
        content = f"{count} {self.hashes[count]} {self.about} {surroundings(images.device)}"
        folder = hashlib.sha256(content.encode()).hexdigest()[:16]
        return together([self._state(steps, image[None], folder) for image in images])

    def _state(self, steps: Sequence[Step], image: Tensor, folder: str) -> State:
        key = f"{folder}/{content_hash({'image': image})[:32]}"
        state = self.store.get(key)
        if state is not None:
            self._announce(state, folder)
            return {name: tensor.to(image.device) for name, tensor in state.items()}
        state = passed(steps, {"images": image})
        self._announce(state, folder)
        plain = torch.contiguous_format  # entries share no memory
        self.store.put(key, {n: t.cpu().clone(memory_format=plain) for n, t in state.items()})
        return state

    def _announce(self, state: State, folder: str) -> None:
        """Say before the first step what will be kept where."""
        if self.announced:
            return
        self.announced = True
        store, size = self.store, size_of(state)
        total = self.entries * size
        message = (
            f"  features: at most {self.entries:,} entries of {readable(size)}, {readable(total)} "
            f"in all; {store.count(folder):,} are there; room for {readable(store.room)} in "
            f"{store.where}"
        )
        full = "; the rest will be computed each time" if total > store.room else ""
        print(message + full, flush=True)


def surroundings(device: torch.device) -> str:
    """Name what, beside weights and input, the last bits of a forward depend on."""
    half = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
    return f"{device.type} {machine} {half} {torch.get_float32_matmul_precision()}"
