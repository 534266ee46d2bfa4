"""Nothing recorded is left out: every array is an input of a test, or a test compares it."""

from __future__ import annotations

import numpy as np
import pytest
from recorded import uncompared

pytestmark = pytest.mark.golden
OUTPUTS = r"(aux_outputs/\d+/|interm_outputs/)?pred_(logits|boxes|masks)"
PIXEL = r"(mask_features|multi_scale_features/\d+)"
STEP = [r"loss_raw/loss_.+", r"total_weighted", r"match/(final|aux\d+|interm)/\d+"]
TUNED = rf"({OUTPUTS}|mask_features_ds2|multi_scale_features/\d+)"

# names of the arrays by file; those under `in` and `sd` are inputs
KNOWN = {
    r"modules": [
        r"msda/(sd/.+|init/sampling_offsets\.bias|out/ref[24]_(no)?mask)",
        r"(msda|proposals|enc_ref|enc_layer0|dec_layer0|pixel_masked)/in/.+",
        r"(inverse_sigmoid|mask_boxes|sine_query)/in|giou/in[12]|pe_sine/in_mask",
        r"pe_sine/(\d+x\d+|masked)",
        r"sine_query/out_(tiny|(2d_)?nfeat128_official)",
        r"proposals/out/(proposals_unsigmoid|memory_first8)",
        r"(enc_ref|inverse_sigmoid|enc_layer0)/out|dec_layer0/out_(no)?mask",
        r"mask_boxes/(mask2box|bitmask)_(xyxy|refpoint_unsigmoid)",
        r"giou/(out|iou)",
        rf"pixel_masked/out/{PIXEL}",
    ],
    r"model|level5_model": [r"sd/.+", r"in/res[2-5]", r"gt/\d+/(masks|boxes_xyxy|labels)"],
    r"head_eval|level5_eval": [
        rf"pixel/(transformer_encoder_features|{PIXEL})",
        rf"(eval_(mask2box|bitmask|no)|train_nodn)/{OUTPUTS}",
        r"two_stage/(spatial_shapes|output_proposals_unsigmoid|max_class_logit|topk_indices)",
    ],
    r"inference": [
        r"default/\d+/(scores|image_size|boxes_from_masks|pred_(classes|masks|boxes))",
        r"focus_on_box/\d+/scores",
        r"imagelist/(shape|sizes)",
    ],
    r"losses": [
        r"points/(matcher|loss)|(dn|uncertain)/in/.+",
        r"targets/\d+/(boxes_cxcywh|labels|padded_mask_shape)",
        r"matcher/\d+/(cls|bbox_l1|giou|mask_bce|dice|cost|src_idx|tgt_idx)",
        r"matcher/\d+/(pred|gt)_mask_points",
        r"loss/(num_masks|loss_(ce|mask|dice|bbox|giou))",
        r"uncertain/out/point_coords",
        r"dn/out/(input_query_(label|bbox_unsigmoid)|attn_mask|pad_size|scalar)",
        r"dn/out/((map_)?known_indice|batch_idx|known_(labels|boxes))",
    ],
    r"train_pinned": [
        *(r"in/.+", r"grad_norm_values", r"grad/.+", *STEP),
        rf"out/(dn/)?{OUTPUTS}|out/dn/pred_masks_ds\d+",
        rf"empty_(img1|all)/({STEP[0]}|{STEP[1]})",
    ],
    r"train_rng": [r"draw/\d+_(rand|rand_like|randint_like)", *STEP],
    r"backbone_(resnet50|swin)": [r"sd/.+", r"in/image", r"out/res[2-5]"],
    r"full_(r50|swinl)": [
        r"in/image_uint8",
        r"backbone/res[2-5]_(sub|mean_std)",
        r"pixel/(mask_features_sub|multi_scale_features_sub/\d+)",
        r"two_stage/topk_indices",
        r"out/((interm|aux_mid|aux0)/)?pred_(logits|boxes)",
        r"out/(interm/)?pred_masks_q0_\d+",
    ],
    r"adapters_I[13]": [
        r"I\d/sd/.+|block/in/(x|residual)",
        rf"I\d/(kappa|lambda|kappa_lambda)/({TUNED}|enc_layer0/out|dec_layer0/out_nomask)",
        r"block/I\d_enc0_out",
    ],
    r"lora": [
        r"sd/.+|mha/(sd|in)/.+|mha_paper_eq7/in/[AB]_[qv]|msda/sd_lora/.+",
        rf"r\d+_alpha\d+/({TUNED}|merged/.+)",
        r"mha/alpha\d+/(out|grad_(A|B|query)_(released|exact))",
        r"mha_paper_eq7/alpha\d+/out|msda/alpha\d+/(out_ref2_mask|out_ref4_nomask)",
    ],
}


def test_every_array_is_compared(golden):
    assert uncompared(golden, KNOWN) == {}


def test_only_what_is_listed_is_infinite(golden):
    for info in golden.manifest["files"]:
        arrays = golden.arrays(info["file"].removesuffix(".npz"))
        infinite = {key for key, value in arrays.items() if not np.isfinite(value.numpy()).all()}
        assert infinite <= set(info.get("allow_inf", []))
