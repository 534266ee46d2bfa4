"""Adapters and LoRA against recorded outputs of the released programs, through `apply`."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from functools import cache, partial

import injected
import pytest
import torch
from injected import ADAPTER_NAMES, LORA_NAMES, ours, put
from torch import nn

from segsweep.base.config import compose
from segsweep.data.base import Subject
from segsweep.model.layers.deformable import DeformableAttention
from segsweep.model.maskdino import MaskDINO
from segsweep.peft.adapter import Adapter, Residual
from segsweep.peft.apply import apply, merge
from segsweep.peft.lora import Fused, LoRA
from segsweep.peft.select import Select
from segsweep.peft.sites import canonical

pytestmark = pytest.mark.golden
wrapped = partial(injected.wrapped, roles=MaskDINO().roles)
PAIR_NAMES = [(r"(.)_(.)", r"in_proj_weight:\2.lora_\1")]
residuals = pytest.mark.parametrize("residual", Residual, ids=lambda residual: residual.name)
repetitions = pytest.mark.parametrize("repeats", [1, 3])


def adapted(golden, repeats, residual):
    method = Adapter(name="adapter", train=[], repeats=repeats, residual=residual)
    model = wrapped("sem_seg_head", golden.head(), method)
    put(model, golden.state(f"adapters_I{repeats}", f"I{repeats}/sd/"), ADAPTER_NAMES)
    return model.sem_seg_head


def low_rank(factors, alpha, fused="joint", targets=("deformable", "attention")):
    rank = min(min(tensor.shape) for tensor in factors.values())
    return LoRA(
        name="lora", train=[], rank=rank, alpha=alpha, fused=Fused[fused], targets=list(targets)
    )


def alphas(golden, prefix):
    """List the scales that were recorded: alpha, and the beginning of the names of its case."""
    found = (re.match(rf"({prefix}(\d+))/", name) for name in golden.arrays("lora"))
    cases = {match[1]: float(match[2]) for match in found if match}
    assert cases
    return cases.items()


@torch.no_grad()
def check_outputs(golden, head, features, expected):
    """Compare all that was recorded of a head's outputs."""
    levels, output = head.pixel_decoder(features).levels, head(features)
    sets, interm = output.matching, output.interm
    masks = torch.einsum("bqc,bchw->bqhw", sets.embeddings[-1], output.mask_features)
    golden.check(sets.logits[-1], expected["pred_logits"])
    golden.check(sets.boxes[-1], expected["pred_boxes"])
    golden.check(masks, expected["pred_masks"], "mask logits")
    golden.check(interm.logits[0], expected["interm_outputs/pred_logits"])
    golden.check(output.mask_features[..., ::2, ::2], expected["mask_features_ds2"])
    recorded = {name for name in expected if name.startswith("multi_scale_features/")}
    assert recorded
    for name in recorded:
        golden.check(levels[int(name.rpartition("/")[2])], expected[name])


@residuals
@repetitions
def test_adapters(golden, features, repeats, residual):
    head = adapted(golden, repeats, residual)
    case = f"I{repeats}/{residual.name.replace('+', '_')}/"
    check_outputs(golden, head, features, golden.state(f"adapters_I{repeats}", case))


@residuals
@repetitions
@torch.no_grad()
def test_layers_with_adapters(golden, repeats, residual):
    head = adapted(golden, repeats, residual)
    case = f"I{repeats}/{residual.name.replace('+', '_')}/"
    expected = golden.state(f"adapters_I{repeats}", case)
    encoder = golden.state("modules", "enc_layer0/in/")
    shapes = encoder["spatial_shapes"].tolist()
    layer = head.pixel_decoder.transformer.encoder.layers[0]
    got = layer(encoder["src"], encoder["pos"], encoder["reference_points"], shapes)
    golden.check(got, expected["enc_layer0/out"])
    decoder = golden.state("modules", "dec_layer0/in/")
    inputs = [decoder[key].transpose(0, 1) for key in ("tgt", "query_pos", "reference_points")]
    got = head.predictor.decoder.layers[0](*inputs, encoder["src"], shapes)
    golden.check(got.transpose(0, 1), expected["dec_layer0/out_nomask"])


@repetitions
@torch.no_grad()
def test_an_adapter_by_itself(golden, repeats):
    block = golden.state(f"adapters_I{repeats}", "block/")
    head = adapted(golden, repeats, Residual["kappa"])  # adds what it is given
    seam = head.pixel_decoder.transformer.encoder.layers[0].after_self_attn
    golden.check(seam(block["in/x"], block["in/residual"]), block[f"I{repeats}_enc0_out"])


@residuals
@torch.no_grad()
def test_empty_adapters_are_the_base_only_with_lambda(golden, features, residual):
    method = Adapter(name="adapter", train=[], residual=residual)
    head = wrapped("sem_seg_head", golden.head(), method).sem_seg_head
    base = golden.arrays("head_eval")["eval_mask2box/pred_logits"]
    change = (head(features).matching.logits[-1] - base).abs().max().item()
    info = golden.info("adapters_I1")["info"][f"zero_init_up/{residual.name.replace('+', '_')}"]
    assert change == pytest.approx(info["max_abs_change_of_pred_logits_vs_base"], abs=1e-3)


def test_lora(golden, features):
    factors = golden.state("lora")
    for case, alpha in alphas(golden, r"r\d+_alpha"):
        model = wrapped("sem_seg_head", golden.head(), low_rank(factors, alpha))
        put(model, factors, LORA_NAMES)
        expected = golden.state("lora", f"{case}/")
        check_outputs(golden, model.sem_seg_head, features, expected)
        assert merge(model) == []
        check_outputs(golden, model.sem_seg_head, features, expected)
        merged = golden.state("lora", f"{case}/merged/")
        assert merged
        for name, weight in merged.items():
            golden.check(model.state_dict()[name], weight)


