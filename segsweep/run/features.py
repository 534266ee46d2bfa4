"""Maps of a frozen backbone, computed once per image and kept: `trainer.cache_features`.

A frozen backbone answers the same image with the same maps in every epoch, in validation and in
every other run that has it. An entry is named by all that it was computed from: a hash of the
backbone and of how it computes, and one of the image as the network sees it. So an entry may be
missing, but it is never out of date. `segsweep.run.feature_store` keeps entries for the runs of
this process, or as files for all runs on a file system.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segsweep.base.config import Config, plain
from segsweep.base.errors import UserError
from segsweep.data.base import trainable
from segsweep.data.transforms import training_views
from segsweep.model.segmenter import maps_of, together
from segsweep.model.weights import content_hash
from segsweep.run.feature_store import GIB, Disk, Maps, Memory, readable, size_of
from segsweep.run.identity import rank, versions

if TYPE_CHECKING:
    from segsweep.model.segmenter import Segmenter

PACKAGES = ("segsweep", "torch", "timm")  # whose versions may change a map


def cache_features(model: Segmenter, config: Config) -> None:
    """Have the maps of a frozen backbone kept where `trainer.cache_features` says.

    A method must have been applied: it decides what trains.

    Raises:
        UserError: the same image would not give the same maps, or is never seen again; or the
            folder of the files cannot be made.
    """
    where = config.trainer.cache_features.name
    if where == "off":
        return
    _check(model, config, where)
    entries = len(config.data.records("val"))
    if any(parameter.requires_grad for parameter in model.parameters()):
        views = training_views(config.data) or 0
        entries += views * len(trainable(config.data))
    packages = {package: versions().get(package) for package in PACKAGES}
    about = json.dumps([plain(config.model.backbone), packages], sort_keys=True)
    backbone = f"{content_hash(model.backbone.state_dict())} {about}"
    room = None if config.io.features_gib is None else int(config.io.features_gib * GIB)
    if where == "disk":
        store = Disk(Path(config.io.features), room)
    else:  # the processes of a run share the machine
        store = Memory(room, config.trainer.devices)
    model.feature_cache = FeatureCache(backbone, store, entries, silent=rank(config.trainer) > 0)


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
    trained = [name for name, p in model.backbone.named_parameters() if p.requires_grad]
    if trained:
        raise UserError(
            f"{option}: with peft={config.peft.name} {len(trained)} tensors of the backbone train "
            f"(backbone.{trained[0]}, ...), so its maps change; choose a method that leaves the "
            f"backbone frozen or {cure}"
        )


class FeatureCache:
    """Gives the maps of a backbone from a store, and computes those that are not there yet.

    `backbone` names the backbone's content, `entries` is what a run asks for at most; unless
    `silent`, it says at the first call what will be kept where.
    """

    def __init__(
        self, backbone: str, store: Memory | Disk, entries: int, silent: bool = False
    ) -> None:
        self.backbone, self.store, self.entries = backbone, store, entries
        self.announced = silent

    def __call__(self, backbone: nn.Module, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps (B, C_i, H_i, W_i)"""
        content = f"{self.backbone} {surroundings(images.device)}"
        folder = hashlib.sha256(content.encode()).hexdigest()[:16]
        return together([self._maps(backbone, image, folder) for image in images])

    def _maps(self, backbone: nn.Module, image: Tensor, folder: str) -> Maps:
        key = f"{folder}/{content_hash({'image': image})[:32]}"
        maps = self.store.get(key)
        if maps is not None:
            self._announce(maps, folder)
            return [m.to(image.device) for m in maps]
        maps = maps_of(backbone, image)
        self._announce(maps, folder)
        self.store.put(key, [m.cpu() for m in maps])
        return maps

    def _announce(self, maps: Maps, folder: str) -> None:
        """Say before the first step what will be kept where."""
        if self.announced:
            return
        self.announced = True
        store, size = self.store, size_of(maps)
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
