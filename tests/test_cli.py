"""What a user types, and what is said when it is wrong. One process hears it all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.types import QuotedString
from omegaconf import OmegaConf

import segsweep
from segsweep import verbs
from segsweep.__main__ import VERBS
from segsweep.base.config import class_of, compose, plain, typed
from segsweep.base.hydra_parts import parsed
from segsweep.base.overrides import readable
from segsweep.base.words import conf_dir
from segsweep.verbs import known
from tests.spoken import answers

GROUPS = ("model", "peft", "data", "hparams", "metrics", "trainer", "logger")
CHOICES = [
    (p.parent.name, p.stem) for group in GROUPS for p in Path(conf_dir(), group).glob("*.yaml")
]


def told(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segsweep", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("group", "word"), CHOICES)
def test_every_choice_composes_names_itself_and_survives_freezing(group, word):
    kind: Any = class_of(group, word)
    base = []
    tasks = getattr(kind, "tasks", None) or ("instances",)
    if "label" in (*tasks, getattr(kind, "task", "")):
        both = {"data": "data=digits_label", "model": "model=vit_tiny_probe"}
        base = [said for key, said in both.items() if key != group]
    elif "instances" not in tasks:
        base = ["data=kvasir"]
    elif getattr(kind, "in_blocks", False):
        base = ["model=sam_tiny", "data=kvasir"]
    config = compose([f"{group}={word}", *base])
    assert getattr(config, group).name == word
    frozen = plain(config)
    assert "_target_" not in str(frozen)
    assert plain(typed(OmegaConf.create(frozen))) == frozen


@pytest.mark.parametrize(("group", "word"), CHOICES)
def test_every_choice_names_its_dataclass(group, word):
    assert class_of(group, word).__module__.startswith("segsweep.")


MISTAKES = [
    (["peft.rnk=2"], ["peft.rnk", "did you mean 'rank'", "alpha"]),
    (["peft.rank=two"], ["peft.rank", "two", "must be a whole number"]),
    (["peft=lor"], ["peft=lor", "did you mean 'lora'", "adapter"]),
    (["peft=adapter", "peft.residual=kapa"], ["peft.residual", "kapa", "kappa+lambda"]),
    (["sed=1"], ["sed", "did you mean 'seed'"]),
    (["seed=abc"], ["seed", "abc", "must be a whole number"]),
    (["pefft=lora"], ["pefft", "did you mean 'peft'"]),
    (["hparams.epochs=0"], ["hparams.epochs=0", "at least 1"]),
    (["peft.rank=0"], ["rank", "0"]),
    (["-m", "peft=lora", "peft.rank=2,x"], ["peft.rank", "x", "must be a whole number"]),
    (["+sweep=dem"], ["dem", "did you mean 'demo'"]),
    (["data=coco", "data.root=/nowhere"], ["data.root", "/nowhere"]),
    # first words
    (["trian"], ["no verb 'trian'", "did you mean 'train'"]),
    (["check-dta"], ["no verb 'check-dta'", "did you mean 'check-data'"]),
    (["chek_data", "data=digits"], ["did you mean 'check-data'"]),
    (["check_data"], ["did you mean 'check-data'"]),
    (["--plan"], ["no verb '--plan'", "did you mean 'plan'"]),
    (["val"], ["no verb 'val'", "did you mean 'predict'", "val or test images"]),
    (["fit"], ["did you mean 'train'"]),
    (["gpu"], ["did you mean trainer=gpu"]),
    (["cuda"], ["say trainer=gpu"]),
    (["demo"], ["did you mean +sweep=demo"]),
    (["peft"], ["say peft=WORD", "lora"]),
    (["/"], ["data=coco data.root=/", "check-data /"]),
    (["xyzzy"], ["no verb 'xyzzy'", "--help"]),
    # keys of other words and of other programs
    (["data.root=x"], ["data=digits", "say data=coco data.root=FOLDER", "belongs to data=ade20k"]),
    (["peft=adapter", "peft.rank=3"], ["which is peft=adapter", "it belongs to peft=", "lora"]),
    (["device=cuda"], ["device", "say trainer=gpu"]),
    (["trainer=cuda"], ["trainer=cuda", "say trainer=gpu"]),
    (["epochs=3"], ["epochs", "did you mean 'hparams.epochs'"]),
    (["batch=3"], ["say hparams.batch_size"]),
    (["data=/"], ["data=/", "data=coco data.root=/"]),
    # words that are none
    (["peft=lora", "adapter"], ["adapter: is no word of a run", "peft=adapter"]),
    (["peft=", "lora"], ["lora: is no word", "did you mean peft=lora"]),
    (["plan", "adapter"], ["adapter: is no word of a run", "peft=adapter"]),
    (["=lora"], ["=lora: is no word of a run"]),
    (["sweep=demo"], ["say +sweep=demo"]),
    (["+peft=lora"], ["say peft=lora"]),
    (["peft.rank=2,4"], ["peft.rank=2,4", "-m", "a list stands in brackets: peft.rank=[2,4]"]),
    (["--epochs", "3"], ["--epochs: there is no such option", "key=value"]),
    (["--device", "cuda"], ["--device", "trainer=gpu"]),
    (["predict", "--imges", "x"], ["there is no --imges", "did you mean --images"]),
    (["predict", "source=/"], ["images= needs one run, as in run=3f2a91 (`status` lists them)"]),
    (["predict", "imges=x"], ["there is no imges=x; did you mean images=?"]),
    (["data=coco", "data.root"], ["data.root: needs a value, as in data.root=VALUE"]),
    (["hparams=3"], ["hparams=3: there is no hparams '3'"]),
    (["data=yolo"], ["there is no data 'yolo'; say data=coco data.root=FOLDER, which reads it"]),
    (["table", "--format", "xyz"], ["--format", "xyz", "'md'"]),
    # what Hydra's grammar cannot read is text
    (["hparams.lr=[1"], ["hparams.lr=[1: must be a number"]),
    (["data=coco", "data.root=/a=b(1)[x] {~ü#"], ["data.root=/a=b(1)[x] {~ü#: there is no such"]),
    # what needs no torch
    (["trainer=gpu", "seed=1"], ["trainer.accelerator=gpu", "no GPU"]),
    (["model.weights=empty.pth"], ["empty.pth", "it is empty"]),
    (["-m", "model.weights=page.pth", "seed=0,1"], ["page.pth", "no checkpoint", "<!DOCTYPE"]),
    (["data.slices=[site]"], ["data.slices", "no column 'site'"]),
]
HELPS = [["--help"], ["-h"], ["help"], ["--version"], ["train", "--help"], ["help", "plan"]]
HELPS += [["--hydra-help"]]
CONFIGS = [["--cfg", "job"], ["--info", "config"], ["--cfg", "all"]]


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What is said to every line of this file, and what was left behind."""
    folder = tmp_path_factory.mktemp("said")
    (folder / "empty.pth").touch()
    (folder / "page.pth").write_text("<!DOCTYPE html>")
    verbs = [[verb, "--help"] for verb in VERBS if verb != "train"]
    return answers([*(words for words, _ in MISTAKES), *HELPS, *CONFIGS, *verbs], folder)


