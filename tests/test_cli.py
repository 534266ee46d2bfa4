"""What a user types, and what is said when it is wrong. Each case is a real process."""

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from segsweep.__main__ import VERBS
from segsweep.base.config import class_of, compose, plain, typed
from segsweep.base.words import conf_dir

GROUPS = ("model", "peft", "data", "hparams", "metrics", "trainer", "logger")
CHOICES = [
    (p.parent.name, p.stem) for group in GROUPS for p in Path(conf_dir(), group).glob("*.yaml")
]


def segsweep(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "segsweep", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("group", "word"), CHOICES)
def test_every_choice_composes_names_itself_and_survives_freezing(group, word):
    tasks = getattr(class_of(group, word), "tasks", None) or ("instances",)
    config = compose([f"{group}={word}", *(["data=kvasir"] if "instances" not in tasks else [])])
    assert getattr(config, group).name == word
    frozen = plain(config)
    assert "_target_" not in str(frozen)
    assert plain(typed(OmegaConf.create(frozen))) == frozen


@pytest.mark.parametrize(("group", "word"), CHOICES)
def test_every_choice_names_its_dataclass(group, word):
    assert class_of(group, word).__module__.startswith("segsweep.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["peft.rnk=2"], ["peft.rnk", "did you mean 'rank'", "alpha"]),
        (["peft.rank=two"], ["peft.rank", "two", "Integer"]),
        (["peft=lor"], ["peft=lor", "did you mean 'lora'", "adapter"]),
        (["peft=adapter", "peft.residual=kapa"], ["peft.residual", "kapa", "kappa+lambda"]),
        (["sed=1"], ["sed", "did you mean 'seed'"]),
        (["seed=abc"], ["seed", "abc", "Integer"]),
        (["pefft=lora"], ["pefft", "did you mean 'peft'"]),
        (["hparams.epochs=0"], ["hparams.epochs=0", "at least 1"]),
        (["peft.rank=0"], ["rank", "0"]),
        (["-m", "peft=lora", "peft.rank=2,x"], ["peft.rank", "x", "Integer"]),
        (["+sweep=dem"], ["dem", "did you mean 'demo'"]),
        (["trian"], ["no verb 'trian'", "did you mean 'train'"]),
        (["data=coco", "data.root=/nowhere"], ["data.root", "/nowhere"]),
    ],
)
def test_a_mistake_is_named_with_its_cure_before_anything_starts(words, said, tmp_path):
    done = segsweep(*words, cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for part in said:
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_hydras_own_words_work_and_import_no_torch(tmp_path):
    code = (
        "import sys; from segsweep.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    for words in (["--cfg", "job"], ["--help"], ["--info", "config"], ["--cfg", "all"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "peft" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_every_verb_explains_itself(verb, tmp_path):
    done = segsweep(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_alpha_defaults_to_the_rank_and_the_same_run_has_one_name():
    from segsweep.run.identity import Run

    one, other = compose(["peft=lora", "peft.rank=4"]), compose(["peft.rank=4", "peft.alpha=4"])
    assert one.peft.alpha == 4.0
    assert Run(one).name == Run(other).name
    assert Run(one).name != Run(compose(["peft.rank=4", "peft.alpha=8"])).name


def test_learning_rates_are_the_papers_per_method():
    rates = {word: compose([f"peft={word}"]).hparams.lr for _, word in CHOICES if _ == "peft"}
    assert rates["lora"] == rates["adapter"] == 1e-3
    assert rates["full_head"] == rates["decoder_only"] == rates["embeddings_only"] == 1e-4
    assert compose(["peft=lora", "hparams.lr=0.5"]).hparams.lr == 0.5


def test_users_bring_their_own_words(tmp_path):
    (tmp_path / "mine" / "peft").mkdir(parents=True)
    (tmp_path / "mine" / "peft" / "big.yaml").write_text(
        "_target_: segsweep.peft.lora.LoRA\nname: big\nrank: 64\n"
    )
    done = segsweep("--config-dir", "mine", "peft=big", "--cfg", "job", cwd=tmp_path)
    assert "rank: 64" in done.stdout, done.stderr
    wrong = segsweep("--config-dir", "mine", "peft=big", "peft.rnk=1", cwd=tmp_path)
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr
