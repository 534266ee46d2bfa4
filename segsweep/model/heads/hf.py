"""A universal head of the package transformers with its backbone, lent whole: see `model/hf.py`.

Its forward and its loss are transformers' own; targets, and what is found, are ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForUniversalSegmentation, logging

from segsweep.base.errors import UserError
from segsweep.data.loader import DIVISOR
from segsweep.loss.base import BaseCriterion
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.model.heads.base import Head

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from segsweep.data.geometry import View
    from segsweep.data.loader import Target
    from segsweep.model.heads.query import Reader

CODE = re.compile("attn_implementation|auto_map")  # keys of a configuration that name code
UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls a class that has no name


class Answer(NamedTuple):
    """Raw outputs of queries: the last prediction set, and in training the loss of all."""

    logits: Tensor  # (B, Q, K), or K + 1 where the last one says that there is no object
    masks: Tensor  # (B, Q, h, w), bilinear to the input's size
    loss: Tensor | None
    boxes: Tensor | None = None  # (B, Q, 4) cxcywh in parts of the input, where it predicts them


class HFHead(Head):
    """The model of transformers, and what reads its queries.

    Of a network for images of one size, `side` x `side`, smaller ones are padded with zeros at the
    bottom and right, and so are their targets; 0 means that it takes images of any size.
    """

    builds: ClassVar[Any] = AutoModelForUniversalSegmentation

    def __init__(self, network: PreTrainedModel, reader: Reader, side: int = 0) -> None:
        super().__init__()
        self.network, self.reader, self.side = network, reader, side

    @property
    def meanings(self) -> dict[str, str]:
        """What the tensors are, in words."""
        return {
            "logits": f"of each query and class; scores are their {self.reader.classify.meaning}",
            "boxes": "of each query: centre x, centre y, width, height in parts of the input",
            "masks": "logits of each query's mask, bilinear to the input's size",
        }

    def forward(self, features: list[Tensor], targets: Sequence[Target] | None = None) -> Answer:
        """Images (B, 3, H, W) -> Answer; targets are those of training, which give it a loss"""
        (images,) = features
        # which predictions have a loss it asks of these alone, whatever of its parts is at rest
        for module in self.asked():
            module.training = targets is not None
        frame = images.shape[-2:]
        truth = {} if targets is None else self.truth(targets, frame)
        return self.answer(self.network(pixel_values=self._framed(images), **truth), frame)

    def asked(self) -> list[PreTrainedModel]:
        """Return the modules that ask whether they are trained."""
        return [self.network]

    def truth(self, targets: Sequence[Target], frame: Sequence[int]) -> dict[str, Any]:
        """Return the targets as the network takes them; `frame` is the size of the images."""
        return {
            "mask_labels": [self._framed(target.masks).float() for target in targets],
            "class_labels": [target.labels for target in targets],
        }

    def answer(self, output: Any, frame: Sequence[int]) -> Answer:
        """Return what the network said of images of this size."""
        masks = self._unframed(output.masks_queries_logits, frame)
        return Answer(output.class_queries_logits, masks, output.loss)

    def predict(self, output: Answer, views: Sequence[View], least: float = 0.0) -> list[Any]:
        """Return what the reader finds on each image: masks are factors times themselves."""
        images, queries = output.masks.shape[:2]
        each = torch.eye(queries, device=output.masks.device).expand(1, images, -1, -1)
        boxes = None if output.boxes is None else output.boxes[None]
        sets = PredictionSets(output.logits[None], boxes, each)
        found = Output(sets, None, None, None, output.masks)
        return [self.reader.read(found, b, view, least) for b, view in enumerate(views)]

    def tensors(self, output: Answer) -> dict[str, Tensor]:
        """Return `logits`, `masks` and, where there are any, `boxes` of an Answer."""
        boxes = {} if output.boxes is None else {"boxes": output.boxes}
        return {"logits": output.logits, **boxes, "masks": output.masks}

    def only_pixels(self) -> None:
        """Leave out the run lengths of masks."""
        self.reader.encoded = False

    def _framed(self, images: Tensor) -> Tensor:
        """(..., H, W) -> (..., side, side); UserError for larger ones

        What batches have beyond it, up to a multiple of DIVISOR, is padding: images themselves are
        no larger, see `model/hf.py`.
        """
        if not self.side:
            return images
        below, right = (self.side - side for side in images.shape[-2:])
        if min(below, right) <= -DIVISOR:
            height, width = images.shape[-2:]
            raise UserError(
                f"images of {height} x {width} are larger than the {self.side} x {self.side} that "
                f"this model takes; say data.size=[{self.side},{self.side}]"
            )
        return F.pad(images, (0, right, 0, below))

    def _unframed(self, masks: Tensor, frame: Sequence[int]) -> Tensor:
        """(B, Q, h, w) of the side -> of the frame; its edge is repeated in what it did not see"""
        if not self.side:
            return masks
        rows, columns = (s * masks.shape[2] // self.side for s in frame)
        more = (0, max(0, columns - masks.shape[3]), 0, max(0, rows - masks.shape[2]))
        return F.pad(masks[..., :rows, :columns], more, mode="replicate")


class NetworkLoss(BaseCriterion):
    """The loss that the network computed of its forward pass."""

    def forward(self, output: Answer, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Return it, a weighted sum already. -> ()"""
        assert output.loss is not None
        return {"loss_sets": output.loss}