@pytest.mark.parametrize(("words", "parts"), MISTAKES)
def test_a_mistake_is_named_with_its_cure_before_anything_starts(words, parts, said):
    answer = said[tuple(words)]
    assert answer.status == 2
    assert [part for part in parts if part not in answer.err] == []
    assert answer.err.startswith("segsweep: ")
    foreign = (
        "Traceback",
        "usage:",
        "Error executing",
        "HYDRA_FULL_ERROR",
        "hydra.cc",
        "expecting",
    )
    assert [word for word in foreign if word in answer.err] == []
    assert answer.left == ["empty.pth", "page.pth"]


def test_help_lists_every_verb_in_its_group(said):
    text = said["--help",].out
    assert text == said["-h",].out == said["help",].out
    for verb in known().values():
        assert verb.group in verbs.GROUPS, f"segsweep/verbs: {verb.name} says no GROUP of these"
        assert f"\n  {verb.name} " in text
        assert verb.line in text
        assert 20 < len(verb.line) < 85
    names = [name for verb in known().values() for name in (verb.name, *verb.also)]
    assert len(names) == len({*names})
    assert max(map(len, text.splitlines())) <= 100
    assert [group for group in GROUPS if f"\n  {group}=" not in text] == []
    assert "milestones" not in text


def test_the_version_is_ours(said):
    assert said["--version",].out == f"segsweep {segsweep.__version__}\n"


