"""Nothing recorded of SAM is left out: every array is an input of a test, or a test compares it."""

from __future__ import annotations

import re

import pytest
from recorded import FOLDER, Recorded

pytestmark = pytest.mark.golden
PIXELS = r"in/image\d_uint8_hwc"

# names of the arrays by file
KNOWN = {
    "sam_tiny": [
        r"sd/.+|in/(points|point_labels|boxes|mask_prompt)|grad_in/mask_cotangent",
        rf"{PIXELS}|pre/(input|input_sizes|resized\d_uint8_hwc)",
        r"enc/(image_embeddings|block\d+_out_img0)|post/img\d_mask1|grad/.+",
        r"prompt/(dense_pe|none_dense|(points|boxes|points_boxes_mask)_sparse)",
        r"prompt/points_boxes_mask_dense|dec/(points|boxes|points_boxes_mask)_(masks|iou)",
        r"dec/img\d_(masks|iou)_all4|dec/img\d_hs|dec/img0_src",
    ],
    "sam_ag_binary": [
        rf"{PIXELS}|in/gt\d_uint8_hw|pre/(pixel_values|gt)|out/(low_res|logits|iou)",
        r"post/(prob|mask)\d|grad/(structure_as_released|balanced_bce)/.+",
        r"loss/(structure_(as_released|fixed)|balanced_bce)(_(empty|full)_gt)?",
        r"loss/bce",  # plain cross entropy, which no published setting has
    ],
    "sam_ag_multiclass": [
        rf"{PIXELS}|in/gt\d_uint8_hw|pre/(pixel_values|gt)|sd_extra/.+|draw/\d+|tgt/classes\d",
        r"init/(class_logits|logits_query0)|out/(class_logits|logits_f16)|match/\d_(query|target)",
        r"loss/(loss_.+|total_.+)|grad/.+|post/(argmax\d|semantic0_stride4)",
    ],
    "sam_full_b": [
        r"in/small_uint8_hwc|enc/(embeddings_sub|mean_std)|prompt/dense_pe_sub",
        r"dec/(iou_all4|masks_all4_sub8|reduced_mask_sub8)",
    ],
    "metrics_ag": [
        r"gt|prob|mc/(gt|scores_f16)",
        r"(sm|em_curve_mean|fm_weighted|mae|ber|binary_iou)_(per_image|first4)",
        r"mc/ignore_as_(255|minus1)_(inter|union|miou)",
    ],
}


@pytest.mark.parametrize("file", KNOWN)
def test_every_array_is_compared(file):
    pattern = re.compile("|".join(f"({known})" for known in KNOWN[file]))
    arrays = Recorded(FOLDER / "heads").arrays(file)
    assert arrays
    assert not [name for name in arrays if not pattern.fullmatch(name)]
