"""What enters a published table: runs of its data, models and methods, judged by its rules."""

from __future__ import annotations

import copy
from functools import cache
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

from segsweep.base.config import Config, plain
from segsweep.metrics.base import of_classes
from segsweep.results import frame, reported
from segsweep.results.cells import Row, Table
from segsweep.results.over_sets import Test
from segsweep.results.pivot import qualifying
from segsweep.results.spec import Spec, load, names
from segsweep.results.tables import build
from segsweep.run.identity import Run
from segsweep.run.record import metric_facts
from segsweep.story import train
from segsweep.sweeps.sweeper import configs
from tests.layouts import make
from tests.records import record, record_of, write
from tests.words import class_of, compose, files

PUBLISHED = reported.read(Path(__file__).resolve().parent.parent / "results")
PAPERS = [name for name in names() if load(name).reported]
SETS = ("ndd20", "zerowaste", "wixray", "cityscapes")
BASES = {"maskdino_tiny": "maskdino_r50", "seem_tiny": "seem_focall"}
SMALL = [
    "hparams.epochs=1", "hparams.batch_size=2", "trainer.limit_train=1", "data.size=[64,64]",
    "data.slices=[]", "io.predictions=false", "io.progress=false",
]  # fmt: skip
EVALUATED = [  # by masks, as those of the published table
    word
    for word in files("metrics")
    if "instances" in (kind := class_of("metrics", word)).tasks and kind.masks
]
LORA: dict[str, Any] = {"peft": "lora", "ap": 40.0, "rank": 8}
STUDY: dict[str, Any] = {"data": "ndd20", "domain": "data/ndd20", "model": "maskdino_r50"} | LORA
STRANGERS = [
    STUDY | {"data": "coco"},  # a folder's name proves nothing
    STUDY | {"data": "coco", "domain": "/mine/coco", "model": "atss_vit_h"},
    STUDY | {"data": "semantic", "domain": "/mine/ADE20K", "metrics": "miou"},
    STUDY | {"data": "digits", "domain": "NDD20"},
    STUDY | {"model": "maskdino_tiny"},
    STUDY | {"model": "maskdino_swinl"},  # the study's, but not on this set
    STUDY | {"peft": "ia3"},
]


def built(results: Path, name: str | Spec) -> Table:
    asked = load(name) if isinstance(name, str) else name
    (table,) = build(asked, [*PUBLISHED, *frame.read(results).runs])
    return table


def ours(table: Table) -> dict[str, Row]:
    """The rows of ours that have a number, by setting."""
    filled = [row for row in table.rows if any(cell.runs for cell in row.cells.values())]
    return {row.setting: row for row in filled if row.origin == "ours"}


def trained(folder: Path, *choices: str) -> dict[str, Any]:
    """The record of a real run on a fake of a set."""
    return Run(compose([*choices, f"io.results={folder / 'results'}", *SMALL])).once(train)


def place(folder: Path, data: str) -> list[str]:
    """The words that choose the fake of a set, written if it is not there."""
    root = folder / data
    if not root.is_dir():
        make(data, root)
    few = ["data.train=4", "data.val=2"] if data == "ndd20" else []
    return [f"data={data}", f"data.root={root}", f"data.cache={folder / 'cache'}", *few]


@cache
def chosen(group: str, word: str) -> dict[str, Any]:
    """What a config holds for a word of a group."""
    return plain(getattr(compose([f"{group}={word}"]), group))


def of_study(one: dict[str, Any], model: str, peft: str, ap: float) -> dict[str, Any]:
    """A record as if it were of a model and a method of the study, with another result.

    What the evaluator calls its values, and what is recorded of them, stays.
    """
    one = copy.deepcopy(one)
    one["config"] |= {"model": chosen("model", model), "peft": chosen("peft", peft)}
    for metric in one["metrics"].values():
        metric["value"] = ap
    return one | dict.fromkeys(("id", "name"), f"{model}-{peft}-{one['name']}")


def test_runs_on_all_sets_fill_table_2a_with_mean_delta_and_test(tmp_path: Path) -> None:
    for data, tiny in zip(SETS, cycle(BASES), strict=False):
        method = "full_head" if data == "cityscapes" else "frozen"  # which needs less time
        one = trained(tmp_path, f"model={tiny}", f"peft={method}", *place(tmp_path, data))
        for model, (peft, ap) in product(BASES, {"full_head": 50.0, "lora": 40.0}.items()):
            larger = model == "maskdino_tiny" and data == "cityscapes"
            word = "maskdino_swinl" if larger else BASES[model]
            write(tmp_path / "study", of_study(one, word, peft, ap))
    table = built(tmp_path / "study", "peft_table2a")
    rows = ours(table)
    assert [*rows] == ["Full head", "LoRA (r=8)"]
    for setting, ap in {"Full head": 50.0, "LoRA (r=8)": 40.0}.items():
        assert [cell.value for cell in rows[setting].cells.values()] == [ap] * 2 * len(SETS)
        assert rows[setting].average.value == ap
    assert rows["LoRA (r=8)"].delta == pytest.approx(-20)
    assert rows["LoRA (r=8)"].here == Test(2 / 2 ** (2 * len(SETS)), 2 * len(SETS))
    assert rows["LoRA (r=8)"].beyond == Test(2 / 2 ** len(SETS), len(SETS))
    assert table.columns[-1].labels[1] == "mean of COCO & Cityscapes"