def regular_attention(golden, method):
    """Regular attention, torch's own module, with the recorded base weights."""
    state = {k: v for k, v in golden.state("lora", "mha/sd/").items() if "lora" not in k}
    attention = nn.MultiheadAttention(state["in_proj_weight"].shape[1], golden.config["heads"])
    attention.load_state_dict(state)
    return wrapped("mha", attention, method)


def test_regular_attention_has_exact_gradients(golden):
    factors = {k: v for k, v in golden.state("lora", "mha/sd/").items() if "lora" in k}
    inputs = golden.state("lora", "mha/in/")
    for case, alpha in alphas(golden, "mha/alpha"):
        expected = golden.state("lora", f"{case}/")
        model = regular_attention(golden, low_rank(factors, alpha, targets=["mha.in_proj_weight"]))
        put(model, factors, LORA_NAMES, "mha.")
        query = inputs["query"].clone().requires_grad_()
        output = model.mha(query, inputs["key"], inputs["value"])[0]
        golden.check(output.detach(), expected["out"])
        output.backward(inputs["upstream_grad"])
        golden.check(query.grad, expected["grad_query_exact"], "gradients")
        # the released library takes the base weight alone for the gradient of the input
        error = (query.grad - expected["grad_query_released"]).norm() / query.grad.norm()
        recorded = golden.info("lora")["info"][case.replace("/", "_")]["grad_query_rel"]
        assert error.item() == pytest.approx(recorded, rel=1e-3)
        assert recorded > 0.1
        gradients = {n[-1]: p.grad for n, p in model.named_parameters() if p.requires_grad}
        assert gradients.keys() == {"A", "B"}
        for factor, gradient in gradients.items():
            for kind in ("exact", "released"):
                golden.check(gradient, expected[f"grad_{factor}_{kind}"], "gradients")


@torch.no_grad()
def test_pairs_on_query_and_value_rows_are_equation_7(golden):
    factors = golden.state("lora", "mha_paper_eq7/in/")
    inputs = golden.state("lora", "mha/in/")
    for case, alpha in alphas(golden, "mha_paper_eq7/alpha"):
        model = regular_attention(golden, low_rank(factors, alpha, "qv", ["mha.in_proj_weight"]))
        put(model, factors, PAIR_NAMES, "mha.")
        output = model.mha(inputs["query"], inputs["key"], inputs["value"])[0]
        golden.check(output, golden.arrays("lora")[f"{case}/out"])


@torch.no_grad()
def test_deformable_attention(golden):
    base, inputs = golden.state("modules", "msda/sd/"), golden.state("modules", "msda/in/")
    factors, shapes = golden.state("lora", "msda/sd_lora/"), inputs["spatial_shapes"].tolist()
    query, value, padding = inputs["query"], inputs["value"], inputs["padding_mask"]
    targets = ["msda.sampling_offsets.weight", "msda.value_proj.weight"]
    for case, alpha in alphas(golden, "msda/alpha"):
        attention = DeformableAttention(query.shape[-1], golden.config["heads"], len(shapes))
        attention.load_state_dict(base)
        model = wrapped("msda", attention, low_rank(factors, alpha, targets=targets))
        put(model, factors, LORA_NAMES, "msda.")
        expected = golden.state("lora", f"{case}/")
        got = model.msda(query, inputs["ref2"], value, shapes, padding)
        golden.check(got, expected["out_ref2_mask"])
        golden.check(model.msda(query, inputs["ref4"], value, shapes), expected["out_ref4_nomask"])


def setting(case):
    """The method of a recorded case such as `adapters_I2` or `lora_r4`."""
    words = {"full_head": "head", "only_decoder": "decoder", "only_ce_me": "embeddings"}
    if case in words:
        return Select(name=case, train=[words[case]])
    size = int(re.sub(r"\D", "", case))
    if case.startswith("adapters"):
        return Adapter(name=case, repeats=size)
    return LoRA(name=case, rank=size, fused=Fused["joint"])


@pytest.mark.parametrize("model", ["r50", "swinl"])
def test_full_size_methods_add_the_released_tensors(golden, model):
    file = json.loads((golden.folder / "maskdino_peft_extra.keys.json").read_text())
    family, base = full_size(model, classes=1)
    cases = {k.partition("/")[2]: v for k, v in file["keys_extra"].items() if k.startswith(model)}
    assert cases
    for case, shapes in cases.items():
        method = replace(setting(case), train=[])
        tuned = copy.deepcopy(base)
        apply(tuned, method, family.roles)
        trained = [(n, p) for n, p in tuned.named_parameters() if p.requires_grad]
        added = {canonical(tuned, name): list(p.shape) for name, p in trained}
        assert added == {ours(name, ADAPTER_NAMES + LORA_NAMES): s for name, s in shapes.items()}


def test_full_size_counts_are_those_of_the_released_programs(golden):
    file = json.loads((golden.folder / "paper_trainable_params.json").read_text())
    full = cache(full_size)
    for case, cells in file["table2b"].items():
        for cell, expected in cells.items():
            model, _, classes = cell.partition("_nc")
            if classes:
                family, base = full(model, int(classes))
                counts = apply(copy.deepcopy(base), setting(case), family.roles)
                assert counts.trainable == expected["trainable"], (case, cell)
                assert counts.total == expected["total"], (case, cell)
                assert round(counts.percent, 4) == expected["percent"], (case, cell)
    assert full.cache_info().currsize > 1


def full_size(model, classes):
    """Config of the family and its model on the meta device."""
    family = compose([f"model=maskdino_{model}"]).model
    with torch.device("meta"):
        return family, family.build(Subject(["one"] * classes))