def configuration(model_type: str, said: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration of which all that is `said` differs from its class's.

    Raises UserError for what the class does not take.
    """
    try:
        return CONFIG_MAPPING[model_type].from_dict(_without_code(said))
    except Exception as error:  # of strict classes, of values: a library's own, unlisted
        raise UserError(
            f"model.options, model.sizes or config.json: transformers cannot read them as those of "
            f"{model_type} ({_line(error)}); correct them"
        ) from error


def network(config: PreTrainedConfig, kind: type[HFHead] = HFHead) -> PreTrainedModel:
    """Build a model with random weights. Raises UserError for sizes that do not fit each other."""
    try:
        return kind.builds.from_config(config, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, AssertionError, KeyError) as error:
        raise UserError(
            f"model.options, model.sizes or config.json: transformers builds no "
            f"{config.model_type} of them ({_line(error)}); correct them"
        ) from error


def pretrained(
    folder: Path, config: PreTrainedConfig, kind: type[HFHead] = HFHead
) -> PreTrainedModel:
    """Build the model of a folder, under the names of the installed transformers.

    Raises UserError where the tensors are not those of the configuration.
    """
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    with silent():
        try:
            model, report = kind.builds.from_pretrained(
                folder, config=config, dtype=torch.float32, output_loading_info=True, **safe
            )
        except Exception as error:  # a library's own, unlisted
            raise UserError(
                f"{folder}: transformers cannot load it as the {config.model_type} that its "
                f"config.json says ({_line(error)}); fetch it again, or leave out model.options"
            ) from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{folder}: lacks {len(missing)} tensors of a {config.model_type} ({missing[0]}, ...); "
            "choose a model that was saved whole"
        )
    return model


def classes_of(config: PreTrainedConfig) -> list[str] | None:
    """Return the names of the classes that a configuration says, None where it says none."""
    names = [name for _, name in sorted((config.id2label or {}).items())]
    return None if all(map(UNNAMED.fullmatch, names)) else names


@contextmanager
def silent() -> Iterator[None]:
    """Leave out bars and reports of transformers."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _without_code(said: Any) -> Any:
    """Return what is said, without keys that would have code fetched: files are anybody's."""
    if not isinstance(said, dict):
        return said
    return {key: _without_code(value) for key, value in said.items() if not CODE.search(str(key))}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().replace("\n", " ")[:200]