@pytest.mark.parametrize("word", EVALUATED)
def test_what_a_metric_is_called_does_not_matter_but_its_rules_do(
    tmp_path: Path, word: str
) -> None:
    config = compose([f"metrics={word}", *place(tmp_path, "wixray")])
    values = config.metrics.evaluator(config.data, "val").compute()
    assert values.keys() == config.metrics.names().keys()
    for data, model in {"wixray": "maskdino_r50", "cityscapes": "maskdino_swinl"}.items():
        one = record(**STUDY | {"data": data, "model": model, "metrics": config.metrics})
        write(
            tmp_path, one | {"metrics": metric_facts(config.metrics, dict.fromkeys(values, 40.0))}
        )
    cells = {
        labels[1]
        for row in ours(built(tmp_path, "peft_table2a")).values()
        for labels, cell in row.cells.items()
        if cell.runs
    }
    rules = config.metrics.protocol()
    assert cells == {"COCO": {"WIXray"}, "Cityscapes": {"Cityscapes"}}.get(rules, set())
    (free,) = build(Spec("mine"), frame.read(tmp_path).runs)  # asks for mask AP by any rules
    assert {column.labels for column in free.columns} == {("AP", "Cityscapes"), ("AP", "WIXray")}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_no_stranger_enters_a_published_table(tmp_path: Path, stranger: dict[str, Any]) -> None:
    write(tmp_path, record(**stranger))
    (run,) = frame.read(tmp_path).runs
    assert [name for name in PAPERS if run in qualifying(load(name), [*PUBLISHED, run])] == []


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("peft_table2a", STUDY),
        ("peft_table2a", STUDY | {"model": "maskdino_swinl", "data": "cityscapes"}
         | {"metrics": "cityscapes"}),
        ("peft_table2b", STUDY),
        ("peft_tableA1", STUDY | {"data": "wixray", "alpha": 4.0}),
    ],
)  # fmt: skip
def test_what_the_study_has_enters_its_tables(
    tmp_path: Path, name: str, run: dict[str, Any]
) -> None:
    write(tmp_path, record(**run))
    assert len(ours(built(tmp_path, name))) == 1


FOREIGN = {"domain_specific", "TransLab", "Trans2Seg"}  # networks that nobody has here
MEASURED = ("memory", "seconds", "bench", "inference_throughput")  # columns of the verb `bench`
STUDIES = {  # every setting on one set, and one setting on every set
    "table2": (
        ["peft_table2a", "peft_table2b", "peft_tableA1"],
        ["model=maskdino_r50", "data=ndd20"],
        ["model=maskdino_r50", "data=wixray", "peft.rank=8"],
        ["peft=full_head"],
    ),
    "convlora": (
        ["convlora_main", "convlora_multiclass"],
        ["data=kvasir"],
        ["data=trans10k"],
        ["peft=lora"],
    ),
    "vfm": (
        ["vfm_table1", "vfm_table2", "vfm_table3", "vfm_table4"],
        ["model=sam_b_atss,vit_h_atss,dinov2_b_segformer"],
        ["model=dinov2_b_atss,swin_b_atss,swin_b_solo", "peft=fix"],
        ["model=sam_b_segformer,swin_b_segformer", "peft=fix"],
    ),
}


def recorded(config: Config) -> dict[str, Any]:
    """A record of a config, with what it reached of each class where its data are here."""
    one = record_of(config)
    if not Path(str(config.data.root)).is_dir():
        return one
    judge = config.metrics.evaluator(config.data, "val")
    judge.pixels += 1
    return one | {"classes": of_classes(judge)}


