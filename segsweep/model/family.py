"""What every model family declares: its backbone, base weights and named groups of weights.

Composing a config imports this file, so torch is imported by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from functools import partial
from importlib import import_module
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from segsweep.base.config import Choice, neutral, outside, within, words
from segsweep.base.errors import Unfit, UserError
from segsweep.base.explain import choices
from segsweep.base.words import files
from segsweep.model.backbones import STRIDES, is_pyramid, layouts
from segsweep.model.files import BaseWeights, identity

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from segsweep.data.base import DataSet, Subject
    from segsweep.model.backbones.base import Backbone
    from segsweep.model.segmenter import Segmenter
    from segsweep.model.weights import LoadReport

    State = dict[str, Tensor]

QKV = "backbone.*blocks.*.attn.qkv.weight"
FFN = [f"backbone.*blocks.*.mlp.fc{i}.weight" for i in (1, 2)]
BLOCK_ROLES = {  # of any backbone whose blocks have places
    "attention": [QKV],
    "keys": [f"{QKV}:k"],
    "values": [f"{QKV}:v"],
    "feedforward": FFN[1:],
    "ffn": FFN,
    "linears": [QKV, "backbone.*blocks.*.attn.proj.weight", *FFN],
    "norms": ["backbone.*blocks.*.norm[12].*"],
    "patches": ["backbone.patch_embed.*"],
    "seams": ["backbone.*blocks.*.after_attn", "backbone.*blocks.*.after_mlp"],
}
Roles = dict[str, list[str]]
"""A family's names for groups of its weights and seams, each a list of patterns."""
Repatch = Enum("Repatch", {"bicubic": "bicubic", "pi": "pi", "none": "none"})
MAPS = ["res2", "res3", "res4", "res5"]  # strides 4, 8, 16, 32


@dataclass
class BackboneConfig:
    """A backbone by name; `layout` is the file of `segsweep/model/backbones` that builds it.

    `kwargs` go to what has the name there, for most layouts `timm.create_model`. `drop_path` > 0
    stays active in training although the backbone is frozen, as in the programs that the published
    Swin-L and Focal-L numbers come from (there 0.3). `repatch` says how a kernel for patches of
    another size becomes one for the model's, where a file of weights has such
    (`backbones/patches.py`).
    """

    name: str = "resnet50"
    layout: str = "resnet"
    kwargs: dict[str, Any] = within(default_factory=dict, least=-inf)
    drop_path: float = within(0.0, below=1)
    label: str = outside("")  # what tables call it
    pretrained: bool = False  # weights of the backbone alone, where no `weights` are loaded
    repatch: Repatch = neutral(Repatch["bicubic"])

    def __post_init__(self) -> None:
        """Refuse a layout that has no file, and a way to re-patch that is not timm's own."""
        if self.layout not in (known := layouts()):
            message = f"model.backbone.layout={self.layout}: there is no such layout"
            raise UserError(message + choices(self.layout, known))
        if self.pretrained and "patch_size" in self.kwargs and self.repatch is not Repatch["pi"]:
            raise UserError(
                f"model.backbone.repatch={self.repatch.name}: what model.backbone.pretrained "
                "fetches timm itself re-patches, by pi; choose model.backbone.repatch=pi, leave "
                "out model.backbone.kwargs.patch_size, or name a file: model.weights=FILE"
            )

    def build(self) -> Backbone:
        """Build it, with random weights unless `pretrained`."""
        file = import_module(f"segsweep.model.backbones.{self.layout}")
        return file.build(self.name, dict(self.kwargs), self.drop_path, self.pretrained)

    def licence(self) -> str:
        """Return what timm says of the weights that it has for the name; it alone knows them."""
        from segsweep.model.backbones.timm import licence

        return licence(self.name)

    def weights(self, state: State, backbone: Backbone) -> State:
        """Find the weights of a backbone that was built in a file, see `backbones/names.py`.

        Raises UserError for those of another kind or size.
        """
        from segsweep.model.backbones import names

        file = import_module(f"segsweep.model.backbones.{self.layout}")
        find = getattr(file, "weights", names.weights)
        return find(state, backbone, self.repatch.name)


