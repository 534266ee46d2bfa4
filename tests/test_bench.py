"""The verb `bench`: costs of methods at inference, against counts by hand."""

import csv
import io
import itertools
import json
import math
import mmap
from dataclasses import replace
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from records import record, record_of, write
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from segsweep.base.config import compose, plain
from segsweep.base.errors import UserError
from segsweep.bench import training
from segsweep.bench.clock import Estimate, Times, rounds
from segsweep.bench.count import LiveTensors, count
from segsweep.bench.measure import numbers
from segsweep.bench.settings import Plan
from segsweep.bench.variants import variants
from segsweep.data.base import BACKGROUND, Subject
from segsweep.model.layers.deformable import DeformableAttention
from segsweep.model.segmenter import Segmenter
from segsweep.results import frame
from segsweep.run.restore import assemble
from segsweep.sweeps.names import directories
from segsweep.verbs import bench, table

CPU = torch.device("cpu")
CPUS = ["model.weights=null", "trainer.accelerator=cpu"]
SIZE = ["--size", "64", "64"]
QUICK = [*SIZE, "--rounds", "6", "--warmup", "0", "--threads", "1", "--batches", "2"]
WIDTH, QUERIES = 64, 40  # of the tiny model
LAYERS = 3  # of its encoder, and of its decoder
EDITED = 2 * LAYERS * 3 * WIDTH**2 + LAYERS * 3 * WIDTH**2  # deformable, then fused attention
TOKENS = 8**2 + 4**2 + 2**2 + 1  # of an image of 64 x 64


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    words = ["model=maskdino_tiny", "peft=adapter,lora", "trainer.accelerator=cpu"]
    assert bench.main([*words, *QUICK, "--results", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def records(results):
    """By method and form."""
    rows = [json.loads(path.read_text()) for path in results.glob("bench/*/record.json")]
    return {(r["config"]["peft"]["name"], r["config"]["bench"]["form"]): r for r in rows}


def costs(model):
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        return count(lambda: model(images), CPU)


def test_each_setting_has_a_record_in_each_of_its_forms(records):
    forms = {("lora", "merged"), ("lora", "unmerged"), ("adapter", None), ("frozen", None)}
    assert records.keys() == forms
    base = records["frozen", None]
    assert base["bench"]["ratio"] == {"median": 1, "low": 1, "high": 1}
    assert base["bench"]["checkpoint_bytes"] == 0
    assert base["bench"]["base_bytes"] > 4 * base["params"]["total"]  # buffers besides
    for row in records.values():
        measured, about = row["bench"], row["config"]["bench"]
        assert (row["kind"], row["status"], measured["base"]) == (
            "bench",
            "done",
            base["id"],
        )
        assert (about["size"], about["classes"], about["threads"]) == ("64x64", 1, 1)
        assert measured["weights"] == "random"
        assert len(measured["all_ms"]) == measured["rounds"] == 6
        assert measured["images_per_s"].keys() == {"1", "2"}
        assert measured["images_per_s"]["1"] == pytest.approx(1e3 / measured["median_ms"])
        assert measured["ratio"]["low"] <= measured["ratio"]["median"] <= measured["ratio"]["high"]
        assert measured["peak_mib"] > 0


def test_merged_lora_is_the_base_and_its_file_holds_what_trains(records):
    base, merged, unmerged = (
        records[key] for key in (("frozen", None), ("lora", "merged"), ("lora", "unmerged"))
    )
    assert merged["bench"]["flops"] == base["bench"]["flops"]
    assert merged["bench"]["peak_mib"] == base["bench"]["peak_mib"]
    edits = EDITED - LAYERS * WIDTH**2  # the keys are left as they are
    assert unmerged["bench"]["flops"] - base["bench"]["flops"] == 2 * 8 * edits
    tensors = 4 * unmerged["params"]["trainable"]
    assert tensors < merged["bench"]["checkpoint_bytes"] < tensors + 10_000
    assert merged["params"] == unmerged["params"]


def test_operations_of_adapters_are_those_of_their_formula(records):
    base = records["frozen", None]["bench"]["flops"]
    counted = LAYERS * TOKENS + 2 * LAYERS * QUERIES  # by the seams
    once = counted * 2 * (2 * WIDTH * WIDTH // 4)  # down and up
    assert records["adapter", None]["bench"]["flops"] - base == once
    config = compose(["model.weights=null", "peft=adapter", "peft.repeats=3"])
    model, *_ = assemble(config, ["digit"], Subject(["digit"]))
    flops, _ = costs(model.eval())
    assert flops - base == 3 * once


def test_operations_of_deformable_attention():
    channels, heads, points, queries, shapes = 8, 2, 3, 5, [(4, 6), (2, 3)]
    cells, reads = 24 + 6, heads * len(shapes) * points
    attention = DeformableAttention(channels, heads, len(shapes), points)
    query, memory = torch.zeros(1, queries, channels), torch.zeros(1, cells, channels)
    reference = torch.full((1, queries, len(shapes), 2), 0.5)
    expected = 2 * channels * (cells * channels + queries * (reads + 2 * reads + channels))
    expected += queries * reads * 4 * 2 * (channels // heads)  # four cells of each read
    with torch.no_grad():
        flops, _ = count(lambda: attention(query, reference, memory, shapes), CPU)
    assert flops == expected


def test_operations_of_sampling_a_map():
    maps, grid = torch.zeros(2, 3, 8, 8), torch.zeros(2, 5, 7, 2)
    sample = nn.functional.grid_sample
    flops, _ = count(lambda: sample(maps, grid, align_corners=False), CPU)
    assert flops == 2 * 4 * (2 * 3 * 5 * 7)


def test_peak_memory_is_that_of_living_results():
    x = torch.zeros(256)  # 1 KiB, there before
    with LiveTensors() as live:
        y = x + 1
        y.view(16, 16).mul_(2)  # no storage of their own
        z = torch.cat([y, y])
        del y
        del z
        assert (x * 2).sum() == 0  # and 4 bytes
    assert live.peak == 3 * 1024


def test_sharing_variants_leave_the_base_as_it_is():
    config = compose(["model.weights=null", "peft=frozen"])
    base, *_ = assemble(config, ["digit"], Subject(["digit"]))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = base.eval()(images)
        lora = compose(["model.weights=null", "peft=lora", "peft.init=xavier"])
        unmerged, merged = variants(base, lora, "lora")
        after, others = base(images), [v.model(images) for v in (unmerged, merged)]
    assert torch.equal(before.mask_features, after.mask_features)
    assert not any(torch.equal(before.mask_features, other.mask_features) for other in others)
    shared = {id(p) for p in base.parameters()}
    weights = [p.numel() for p in merged.model.parameters() if id(p) not in shared]
    assert sum(weights) == EDITED


@pytest.mark.parametrize(("n", "ends"), [(5, None), (6, (0, 5)), (9, (1, 7)), (20, (5, 14))])
def test_intervals_of_medians(n, ends):
    """The places are those of published tables of confidence intervals for the median."""
    estimate = Estimate.of([float(i) for i in reversed(range(n))])
    assert (estimate.low, estimate.high) == (ends or (None, None))


def test_intervals_hold_the_median_as_often_as_they_say():
    draws = torch.rand(2000, 10, generator=torch.Generator().manual_seed(0))
    found = [Estimate.of(row) for row in draws.tolist()]
    held = sum(e.low <= 0.5 <= e.high for e in found if e.low is not None and e.high is not None)
    assert 0.97 < held / 2000 < 0.987  # 0.9785 of ten values


def test_every_round_takes_each_call_once_in_an_order_of_its_own():
    said = []
    calls = [lambda name=name: said.append(name) for name in "abc"]
    times = rounds(calls, 30, 60, CPU, "letters")
    turns = ["".join(said[i : i + 3]) for i in range(0, len(said), 3)]
    assert set(turns) == {"".join(p) for p in itertools.permutations("abc")}
    assert [len(t.wall) for t in times] == [30, 30, 30]
    assert [len(t.cpu) for t in rounds(calls, 99, 0, CPU, "letters")] == [2, 2, 2]


def test_ratios_are_of_the_same_round():
    base = Times([100.0, 200, 400, 100, 100, 50], [1.0] * 6)
    times = Times([1.5 * wall for wall in base.wall], [1.25] * 6)
    values = numbers(times, base)
    assert values["ratio"] == {"median": 1.5, "low": 1.5, "high": 1.5}
    assert values["cpu_ratio"]["median"] == 1.25
    assert values["extra_ms"]["median"] == 50
    assert values["iqr_ms"] == pytest.approx(150 * 0.75)


def test_records_stand_in_tables_of_latency_and_in_no_others(results, capsys):
    found = frame.read(results)
    assert (found.runs, found.unreadable, len(found.bench)) == ([], {}, 4)
    assert directories(results) == []
    assert table.main(["latency", "--origin", "ours", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    rows = ["Frozen base", "Adapters (I=1, κ+λ)", "LoRA (r=8, merged)", "LoRA (r=8, unmerged)"]
    places = [shown.index(row) for row in rows]
    assert places == sorted(places)
    assert "maskdino_tiny, 64x64" in shown
    assert table.main(["ablation", "--results", str(results)]) == 0
    assert "no number" in capsys.readouterr().err


def test_table_3_takes_lora_as_it_is_deployed(records, tmp_path, capsys):
    texts = [json.dumps(row) for row in records.values()]
    for text, model in itertools.product(texts, ("maskdino_r50", "maskdino_tiny")):
        other = json.loads(text)
        other["config"]["model"]["name"] = model
        other["config"]["data"] = {"name": "ndd20"}
        ms = {"merged": 123.4, "unmerged": 567.8}.get(other["config"]["bench"]["form"], 99.9)
        other["bench"]["median_ms"] = ms if model == "maskdino_r50" else 333.3
        other["name"] += model
        path = tmp_path / "bench" / other["name"] / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(other))
    write(tmp_path, record(data="ndd20", model="maskdino_r50"))  # a run that was trained
    words = ["peft_table3", "--origin", "ours", "--format", "csv", "--results", str(tmp_path)]
    assert table.main(words) == 0
    shown = capsys.readouterr().out
    (lora,) = (line for line in shown.splitlines() if "LoRA" in line and "123.4" in line)
    assert "LoRA (r=8)," in lora
    assert "99.9" in shown
    assert "567.8" not in shown
    assert "333.3" not in shown


def plan(config, **changes):
    """A few steps on images of 64 x 64."""
    conditions = {"rounds": 2, "warmup": 0, "seconds": math.inf, "train": True, "batches": [1]}
    return Plan((64, 64), config.data.subject(), **conditions | changes)


def test_a_measured_step_is_that_of_a_run():
    """Forwards of the size of a run's, unmerged and in training; one update with its optimizer."""
    config = compose(["peft=lora", "hparams.batch_size=4", "hparams.micro_batch=2", *CPUS])
    forwards, updates = [], []

    def forward(module, images, _):
        if isinstance(module, Segmenter):
            edited = any(parametrize.is_parametrized(m) for m in module.modules())
            forwards.append((len(images[0]), module.training, edited))

    def update(optimizer, *_):
        trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        updates.append((type(optimizer), trained, optimizer.param_groups[0]["weight_decay"]))

    handles = [
        nn.modules.module.register_module_forward_hook(forward),
        register_optimizer_step_post_hook(update),
    ]
    try:
        measured = training.steps(config, plan(config, images=33))
    finally:
        for handle in handles:
            handle.remove()
    assert forwards == [(2, True, True)] * 3 * 2  # the first step, and two rounds
    assert updates == [(torch.optim.AdamW, 42_629, config.hparams.weight_decay)] * 3
    assert (measured["rounds"], len(measured["all_ms"])) == (2, 2)
    assert measured["steps"] == 33 // 4 * config.hparams.epochs
    assert measured["total_s"] == pytest.approx(measured["steps"] * measured["median_ms"] / 1e3)
    assert measured["images_per_s"] == pytest.approx(4e3 / measured["median_ms"])
    assert (measured["memory"], measured["first_peak_mib"] > 0) == ("process", True)


@pytest.mark.parametrize("background", [True, False])
def test_steps_of_label_maps_have_classes_everywhere_or_ground(background):
    config = compose(["model=vit_tiny_segformer", "data=digits_semantic", "peft=fix", *CPUS])
    subject = Subject(["zero", "one", "two"], "semantic", background)
    asked = replace(plan(config), subject=subject)
    maps = [target.label_map for target in training._batch(config, asked).targets]
    ground = {BACKGROUND} if background else set()
    assert set(torch.stack(maps).unique().tolist()) == {0, 1, 2} | ground
    assert len(training.steps(config, asked)["all_ms"]) == 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are reset on Linux")
def test_each_step_has_a_peak_of_its_own():
    clock, trainer, module = training.Clock(), None, pl.LightningModule()
    for size in (256, 1, 1):
        clock.on_train_batch_start(trainer, module, None, 0)
        with mmap.mmap(-1, size * 2**20) as pages:  # what malloc frees may stay with the process
            pages.write(b"1" * len(pages))
        clock.on_train_batch_end(trainer, module, None, None, 0)
    first, second, third = (peaks["peak_rss_mib"] for peaks in clock.peaks)
    assert first - second > 200
    assert abs(second - third) < 20
    assert len(clock.ms) == 3


def test_what_trains_nothing_has_no_step():
    config = compose(["peft=fix", "peft.train=[]", "model=vit_tiny_atss", *CPUS])
    with pytest.raises(UserError, match="bench --train: peft=fix has nothing to train"):
        training.steps(config, plan(config))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Records of a method that is folded into what reads it, and of its base; by form."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["model=vit_tiny_atss", "peft=arc", "peft.rank=4", "hparams.batch_size=2", *CPUS]
    steps = ["--train", "--images", "117266", "--classes", "80", *SIZE, "--rounds", "2"]
    assert bench.main([*words, *steps, "--warmup", "0", "--results", str(folder)]) == 0
    rows = [json.loads(path.read_text()) for path in folder.glob("bench/*/record.json")]
    return {(r["config"]["peft"]["name"], r["config"]["bench"]["form"]): r for r in rows}


def test_what_can_be_folded_is_measured_both_ways_and_its_steps_once(trained):
    assert trained.keys() == {("frozen", None), ("arc", "unmerged"), ("arc", "merged")}
    base, unmerged, merged = (
        trained[key]["bench"] for key in (("frozen", None), ("arc", "unmerged"), ("arc", "merged"))
    )
    assert merged["flops"] == base["flops"] < unmerged["flops"]
    assert merged["train"] == unmerged["train"]
    assert "train" not in base
    assert trained["arc", "merged"]["config"]["bench"]["train"] == {
        "batch": 2, "at_once": 2, "optimizer": "adamw", "objects": 7, "images": 117_266,
        "epochs": compose(["model=vit_tiny_atss"]).hparams.epochs,
    }  # fmt: skip
    assert "train" not in trained["frozen", None]["config"]["bench"]


def test_table_4_joins_benchmarks_and_runs_of_its_settings(trained, tmp_path, capsys):
    words = ["model=vit_h_atss", "data=coco", "data.root=/mine/coco2017", "peft=arc"]
    configs = {rank: compose([*words, f"peft.rank={rank}"]) for rank in (500, 50)}
    for rank, config in configs.items():
        run = record_of(config, ap=47.0 + rank / 1000)
        run["config"]["data"]["name"] = "coco2017"
        write(tmp_path, run)
        for (method, form), row in trained.items():
            for classes in (80, 81) if method == "arc" else ():
                one = json.loads(json.dumps(row))
                about = one["config"]["bench"]
                one["config"] = plain(config) | {"bench": about | {"classes": classes}}
                one["bench"]["images_per_s"]["1"] = float(f"{rank}{classes}")
                one["name"] += f"{rank}{classes}{form}"
                path = tmp_path / "bench" / one["name"] / "record.json"
                path.parent.mkdir(parents=True)
                path.write_text(json.dumps(one))
    words = ["vfm_table4", "--origin", "ours", "--results", str(tmp_path)]
    assert table.main([*words, "--format", "csv"]) == 0
    lines = csv.DictReader(io.StringIO(capsys.readouterr().out))
    found = {line["metric"]: line for line in lines if line["value"]}
    step = trained["arc", "unmerged"]["bench"]["train"]
    assert {name: float(line["value"]) for name, line in found.items()} == pytest.approx(
        {
            "bench.train.peak_mib": step["peak_mib"] / 1024,
            "bench.train.total_s": step["total_s"] / 3600,
            "bench.images_per_s.1": 50080,
            "box AP": 47.5,
        }
    )
    assert {line["method"] for line in found.values()} == {"arc"}
    assert table.main([*words, "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert "Measured: on cpu, images of 64x64, steps of 2 (2 at once, 7 objects each)" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train", "peft=frozen"], "--train: peft=frozen has nothing to train"),
        (["--train", "trainer.devices=2"], "--train: measures steps on one device, not 2"),
        (["--train", "--images", "0"], "--images 0: must be at least 1"),
        (["peft=loar"], "peft=loar: there is no peft 'loar'; did you mean 'lora'"),
        (["peft=lora", "peft.rank=0"], "peft.rank=0: the rank must be at least 1"),
        (["data=coco"], r"data\.root.*--classes N"),
        (["--rounds", "1"], "--rounds 1: must be at least 2"),
        (["--batches", "2,0"], "--batches 0: must be at least 1"),
        (["--size", "16", "16"], "--size 16 16: the model takes no such images"),
    ],
)
def test_mistakes_are_one_sentence(words, said, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        bench.main([*words, "--results", str(tmp_path)])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bench").exists()