@pytest.mark.parametrize("sweep", STUDIES)
def test_the_sweeps_of_the_studies_fill_their_tables(tmp_path: Path, sweep: str) -> None:
    """Every printed model, setting and column has a number of ours."""
    tables, *narrowed = STUDIES[sweep]
    for words in narrowed:
        here = place(tmp_path, "trans10k")[1:] if "data=trans10k" in words else []
        found = configs([f"+sweep={sweep}", *words, *here])
        write(tmp_path, *(recorded(config) for _, config in found))
    for table in (built(tmp_path, name) for name in tables):
        printed, filled = (
            {
                row.labels[: len(table.spec.rows)]: {
                    c for c, cell in row.cells.items() if cell.runs
                }
                for row in table.rows
                if row.origin == origin and row.method not in FOREIGN
            }
            for origin in ("reported", "ours")
        )
        rows = [label for label in filled if filled[label]]
        for wanted, had in zip(zip(*printed, strict=True), zip(*rows, strict=True), strict=True):
            assert {*wanted} <= {*had}
        metrics = {column.labels: column.metric for column in table.columns}
        lacking = set().union(*printed.values()) - set().union(*filled.values())
        assert {metrics[c] for c in lacking if not metrics[c].startswith(MEASURED)} == set()


def on_coco(words: list[str]) -> dict[str, Any]:
    """The record of a run of these words, as if on a set of the name of the published one."""
    one = record_of(compose([*words, "data=coco", "data.root=/mine/coco2017"]))
    one["config"]["data"]["name"] = "coco2017"
    return one


PARTS = ["model=sam_b_atss", "peft=vfm_adapter"]


@pytest.mark.parametrize(
    ("words", "entered"),
    [
        (["model=dinov2_b_atss", "peft=lora", "peft.targets=[ffn]"], ["vfm_table1"]),
        (["model=dinov2_b_solo", "peft=arc", "peft.rank=131"], ["vfm_table1"]),
        (["model=dinov2_b_atss", "peft=lora", "peft.targets=[ffn]", "peft.rank=64"], []),
        (["model=dinov2_b_atss", "peft=lora"], []),  # of attention
        (["model=dinov2_b_atss", "peft=fix", "peft.train=[head,norms]"], []),
        (["model=vit_tiny_atss", "peft=lora", "peft.targets=[ffn]"], []),
        (["model=vit_h_atss", "peft=fix", "hparams.epochs=12"], ["vfm_table4"]),
        (PARTS, ["vfm_table1", "vfm_table3"]),
        ([*PARTS, "peft.hom=false", "peft.dpg=none"], ["vfm_table3"]),
        ([*PARTS, "peft.rank=16", "peft.hom=false", "peft.dpg=none"], []),
    ],
)  # fmt: skip
def test_only_settings_of_its_sweep_enter_the_tables_of_vfm_adapter(
    tmp_path: Path, words: list[str], entered: list[str]
) -> None:
    write(tmp_path, on_coco(words))
    (run,) = frame.read(tmp_path).runs
    assert [name for name in PAPERS if run in qualifying(load(name), [*PUBLISHED, run])] == entered


def test_a_folder_that_is_called_like_a_set_does_not_push_it_out(tmp_path: Path) -> None:
    write(tmp_path, record(**STUDY), record(**STUDY | {"data": "coco", "domain": "/mine/NDD20"}))
    assert {run["data_set"] for run in frame.read(tmp_path).runs} == {"NDD20", "folder NDD20"}
    assert len(ours(built(tmp_path, "peft_table2a"))) == 1


def test_the_content_of_a_named_set_is_that_set_wherever_it_lies(tmp_path: Path) -> None:
    named, copied = record(**STUDY), record(**STUDY | {"data": "coco", "rank": 4})
    copied["data"]["fingerprint"] = named["data"]["fingerprint"]
    write(tmp_path, named, copied)
    assert {run["data_set"] for run in frame.read(tmp_path).runs} == {"NDD20"}
    assert [*ours(built(tmp_path, "peft_table2a"))] == ["LoRA (r=4)", "LoRA (r=8)"]


def test_sets_given_by_paths_are_called_by_their_folder_or_file(tmp_path: Path) -> None:
    bees, ants = record("lora", data="coco", domain="/mine/bees/"), record("lora", data="coco")
    ants["config"]["data"] |= {"root": None, "train": "/mine/ants.json", "val": "/mine/val.json"}
    streets = record("lora", data="semantic", domain="/mine/streets", metrics="miou")
    for one, folder in {"bees": bees, "ants": ants, "streets": streets}.items():
        folder["data"]["fingerprint"] = f"content of {one}"
    write(tmp_path, bees, ants, streets)
    named = {run["data_set"] for run in frame.read(tmp_path).runs}
    assert named == {"bees", "ants.json", "streets"}


def test_numbers_that_are_known_to_be_wrong_are_remarked() -> None:
    notes = {
        name: " ".join(
            note for t in build(load(name), PUBLISHED, ("reported",)) for note in t.notes
        )
        for name in PAPERS
    }
    assert "Misprinted: Swin-B LoRA, SOLO AP50: 28.7, rather 58.7 (" in notes["vfm_table1"]
    assert "Doubtful as printed: SSF, Trained (M): 4.42, rather 4.41 (" in notes["convlora_main"]
    assert "rinted: " not in notes["vfm_table2"]