def test_help_of_train_shows_words_and_not_the_config(said):
    text = said["train", "--help"].out
    assert "maskdino_tiny" in text
    assert "--cfg job" in text
    assert "milestones" not in text


def test_hydras_own_words_work(said):
    assert said["help", "plan"].out == said["plan", "--help"].out
    assert "--multirun" in said["--hydra-help",].out
    for words in CONFIGS:
        answer = said[tuple(words)]
        assert answer.status == 0, answer.err
        assert "milestones" in answer.out or "peft" in answer.out


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_every_verb_explains_itself(verb, said):
    answer = said[verb, "--help"]
    assert answer.status == 0, answer.err
    assert "usage" in answer.out


ODD = [
    *("ü", "#a", "a=b", "a(1)", "a[x]", "[x]", "{a", "{a}", "a,b", "~a", "a b", "a  b", "a ", "$a"),
    *("it's", 'a"b', r"a\b", r"a\'b", "a\\", "a'", "x;y", "a&b", "!", "中文", "a:b", "007", "%20"),
]


@pytest.mark.parametrize("name", ODD)
def test_any_path_can_be_said_as_it_is(name, tmp_path):
    (tmp_path / name).mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):  # is there, and is not
        word = f"data.root={folder / name}"
        if name in ("a,b", "a ") and folder != tmp_path:
            continue  # two values of a sweep, a blank too many
        (override,) = parsed(readable([word]))
        value = override.value()
        assert (value.text if isinstance(value, QuotedString) else value) == str(folder / name)


def test_what_hydra_reads_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("0", "[1]", "x(1)", "~"):
        (tmp_path / name).mkdir()
    same = [
        *("seed=0,1", "peft.rank=choice(1,2)", "hparams.lr_factors={*.a: 0.1, b: 2}"),
        *('data.prompts={bus:"bus, coach"}', "io.results=${oc.env:HOME}/x", "peft=glob(*)"),
        *("~logger", "data.slices=[site]", "+sweep=demo", "hydra/launcher=slurm"),
    ]
    assert readable(same) == same
    assert readable(["a.b=x(1),0"]) == ["a.b='x(1)','0'"]  # paths of a sweep
    assert readable(["a.b=~"]) == [f"a.b='{Path.home()}'"]


def test_alpha_defaults_to_the_rank_and_the_same_run_has_one_name():
    from segsweep.run.identity import Run

    one, other = compose(["peft=lora", "peft.rank=4"]), compose(["peft.rank=4", "peft.alpha=4"])
    assert one.peft.alpha == 4.0
    assert Run(one).name == Run(other).name
    assert Run(one).name != Run(compose(["peft.rank=4", "peft.alpha=8"])).name


def test_learning_rates_are_the_papers_per_method():
    for rate, words in {1e-3: ("lora", "adapter"), 1e-4: ("full_head", "decoder_only")}.items():
        assert [compose([f"peft={word}"]).hparams.lr for word in words] == [rate, rate]
    assert compose(["peft=lora", "hparams.lr=0.5"]).hparams.lr == 0.5


def test_users_bring_their_own_words(tmp_path):
    (tmp_path / "mine" / "peft").mkdir(parents=True)
    (tmp_path / "mine" / "peft" / "big.yaml").write_text(
        "_target_: segsweep.peft.lora.LoRA\nname: big\nrank: 64\n"
    )
    done = told("--config-dir", "mine", "peft=big", "--cfg", "job", cwd=tmp_path)
    assert "rank: 64" in done.stdout, done.stderr
    wrong = told("--config-dir", "mine", "peft=big", "peft.rnk=1", cwd=tmp_path)
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr
