"""Instances at the original image size agree with the released program's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from segsweep.data.base import DataSet, Record, Subject
from segsweep.data.geometry import Size
from segsweep.data.loader import collate
from segsweep.data.transforms import Sample
from segsweep.loss.boxes import bitmask
from segsweep.loss.outputs import Output, PredictionSets
from segsweep.model.found import Instances
from segsweep.model.heads.frames import to_original
from segsweep.model.seem import from_official
from segsweep.model.segmenter import Segmenter

from .test_backbones import family

pytestmark = pytest.mark.golden


def segmenter(golden) -> Segmenter:
    """The tiny model, whose backbone has the recorded weights."""
    state = golden.state("tiny_state_dict")
    classes = [f"class {i}" for i in range(golden.config["predictor"]["num_classes"])]
    model = replace(family(golden), topk=golden.config["topk_per_image"]).build(Subject(classes))
    model.load_state_dict(from_official(state))
    return model.eval()


def size(array: Tensor) -> Size:
    height, width = array.tolist()
    return height, width


def check_instances(golden, found: Instances, arrays: dict[str, Tensor], image: int) -> None:
    """Compare with the arrays of one image, which are sorted by score too."""
    golden.check(found.scores, arrays[f"scores{image}"])
    assert found.labels.equal(arrays[f"classes{image}"].long())
    shape = arrays[f"masks_shape{image}"].tolist()
    assert list(found.masks.shape) == shape
    bits = np.unpackbits(arrays[f"masks_packed{image}"].numpy(), axis=1)[:, : shape[1] * shape[2]]
    expected = torch.from_numpy(bits).bool().view(shape)
    assert (found.masks != expected).float().mean() <= 0.0005
    assert found.boxes.equal(bitmask(found.masks))


def test_instances(golden):
    arrays = golden.arrays("postprocess")
    logits, masks = arrays["pred_logits"], arrays["pred_masks"]
    images = range(len(logits))
    # masks themselves as features: embeddings are unit vectors
    unit = torch.eye(masks.shape[1]).expand(1, len(masks), -1, -1)
    output = Output(PredictionSets(logits[None], None, unit), None, None, None, masks)
    sizes, originals = (
        [size(arrays[f"{kind}_size{b}"]) for b in images] for kind in ("image", "output")
    )
    padded, model = size(arrays["padded_size"]), segmenter(golden)
    assert model.sem_seg_head.reader.topk == arrays["topk"]
    views = [(one, padded, original) for one, original in zip(sizes, originals, strict=True)]
    for b, found in enumerate(model.predict(output, views)):
        check_instances(golden, found, arrays, b)
        one = to_original(masks[b : b + 1, :1], sizes[b], padded, originals[b], "bicubic")[0, 0]
        golden.check(one, arrays[f"resized_mask_logits_q0_{b}"])


@torch.no_grad()
def test_from_images_to_instances(golden):
    arrays, config = golden.arrays("end_to_end"), golden.config
    model = segmenter(golden)
    head = golden.head(arrays["text_embeddings"])
    head.reader, model.sem_seg_head = model.sem_seg_head.reader, head
    data = DataSet(mean=config["pixel_mean"], std=config["pixel_std"])
    batch = collate([empty(arrays, b) for b in range(len(arrays["pred_logits"]))], data)
    assert list(batch.images.shape[2:]) == config["padded_size"]

    output = model(batch.images)
    sets = output.matching
    golden.check(sets.logits[-1], arrays["pred_logits"])
    masks = torch.einsum("bqc,bchw->bqhw", sets.embeddings[-1], output.mask_features)
    golden.check(masks, arrays["pred_masks"])
    for b, found in enumerate(model.predict(output, batch.views)):
        check_instances(golden, found, arrays, b)


def empty(arrays: dict[str, Tensor], image: int) -> Sample:
    """A recorded image without targets."""
    pixels, (height, width) = arrays[f"image{image}"], size(arrays[f"out_hw{image}"])
    record = Record(image, "", height, width, [])
    none = torch.zeros(0, *pixels.shape[1:], dtype=torch.bool)
    return Sample(pixels, torch.zeros(0).long(), torch.zeros(0, 4), none, record)
