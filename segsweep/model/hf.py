"""Universal heads of the package transformers (Hugging Face), lent whole with their backbones.

Mask2Former, MaskFormer, EoMT, EoMT-DINOv3: whatever of `AutoModelForUniversalSegmentation` takes
`mask_labels` and `class_labels`, a yaml describes; a new one needs no code. Composing a config
imports this file, so torch and transformers are imported by the functions that need them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import neutral, within
from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.base.package import installed
from segsweep.model.family import BackboneConfig, Family
from segsweep.model.files import BaseWeights
from segsweep.model.hub import CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedConfig

    from segsweep.data.base import DataSet, Subject
    from segsweep.model.family import Roles, State
    from segsweep.model.heads.hf import HFHead
    from segsweep.model.heads.query import Reader
    from segsweep.model.segmenter import Segmenter

LEAST, BELOW = (5, 20), (6, 0)  # versions: names of parameters change between minor ones
NETWORK = "sem_seg_head.network."  # where the model of transformers stands in ours
CLASSIFIER = f"{NETWORK}class_predictor"


@dataclass
class HF(Family):
    """A model of transformers under our interface.

    Its configuration is the `config.json` beside the weights, where they are here; else, for counts
    and random weights, that of its class but for `sizes`. `options` come on top of both:
    `+model.options.train_num_points=4096`. Pixels are normalised as all of ours, by the mean and
    deviation of the data, ImageNet's unless they say otherwise.
    """

    package: ClassVar[str] = "transformers"
    sign: ClassVar[str] = "class_predictor.weight"
    layouts: ClassVar[tuple[str, ...]] = ("none",)
    scopes: ClassVar[tuple[str, ...]] = ("decoder", "head")
    class_tensors: ClassVar[tuple[str, ...]] = (
        f"{CLASSIFIER}.weight",
        f"{CLASSIFIER}.bias",
        f"{NETWORK}criterion.empty_weight",
    )

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig("", "none"))
    model_type: str = ""  # transformers' word for the architecture
    sizes: dict[str, Any] = within(default_factory=dict, least=-math.inf)
    options: dict[str, Any] = neutral(default_factory=dict, least=-math.inf)
    one_size: bool = False  # whether images must have its `image_size`, smaller ones are padded
    topk: int = within(100, least=1)
    patterns: dict[str, list[str]] = field(default_factory=dict)
    """Roles, as patterns of the model's own names."""

    @property
    def roles(self) -> Roles:
        """Patterns of the weights that a method may name by one word."""
        return {role: [NETWORK + name for name in names] for role, names in self.patterns.items()}

    @property
    def limits(self) -> dict[str, int]:
        """How many objects are found in an image, by the keys that say it."""
        return {"model.topk": self.topk}

    @property
    def configuration(self) -> dict[str, Any]:
        """What the class of configuration is told, see `HF`."""
        here = BaseWeights.of(self.weights).here if self.weights is not None else None
        said = self._config_of(here) if here is not None and here.is_dir() else self.sizes
        return merged(said, self.options)

    @property
    def side(self) -> int | None:
        """The side of images that a model of `one_size` takes, None where nothing says it."""
        return self.configuration.get("image_size", self.sizes.get("image_size"))

    def check(self, data: DataSet) -> None:
        """Raise UserError as every family, without the package, and for images of no such size."""
        super().check(data)
        if not (version := installed(self.package)):
            raise UserError(
                f"model={self.name} is a model of the package {self.package}, which is not "
                "installed: pip install 'segsweep[hf]'"
            )
        if not LEAST <= tuple(map(int, version.split(".")[:2])) < BELOW:
            raise UserError(
                f"model={self.name}: installed is {self.package} {version}, whose weights have "
                "other names; pip install 'segsweep[hf]'"
            )
        side = self.side  # of a config.json that is refused if it is another model's
        if self.one_size and side is not None and max(data.size) > side:
            raise UserError(
                f"data.size={data.size}: model={self.name} takes images of {side} x {side}, "
                f"smaller ones padded; say data.size=[{side},{side}], or choose another model"
            )

    def build(self, subject: Subject) -> Segmenter:
        """Build the model with random weights; only the number of classes matters."""
        from segsweep.model.heads import hf
        from segsweep.model.segmenter import Segmenter

        config = hf.configuration(self.model_type, self.configuration)
        config.num_labels = len(subject.texts)
        head = self.head
        built = head(hf.network(config, head), self.reader(subject), self.side_of(config))
        return Segmenter(self.backbone.build(), built, hf.NetworkLoss())

    @property
    def head(self) -> type[HFHead]:
        """The head that speaks the network's language."""
        from segsweep.model.heads.hf import HFHead

        return HFHead

    def reader(self, subject: Subject) -> Reader:
        """Return what reads the queries."""
        from segsweep.loss.classes import Softmax
        from segsweep.model.heads import query

        return query.reader(subject, Softmax(), self.topk)

    def side_of(self, config: PreTrainedConfig) -> int:
        """Return the side of images that a configuration says, 0 where any size will do."""
        return config.image_size if self.one_size else 0

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        """Draw `class_tensors` anew, as torch draws a linear layer; weights of the loss stay."""
        import torch

        layer, draws = model.get_submodule(CLASSIFIER), torch.Generator().manual_seed(seed)
        bound = layer.get_parameter("weight").shape[1] ** -0.5
        with torch.no_grad():
            for parameter in layer.parameters():
                if not parameter.is_meta:
                    parameter.uniform_(-bound, bound, generator=draws)

    def read(self, file: Path, mapped: bool) -> tuple[State, list[str] | None]:
        """Read a folder as transformers does, a file as it stands; `mapped` is shapes alone."""
        import torch

        if not file.is_dir():
            return super().read(file, mapped)
        from segsweep.model.heads import hf

        config = hf.configuration(self.model_type, self.configuration)
        if mapped:
            with torch.device("meta"):
                return hf.network(config, self.head).state_dict(), hf.classes_of(config)
        return hf.pretrained(file, config, self.head).state_dict(), hf.classes_of(config)

    def ours(self, state: State) -> State:
        """Give weights of transformers the place that the model has in ours."""
        return {NETWORK + name.removeprefix(NETWORK): tensor for name, tensor in state.items()}

    def official(self, model: Segmenter) -> State:
        """Return the state dict of the model of transformers."""
        return {name.removeprefix(NETWORK): t for name, t in model.state_dict().items()}

    def _config_of(self, folder: Path) -> dict[str, Any]:
        """Read config.json. Raises UserError where it is that of another architecture."""
        said = read_json(folder / CONFIG)
        found = said.get("model_type") if isinstance(said, dict) else None
        if not isinstance(said, dict) or found != self.model_type:
            raise UserError(
                f"{folder / CONFIG}: model_type is {found}, that of model={self.name} is "
                f"{self.model_type}; choose other model.weights, or the model that they are of"
            )
        return said


def merged(said: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return nested dicts, with what stands `over` them."""
    inner = {
        key: merged(said[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(said.get(key), dict)
    }
    return {**said, **over, **inner}