@dataclass
class Family(Choice):
    """One word of `conf/model`: dimensions, how the parts are put together, official names.

    `sign` is a weight that checkpoints of this family have under every layout, and no others: the
    end of its name. `spare` are patterns of names, as ours, of what a checkpoint may hold beside,
    `optional` of what it may lack, which then stays as it was built.
    `language` says whether classes are told by texts, not by numbers alone. The official program
    has backbones of `layouts`, and reads torch files whose weights stand under the key `envelope`,
    if that is not empty. `pyramid` says that what stands behind the backbone reads maps at STRIDES.
    """

    architecture: ClassVar[str] = ""  # what tables call the family
    sign: ClassVar[str] = ""
    envelope: ClassVar[str] = ""
    language: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("instances", "semantic")  # files of segsweep/task
    masks: ClassVar[bool] = True  # its instances have them; else they are boxes alone
    layouts: ClassVar[tuple[str, ...]] = ()
    pyramid: ClassVar[bool] = False
    class_tensors: ClassVar[tuple[str, ...]] = ()  # of one shape or another by the classes
    spare: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = ""  # that it needs beside those of every installation
    scopes: ClassVar[tuple[str, ...]] = ("backbone",)  # roles: parts in which methods have places

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    # height, width for data sets that leave it to the model
    input: list[int] = outside(default_factory=lambda: [512, 512], least=1)
    # path, URL or segsweep://file in the package, and what is known of it (model/files.py); null =
    # random
    weights: str | None = within(None, identity=identity)
    clip: float = outside(0.01)  # gradient norm that `hparams.clip` follows unless given

    @property
    def roles(self) -> Roles:
        """Patterns of the weights and seams that a method may name by one word."""
        raise NotImplementedError

    @property
    def readings(self) -> dict[str, Family]:
        """What else roles may mean, by label; the verb `params` counts every reading."""
        return {"": self}

    @property
    def licence(self) -> str:
        """The licence of the weights that a run starts from, "" where nobody says one."""
        if self.weights is not None:
            return BaseWeights.of(self.weights).licence
        return self.backbone.licence() if self.backbone.pretrained else ""

    @property
    def limits(self) -> dict[str, int]:
        """How many objects are found in an image, by the keys that say it."""
        return {}

    def check(self, data: DataSet) -> None:
        """Raise Unfit for data of other tasks, UserError for weights that cannot be named so."""
        if data.task not in self.tasks:
            able = [
                word
                for word, family in words("model").items()
                if issubclass(family, Family) and data.task in family.tasks
            ]
            raise Unfit(
                f"model={self.name} serves the task {' or '.join(self.tasks)}, that of "
                f"data={data.name} is {data.task}; choose other data, or a model such as "
                + ", ".join(get_close_matches(self.name, able, n=4, cutoff=0))
            )
        if self.pyramid and not is_pyramid(self.backbone.layout):
            wanted, fitting = ", ".join(map(str, STRIDES)), "|".join(filter(is_pyramid, layouts()))
            raise UserError(
                f"model.backbone.layout={self.backbone.layout} gives maps of one stride, but "
                f"model={self.name} reads maps at strides {wanted}; choose "
                f"model.backbone.layout={fitting}, or a model that is made for one map"
            )
        if self.weights is not None:
            BaseWeights.of(self.weights)

    def advice(self, data: DataSet) -> str:
        """Say that the base weights know other data only, and which word knows more; else ""."""
        if not (instead := self.instead(data)):
            return ""
        knows = BaseWeights.of(self.weights or "").knows
        return (
            f"model={self.name} was pretrained on data={knows} only: expect scores near 0. "
            f"For real results: {instead}"
        )

    def instead(self, data: DataSet) -> str:
        """Say what to choose in place of a base that knows other data only; else "".

        It is the official model that it is a miniature of, and what fetching this one takes.
        """
        source = BaseWeights.of(self.weights) if self.weights is not None else BaseWeights("")
        if source.knows in ("", data.name, data.pictures_of):
            return ""
        if not source.larger:
            return "model.weights=FILE"
        cost = BaseWeights.of(weights_of(source.larger)).cost()
        return f"model={source.larger}{cost and f' ({cost})'}"

    def build(self, subject: Subject) -> Segmenter:
        """Build the model with random weights."""
        raise NotImplementedError

    def load(self, model: Segmenter, classes: list[str], seed: int) -> LoadReport:
        """Load `weights` into a model of these classes, and report what was drawn anew.

        Raises:
            UserError: the file cannot be had, is damaged, or belongs to another model.
        """
        from segsweep.model.weights import load

        def rename(state: State) -> State:
            self.refuse_other_family(state)
            return self.fitted(self.ours(state), model)

        draw = partial(self.draw_classes, model, seed)
        parts = self.class_tensors, classes, draw, self.spare, self.optional
        return load(model, self.weights, rename, *parts, reader=self.read)

    def read(self, file: Path, mapped: bool) -> tuple[State, list[str] | None]:
        """Read tensors and class names of weights, see `segsweep.model.weights.read`."""
        from segsweep.model.weights import read

        return read(file, mapped)

    def draw_classes(self, model: Segmenter, seed: int) -> None:
        """Draw `class_tensors` anew."""
        raise NotImplementedError

    def ours(self, state: State) -> State:
        """Give official weights the model's names; weights under the model's names pass."""
        raise NotImplementedError

    def fitted(self, state: State, model: Segmenter) -> State:
        """Return weights under our names in the form of the model, or refuse them in a sentence."""
        return state

    def official(self, model: Segmenter) -> State:
        """Return the whole state dict of a model under its official names."""
        raise NotImplementedError

    def caveats(self, state: State) -> list[str]:
        """Return lines on what of the `official` weights of a run its program takes otherwise."""
        return []

    def refuse_other_family(self, names: Iterable[str]) -> None:
        """Refuse a checkpoint with weights of these names if it is another family's."""
        held = tuple(names)

        def signed(family: type[Family]) -> bool:
            return bool(family.sign) and any(name.endswith(family.sign) for name in held)

        for word, family in words("model").items():
            if not issubclass(family, Family):
                continue
            if signed(family) and not signed(type(self)):
                raise UserError(
                    f"model.weights={self.weights} seems to belong to {family.__name__} (it holds "
                    f"{family.sign}), but model={self.name} is {type(self).__name__}; choose "
                    f"weights of {type(self).__name__}, or a model such as {word}"
                )


def weights_of(word: str) -> str:
    """Return the base weights that the file of an installed word names, "" if it names none."""
    from omegaconf import OmegaConf

    file = files("model").get(word)
    content: Any = OmegaConf.load(file) if file else {}
    return content.get("weights") or ""


def renamed(name: str, pairs: Sequence[tuple[str, str]], back: bool = False) -> str:
    """Replace parts of an official name by ours, from top to bottom; `back` undoes it."""
    for theirs, ours in reversed(pairs) if back else pairs:
        name = name.replace(ours, theirs) if back else name.replace(theirs, ours)
    return name


def multiple(key: str, width: int, parts: dict[str, int]) -> None:
    """Refuse a width that is no multiple of each of the named parts."""
    for name, part in parts.items():
        if part < 1 or width < 1 or width % part:
            raise UserError(f"{key}={width} must be a multiple of {name}={part}")
