"""The official models at full size, with weights from a recipe instead of a checkpoint."""

from __future__ import annotations

import re
from zlib import crc32

import numpy as np
import pytest
import torch
from torch import Tensor

from segsweep.data.base import Subject
from segsweep.model.family import MAPS
from segsweep.model.layers.position import proposals
from segsweep.model.maskdino import from_official, to_official
from segsweep.model.segmenter import Segmenter

pytestmark = [pytest.mark.golden, pytest.mark.slow]
NORM = re.compile(r"norm|input_proj\.\d+\.1\.")
ALIASES = [
    (re.compile(r"predictor\.(decoder\.)?bbox_embed\.\d+\."), "predictor._bbox_embed."),
    (re.compile(r"predictor\.decoder\.norm\."), "predictor.decoder_norm."),
]


def factor(name: str, shape: tuple[int, ...]) -> float:
    """Deviation of the drawn weights (all but norm weights, which are 1 + 0.1 z)."""
    fan = shape[-1] if shape else 1
    for part, scale in (
        ("sampling_offsets.weight", 0.6 / fan**0.5),
        ("sampling_offsets.bias", 1.5),
        ("relative_position_bias_table", 0.3),
        ("level_embed", 0.7),
        ("label_enc", 0.7),
        ("_bbox_embed.layers.2.weight", 0.5 / fan**0.5),
    ):
        if part in name:
            return scale
    return float(np.prod(shape[1:])) ** -0.5 if len(shape) >= 2 else 0.1


def draw(name: str, shape: tuple[int, ...], salt: str) -> Tensor:
    """Draw one tensor by its official name."""
    for alias, first in ALIASES:
        name = alias.sub(first, name)
    random = np.random.RandomState(crc32(f"{salt}:{name}".encode()) & 0x7FFFFFFF)
    if name.endswith("running_var"):
        return torch.from_numpy((0.6 + 0.8 * random.random_sample(shape)).astype(np.float32))
    z = random.standard_normal(shape).astype(np.float32) * np.float32(factor(name, shape))
    one = name.endswith("weight") and len(shape) == 1 and NORM.search(name)
    return torch.from_numpy(1 + z if one else z)


def recipe(state: dict[str, Tensor], salt: str) -> dict[str, Tensor]:
    """Weights for every name of an official state dict."""
    drawn = {
        name: draw(name, tuple(tensor.shape), salt)
        for name, tensor in state.items()
        if tensor.is_floating_point() and name != "criterion.empty_weight"
    }
    u = drawn["sem_seg_head.predictor.mask_embed.layers.2.bias"] * 10
    drawn["sem_seg_head.predictor.mask_embed.layers.2.bias"] = u
    drawn["sem_seg_head.pixel_decoder.mask_features.bias"] = -8 * u / u.dot(u)  # few pixels inside
    return drawn


@torch.no_grad()
@pytest.mark.parametrize("word", ["r50", "swinl"])
def test_full_size(golden, family, word):
    file = f"full_{word}"
    expected, info = golden.arrays(file), golden.info(file)
    config = family(f"maskdino_{word}")
    config.queries = expected["out/pred_logits"].shape[1]
    with torch.device("meta"):
        model = config.build(Subject(["one"] * expected["out/pred_logits"].shape[2])).eval()
    state = to_official(model.state_dict(), config.backbone.layout)
    fill(model, from_official(recipe(state, info["salt"]), config.backbone.layout), state)

    image = expected["in/image_uint8"].float()
    random = np.random.RandomState(crc32(f"{info['salt']}:image".encode()) & 0x7FFFFFFF)
    assert torch.equal(torch.from_numpy(random.randint(0, 256, image.shape)).float(), image)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    features = model.features(((image - mean[:, None, None]) / std[:, None, None])[None])
    for name, feature in zip(MAPS, features, strict=True):
        sub = feature[:, ::8, ::2, ::2]
        golden.check(sub, expected[f"backbone/{name}_sub"], "full-size backbone")
        moments = torch.stack([feature.mean(), feature.std()])
        golden.check(moments, expected[f"backbone/{name}_mean_std"], "full-size backbone")
    check_head(golden, model.sem_seg_head, features, expected)


def fill(model: Segmenter, weights: dict[str, Tensor], official: dict[str, Tensor]) -> None:
    """Give memory and values to a model without either, constants from the official state dict."""
    model.to_empty(device="cpu")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    shared = ("bbox_embed", "decoder.norm", "empty_weight")
    assert all(any(part in name for part in shared) for name in missing)
    for name, buffer in model.named_buffers():
        if name.endswith("relative_position_index"):
            buffer.copy_(official[name])


def check_head(golden, head, features: list[Tensor], expected: dict[str, Tensor]) -> None:
    pixel = head.pixel_decoder(features)
    golden.check(pixel.mask_features[:, ::8, ::2, ::2], expected["pixel/mask_features_sub"])
    for i, level in enumerate(pixel.levels):
        golden.check(level[:, ::8], expected[f"pixel/multi_scale_features_sub/{i}"])
    predictor, levels = head.predictor, pixel.levels[::-1]
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
    _, usable = proposals([level.shape[-2:] for level in levels], memory.device)
    scores = predictor.scores(memory.masked_fill(~usable[:, None], 0))
    chosen = scores.topk(predictor.queries, dim=1).indices
    assert chosen.equal(expected["two_stage/topk_indices"])
    output = predictor(pixel)
    sets = len(output.matching.logits)
    places = {"": (output.matching, sets - 1), "interm/": (output.interm, 0)}
    places |= {"aux0/": (output.matching, 0), "aux_mid/": (output.matching, sets // 2)}
    for prefix, (part, s) in places.items():
        for kind in ("logits", "boxes"):
            golden.check(getattr(part, kind)[s], expected[f"out/{prefix}pred_{kind}"])
    for prefix in ("", "interm/"):
        name = next(n for n in expected if n.startswith(f"out/{prefix}pred_masks_q0_"))
        part, s = places[prefix]
        some = part.embeddings[s][:, : expected[name].shape[1]]
        masks = torch.einsum("bqc,bchw->bqhw", some, output.mask_features)
        golden.check(masks, expected[name], "mask logits")
