"""SAM's weights under the names of segment_anything, of transformers, and ours.

Ours are those of timm behind `backbone.`, and of segment_anything behind `sem_seg_head.`.
Composing a config imports this file, so torch is not imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
ENCODER, DECODER, PROMPTS = "image_encoder.", "mask_decoder.", "prompt_encoder."
HEAD = "sem_seg_head."

# patterns of names in transformers and what stands for them in segment_anything, from top to bottom
CODE = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
NETWORK = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head)"
TRANSFORMERS = [
    (r"^shared_image_embedding\.positional_embedding$", CODE),
    (r"^prompt_encoder\.shared_embedding\.positional_embedding$", CODE),  # the same again
    (r"^vision_encoder\.", ENCODER),
    (r"^(image_encoder\.)layers\.", r"\1blocks."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (NETWORK + r"\.layers\.0\.", r"\1.layers.1."),
    (NETWORK + r"\.proj_in\.", r"\1.layers.0."),
    (NETWORK + r"\.proj_out\.", r"\1.layers.2."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
]
RULES = [(re.compile(pattern), new) for pattern, new in TRANSFORMERS]
LINEAR = re.compile(r"\.mlp\.lin(\d)\.")
FC = re.compile(r"\.mlp\.fc(\d)\.")


def from_official(state: Mapping[str, T]) -> dict[str, T]:
    """Give weights of segment_anything or transformers our names; ours pass."""
    hugging_face = any(name.startswith("vision_encoder.") for name in state)
    return {ours(segment_anything(n) if hugging_face else n): state[n] for n in state}


def to_official(state: Mapping[str, T]) -> dict[str, T]:
    """Give a state dict of a model of ours the names of segment_anything."""
    return {official(name): value for name, value in state.items()}


def segment_anything(name: str) -> str:
    """Return the name in segment_anything of one in transformers."""
    for pattern, new in RULES:
        name = pattern.sub(new, name)
    return name


def ours(name: str) -> str:
    """Return our name of one in segment_anything."""
    if name.startswith(ENCODER):
        return LINEAR.sub(r".mlp.fc\1.", "backbone." + name.removeprefix(ENCODER))
    return HEAD + name if name.startswith((DECODER, PROMPTS)) else name


def official(name: str) -> str:
    """Return the name in segment_anything of one of ours."""
    if name.startswith("backbone."):
        return FC.sub(r".mlp.lin\1.", ENCODER + name.removeprefix("backbone."))
    return name.removeprefix(HEAD)
