"""Adapters and LoRA against recorded outputs of the released programs, through `apply`."""

import json
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from segsweep.model.deformable import DeformableAttention
from segsweep.model.maskdino import BoxInit, MaskDINO
from segsweep.model.seam import Seam
from segsweep.peft.adapter import Adapter, Residual
from segsweep.peft.base import apply, delta_state_dict, merge
from segsweep.peft.lora import Fused, LoRA

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("SEGSWEEP_GOLDEN", ROOT.parent / "shared" / "golden")) / "maskdino"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason=f"no golden files in {FOLDER} (SEGSWEEP_GOLDEN)"
    ),
]


@cache
def golden(name):
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


@cache
def manifest():
    return json.loads((FOLDER / "manifest.json").read_text())


def part(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def close(got, expected, kind="default"):
    keys = {"default": "default", "mask": "mask logits", "grad": "gradients"}
    key = next(k for k in manifest()["tolerances"] if k.startswith(keys[kind]))
    tolerance = manifest()["tolerances"][key]
    torch.testing.assert_close(got.detach(), expected, **tolerance)


def family():
    c = manifest()["config"]
    return MaskDINO(
        name="golden",
        hidden=c["hidden"],
        mask_dim=c["mask_dim"],
        queries=c["queries"],
        encoder_layers=c["enc"],
        decoder_layers=c["dec"],
        encoder_heads=c["heads"],
        decoder_heads=c["heads"],
        encoder_ffn=c["enc_ffn"],
        decoder_ffn=c["dec_ffn"],
        box_init=BoxInit["mask2box"],
    )


def head_with(method):
    """Build the head with its base weights, then apply a method to it."""
    model, config = nn.Module(), manifest()["config"]
    model.sem_seg_head = family().head(config["channels"], config["classes"])
    state = part(golden("model"), "sd/sem_seg_head.")
    model.sem_seg_head.load_state_dict(state)
    apply(model, method, MaskDINO.roles)
    return model.eval()


def put(model, tensors, names):
    """Fill what a method added with recorded tensors, each exactly once."""
    delta = delta_state_dict(model)
    for name, tensor in tensors.items():
        for pattern, ours in names:
            name = re.sub(pattern, ours, name)
        delta.pop(name).copy_(tensor)
    assert not delta


ADAPTER_NAMES = [
    (r"pixel_decoder_self_attention_adapter|decoder_self_attn_adapter", "after_self_attn"),
    (r"decoder_cross_attn_adapter", "after_cross_attn"),
    (r"adapters\.(\d+)\.adapter_down\.0", r"filling.\1.down"),
    (r"adapters\.(\d+)\.adapter_up", r"filling.\1.up"),
]
LORA_NAMES = [(r"qv_lora_(.)", r"in_proj_weight.lora_\1"), (r"w_lora_(.)", r"weight.lora_\1")]


def adapted(repeats, residual):
    model = head_with(Adapter(name="adapter", train=[], repeats=repeats, residual=residual))
    put(model, part(golden(f"adapters_I{repeats}"), f"I{repeats}/sd/"), ADAPTER_NAMES)
    return model


def low_rank(alpha, **kwargs):
    rank = next(iter(part(golden("lora"), "sd/").values())).shape[0]
    fused = Fused["joint"]
    return LoRA(name="lora", train=[], rank=rank, alpha=alpha, fused=fused, **kwargs)


@torch.no_grad()
def check_outputs(model, expected):
    """Compare all that was recorded of a head's outputs."""
    features = [golden("model")[f"in/{name}"] for name in ("res2", "res3", "res4", "res5")]
    maps = model.sem_seg_head.pixel_decoder(features)
    output = model.sem_seg_head(features)
    sets, interm = output.matching, output.interm
    masks = torch.einsum("bqc,bchw->bqhw", sets.embeddings[-1], output.mask_features)
    close(sets.logits[-1], expected["pred_logits"])
    close(sets.boxes[-1], expected["pred_boxes"])
    close(masks, expected["pred_masks"], "mask")
    close(interm.logits[0], expected["interm_outputs/pred_logits"])
    close(output.mask_features[..., ::2, ::2], expected["mask_features_ds2"])
    levels = part(expected, "multi_scale_features/")
    for level, tensor in levels.items():
        close(maps.levels[int(level)], tensor)
    assert levels


@pytest.mark.parametrize("residual", Residual, ids=lambda r: r.name)
@pytest.mark.parametrize("repeats", [1, 3])
def test_adapters(repeats, residual):
    model = adapted(repeats, residual)
    case = f"I{repeats}/{residual.name.replace('+', '_')}/"
    check_outputs(model, part(golden(f"adapters_I{repeats}"), case))


@pytest.mark.parametrize("residual", Residual, ids=lambda r: r.name)
@pytest.mark.parametrize("repeats", [1, 3])
@torch.no_grad()
def test_layers_with_adapters(repeats, residual):
    model, modules = adapted(repeats, residual), golden("modules")
    case = part(golden(f"adapters_I{repeats}"), f"I{repeats}/{residual.name.replace('+', '_')}/")
    encoder, decoder = part(modules, "enc_layer0/in/"), part(modules, "dec_layer0/in/")
    shapes = encoder["spatial_shapes"].tolist()
    layer = model.sem_seg_head.pixel_decoder.transformer.encoder.layers[0]
    got = layer(encoder["src"], encoder["pos"], encoder["reference_points"], shapes)
    close(got, case["enc_layer0/out"])
    x, position, reference = (
        decoder[key].transpose(0, 1) for key in ("tgt", "query_pos", "reference_points")
    )
    layer = model.sem_seg_head.predictor.decoder.layers[0]
    got = layer(x, position, reference, encoder["src"], shapes)
    close(got.transpose(0, 1), case["dec_layer0/out_nomask"])


@pytest.mark.parametrize("repeats", [1, 3])
@torch.no_grad()
def test_an_adapter_by_itself(repeats):
    file = golden(f"adapters_I{repeats}")
    model = adapted(repeats, Residual["kappa"])  # the recorded residual is given as such
    seam = model.sem_seg_head.pixel_decoder.transformer.encoder.layers[0].after_self_attn
    close(seam(file["block/in/x"], file["block/in/residual"]), file[f"block/I{repeats}_enc0_out"])


@pytest.mark.parametrize("residual", Residual, ids=lambda r: r.name)
def test_zeroed_adapters_are_the_base_only_with_lambda(residual):
    model = head_with(Adapter(name="adapter", train=[], residual=residual))
    head = part(golden("head_eval"), "eval_mask2box/")
    features = [golden("model")[f"in/{name}"] for name in ("res2", "res3", "res4", "res5")]
    with torch.no_grad():
        change = model.sem_seg_head(features).matching.logits[-1] - head["pred_logits"]
    info = next(f["info"] for f in manifest()["files"] if f["file"] == "adapters_I1.npz")
    case = info[f"zero_init_up/{residual.name.replace('+', '_')}"]
    recorded = case["max_abs_change_of_pred_logits_vs_base"]
    assert change.abs().max().item() == pytest.approx(recorded, abs=1e-3)
    assert (recorded == 0) == (residual.name == "lambda")


def alphas(prefix):
    """List the scales alpha that were recorded."""
    if not FOLDER.is_dir():
        return [0]
    found = (re.match(rf"{prefix}(\d+)/", key) for key in golden("lora"))
    return sorted({int(match.group(1)) for match in found if match})


@pytest.mark.parametrize("alpha", alphas(r"r\d+_alpha"))
def test_lora(alpha):
    file, method = golden("lora"), low_rank(alpha)
    model = head_with(method)
    put(model, part(file, "sd/"), LORA_NAMES)
    case = part(file, f"r{method.rank}_alpha{alpha}/")
    check_outputs(model, case)
    merge(model)
    merged = part(case, "merged/")
    assert merged
    for name, weight in merged.items():
        close(dict(model.named_parameters())[name], weight)
    check_outputs(model, case)


def attention(method):
    """Regular attention in torch's own module, with the recorded base weights."""
    base = {
        key: value for key, value in part(golden("lora"), "mha/sd/").items() if "lora" not in key
    }
    width, heads = base["in_proj_weight"].shape[1], manifest()["config"]["heads"]
    model = nn.Module()
    model.mha = nn.MultiheadAttention(width, heads)
    model.mha.load_state_dict(base)
    apply(model, method, {})
    return model


@pytest.mark.parametrize("alpha", alphas("mha/alpha"))
def test_regular_attention_has_exact_gradients(alpha):
    file = golden("lora")
    model = attention(low_rank(alpha, targets=["mha.in_proj_weight"]))
    factors = {k: v for k, v in part(file, "mha/sd/").items() if "lora" in k}
    put(model, {f"mha.{name}": tensor for name, tensor in factors.items()}, LORA_NAMES)
    query, key, value = (
        file[f"mha/in/{n}"].clone().requires_grad_() for n in ("query", "key", "value")
    )
    output = model.mha(query, key, value)[0]
    close(output, file[f"mha/alpha{alpha}/out"])
    output.backward(file["mha/in/upstream_grad"])
    a, b = (p.grad for p in model.parameters() if p.requires_grad)
    for name, grad in (("A", a), ("B", b), ("query", query.grad)):
        close(grad, file[f"mha/alpha{alpha}/grad_{name}_exact"], "grad")


@pytest.mark.parametrize("alpha", alphas("mha_paper_eq7/alpha"))
@torch.no_grad()
def test_separate_pairs_on_query_and_value_rows_are_equation_7(alpha):
    file = golden("lora")
    method = low_rank(alpha, targets=["mha.in_proj_weight"])
    method.fused = Fused["qv"]
    model = attention(method)
    names = [(r"(.)_(.)", r"mha.in_proj_weight:\2.lora_\1")]
    put(model, part(file, "mha_paper_eq7/in/"), names)
    output = model.mha(*(file[f"mha/in/{n}"] for n in ("query", "key", "value")))[0]
    close(output, file[f"mha_paper_eq7/alpha{alpha}/out"])


@pytest.mark.parametrize("alpha", alphas("msda/alpha"))
@torch.no_grad()
def test_deformable_attention(alpha):
    file, modules = golden("lora"), part(golden("modules"), "msda/")
    inputs, base = part(modules, "in/"), part(modules, "sd/")
    shapes = inputs["spatial_shapes"].tolist()
    model = nn.Module()
    width, heads = base["value_proj.weight"].shape[0], manifest()["config"]["heads"]
    model.msda = DeformableAttention(width, heads, len(shapes))
    model.msda.load_state_dict(base)
    targets = ["msda.sampling_offsets.weight", "msda.value_proj.weight"]
    apply(model, low_rank(alpha, targets=targets), {})
    factors = part(file, "msda/sd_lora/")
    put(model, {f"msda.{name}": tensor for name, tensor in factors.items()}, LORA_NAMES)
    query, value, padding = inputs["query"], inputs["value"], inputs["padding_mask"]
    case = f"msda/alpha{alpha}/out_"
    close(model.msda(query, inputs["ref2"], value, shapes, padding), file[f"{case}ref2_mask"])
    close(model.msda(query, inputs["ref4"], value, shapes), file[f"{case}ref4_nomask"])


def test_released_key_names_are_all_accounted_for():
    extra = json.loads((FOLDER / "maskdino_peft_extra.keys.json").read_text())["keys_extra"]
    with torch.device("meta"):
        model = nn.Module()
        model.sem_seg_head = MaskDINO(name="r50").head([256, 512, 1024, 2048], 1)
        apply(model, Adapter(name="adapter", train=[]), MaskDINO.roles)
    ours = {name: list(t.shape) for name, t in delta_state_dict(model).items()}
    theirs = {}
    for name, shape in extra["r50/adapters_I1"].items():
        for pattern, replacement in ADAPTER_NAMES:
            name = re.sub(pattern, replacement, name)
        theirs[name] = shape
    assert ours == theirs
    assert sum(isinstance(module, Seam) for module in model.modules()) == len(theirs) / 4
