"""Which predictions are right and which objects were found: what every analysis begins with.

hotcoco matches masks, or boxes where there are no masks, as COCO evaluation does, at one IoU
threshold: class by class, best score first, each object once, crowds count neither way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from hotcoco import COCO, COCOeval

from segsweep.base.errors import UserError
from segsweep.data.base import Annotation, DataSet, Record
from segsweep.metrics.coco import truths

if TYPE_CHECKING:
    from segsweep.run.lines import Found

BACKGROUND_IOU = 0.1  # below it a prediction has nothing to do with an object (Bolya 2020)

TYPES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
ERRORS = TYPES | {"FP": "false_positives", "FN": "false_negatives"}
"""The errors of TIDE, by hotcoco's names for them; the last two overlap with the six types."""


@dataclass(frozen=True)
class Matches:
    """P predictions that count and T objects that are no crowds, of the evaluated images.

    The score of the prediction that found an object is -1 where none did. Which predictions are
    matched depends on better ones only, so at a score threshold s an object is found if its score
    is at least s.
    """

    iou: float
    by_masks: bool  # else by boxes
    images: list[int]
    scores: np.ndarray  # (P,)
    right: np.ndarray  # (P,) bool
    objects: list[tuple[Record, Annotation]]  # T
    finders: np.ndarray  # (T,) score of the prediction that found each
    evaluation: COCOeval

    def errors(self) -> dict[str, dict[str, float]]:
        """Return what AP, in percent, would gain without each type of error, and their numbers.

        The definitions are those of TIDE (Bolya 2020, sections 2.2 and 2.3); `base` is AP itself.
        """
        tide = self.evaluation.tide_errors(pos_thr=self.iou, bg_thr=BACKGROUND_IOU)
        values = {"base": {"AP": 100 * tide["ap_base"]}}
        for key, name in ERRORS.items():
            count = {"count": tide["counts"][key]} if key in tide["counts"] else {}
            values[name] = {"dAP": 100 * tide["delta_ap"][key], **count}
        return values


def match(
    data: DataSet,
    predicted: Iterable[tuple[int, Found]],
    iou: float,
    max_dets: int,
    by_masks: bool = True,
) -> Matches:
    """Match the predictions for images of the validation split with the objects on them.

    `max_dets` predictions of an image and class count, the best ones. They are matched by masks, or
    else by boxes.
    """
    records = {record.image_id: record for record in data.records("val")}
    objects: list[tuple[Record, Annotation]] = []
    images, truth, rows = [], [], []
    other = "bbox" if by_masks else "segmentation"
    for image_id, instances in predicted:
        record = records.get(image_id)
        if record is None:
            raise UserError(f"data={data.name}: has no image {image_id}, which predictions are of")
        images.append({"id": image_id, "height": record.height, "width": record.width})
        truth += truths(record, len(truth) + 1)
        objects += [(record, annotation) for annotation in record.annotations]
        # with both, the area of a prediction would be that of its box
        rows += [{"image_id": image_id} | {k: i[k] for k in i if k != other} for i in instances]
    kind = "segm" if by_masks else "bbox"
    evaluation = _evaluation(data.classes(), images, truth, rows, kind, iou, max_dets)
    judged = evaluation.image_diagnostics(iou_thr=iou)
    state, finder = judged["dt_status"], judged["gt_match"]
    counted = [number for number in range(1, len(rows) + 1) if number in state]
    counting_objects = [k for k, (_, annotation) in enumerate(objects) if not annotation.iscrowd]
    scores = np.array([-1.0, *(row["score"] for row in rows)])  # predictions are numbered from 1
    return Matches(
        iou,
        by_masks,
        [image["id"] for image in images],
        scores[counted],
        np.array([state[number] == "tp" for number in counted], bool),
        [objects[k] for k in counting_objects],
        scores[[finder.get(k + 1) or 0 for k in counting_objects]],
        evaluation,
    )


def _evaluation(
    classes: list[str],
    images: list,
    truth: list,
    rows: list,
    kind: str,
    iou: float,
    max_dets: int,
) -> COCOeval:
    """Return COCO's evaluation of a kind at one threshold, all sizes together."""
    categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
    annotations = COCO({"images": images, "annotations": truth, "categories": categories})
    evaluation = COCOeval(annotations, annotations.load_res(rows), kind)
    params = evaluation.params
    params.iou_thrs = [iou]
    params.max_dets = [max_dets]
    params.area_rng, params.area_rng_lbl = [[0.0, 1e10]], ["all"]
    evaluation.params = params
    evaluation.evaluate()
    return evaluation
