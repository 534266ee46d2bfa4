"""A detector with masks of the package transformers, lent whole: see `model/hf_detr.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from transformers import AutoModelForInstanceSegmentation

from segsweep.model.heads.hf import Answer, HFHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from segsweep.data.loader import Target


class HFDetrHead(HFHead):
    """The model of transformers, and what reads its queries."""

    builds: ClassVar[Any] = AutoModelForInstanceSegmentation

    def asked(self) -> list[PreTrainedModel]:
        """Return the three levels of the model: each knows the groups of queries by itself."""
        return [self.network, self.network.model, self.network.model.model]

    def truth(self, targets: Sequence[Target], frame: Sequence[int]) -> dict[str, Any]:
        """Return the targets as the network takes them, boxes in parts of its side."""
        return {
            "labels": [
                {
                    "class_labels": target.labels,
                    "boxes": target.boxes * self._parts(target.boxes, frame),
                    "masks": self._framed(target.masks),
                }
                for target in targets
            ]
        }

    def answer(self, output: Any, frame: Sequence[int]) -> Answer:
        """Return what the network said of images of this size."""
        masks = self._unframed(output.pred_masks, frame)
        boxes = output.pred_boxes / self._parts(output.pred_boxes, frame)
        return Answer(output.logits, masks, self._loss(output), boxes)

    def _parts(self, boxes: Tensor, frame: Sequence[int]) -> Tensor:
        """Return what parts of the frame are multiplied with to be parts of the side. -> (4,)"""
        height, width = frame
        return boxes.new_tensor([width, height] * 2) / self.side

    def _loss(self, output: Any) -> Tensor | None:
        """Return the loss that the network computed. -> ()

        Where no image has an object, its losses of masks are sums over none that keep the shape of
        masks: what is left is that of classes.
        """
        if output.loss is None or not output.loss.dim():
            return output.loss
        classes = [value for name, value in output.loss_dict.items() if name.startswith("loss_ce")]
        return self.network.config.class_loss_coefficient * sum(classes)
