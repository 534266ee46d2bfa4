"""Nothing recorded is left out: every array is an input of a test, or a test compares it."""

from __future__ import annotations

import re

import pytest
from recorded import uncompared

from .passes import RECORDED

pytestmark = pytest.mark.golden
MAPS = r"res[2-5]"
LOSSES = r"loss_(ce|bce|dice)|cost_img\d+|match_(query|target)_img\d+"
POINTS = r"matcher_points_img\d+|loss_(candidate|random)_points"

# names of the arrays by file; what a pass through the head holds is RECORDED
KNOWN = {
    r"tiny_state_dict": [r"sd/.+"],
    r"backbone|backbone_focal_dw": [r"sd/.+", r"image\d+|input", MAPS],
    r"pixel_decoder": [MAPS, RECORDED],
    r"decoder": [r"text_embeddings", RECORDED],
    r"prediction_head": [
        r"decoder_output|text_embeddings|mask_features",
        r"class_emb|mask_emb|pred_(logits|masks)",
    ],
    r"attention_mask": [
        r"mask_logits|num_heads",
        r"(interpolated|mask_(before|after)_fix)_\d+x\d+",
    ],
    r"similarity": [
        r"v_emb|text_embeddings|decoder_output_normed|class_embed|logit_scale_for_class_logits",
        r"logits_scale_[\d.]+|class_logits",
    ],
    r"position_encoding": [r"num_pos_feats", r"hidden_\d+x\d+"],
    r"text_encoder": [
        r"input_ids(_zero_padded)?|attention_mask|eval_template_input_ids",
        r"last_hidden_state|class_emb_(un)?norm|class_emb_norm_zero_padded|token_emb_norm",
        r"eval_text_embeddings",
    ],
    r"loss_functions": [
        r"point_(logits|labels)|(bce|dice)_num_masks_[\d.]+",
        r"cost_(src|tgt|bce|dice)",
        r"sample_(input|coords_xy01|output)",
        r"unc_(logits|rand_candidates|rand_extra|selected_coords|num_points)",
        r"ce_(logits|labels\d+|src\d+|tgt\d+|loss|class_weights)",
    ],
    r"training_losses": [
        rf"text_(input_ids|attention_mask)|target\d+/(labels|masks)|{MAPS}",
        r"(aux\d+/)?pred_(logits|masks)|total_weighted|grad/.+",
        rf"(final|aux\d+)/({LOSSES}|{POINTS})",
        r"final/cost_(class|bce|dice)_img\d+",
    ],
    r"postprocess": [
        r"pred_(masks|logits)|padded_size|(image|output)_size\d+|topk",
        r"resized_mask_logits_q0_\d+|scores\d+|classes\d+|masks_(packed|shape)\d+",
    ],
    r"end_to_end": [
        r"image\d+|text_embeddings|out_hw\d+",
        r"pred_(logits|masks)|scores\d+|classes\d+|masks_(packed|shape)\d+",
    ],
    r"adapters_I[13]": [r"sd/.+", rf"(kappa|lambda|kappa_lambda)/{RECORDED}"],
    r"adapter_unit": [r"x|residual|I\d+/(sd/.+|out)"],
    r"lora_(official|paper_qv)_r4": [
        r"rank|(sd|lora)/.+",
        rf"r\d+_alpha\d+/({RECORDED}|merged_in_proj_weight/.+)",
    ],
}
FILES = [
    r"manifest|tiny_config|clip_tokenizer|paper_recipe|optimizer_groups\.full_head",
    r"focalnet_large_timm_map|seem_[a-z]+_v1(\.(adapters_I|lora_r|finetune_)\w+)?\.keys",
]


def test_every_array_is_compared(golden):
    assert uncompared(golden, KNOWN) == {}


def test_every_file_is_read(golden):
    known = re.compile("|".join(FILES))
    files = [path for path in golden.folder.iterdir() if path.suffix != ".npz"]
    assert [f.name for f in files if f.suffix != ".json" or not known.fullmatch(f.stem)] == []


def test_arrays_are_those_of_the_manifest(golden):
    for file, expected in golden.manifest.items():
        shapes = {k: list(t.shape) for k, t in golden.arrays(file.removesuffix(".npz")).items()}
        assert shapes == {key: shape for key, (shape, _) in expected.items()}, file
    assert {path.name for path in golden.folder.glob("*.npz")} == golden.manifest.keys()
