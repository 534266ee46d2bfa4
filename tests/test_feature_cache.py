"""What steps of a backbone at rest give is computed once: the same results, in less time."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import Conv2d
from torch.nn.modules.module import register_module_forward_hook

from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.data.base import Subject
from segsweep.model.weights import content_hash
from segsweep.peft.apply import apply
from segsweep.peft.delta import read_delta
from segsweep.run.feature_store import Disk, Memory, free_memory
from segsweep.run.features import FeatureCache
from segsweep.run.identity import Run, state_of
from segsweep.story import train
from tests.runs import files_of_at_most

pytestmark = pytest.mark.slow
TINY = [
    "data.train=8", "data.val=4", "hparams.batch_size=4", "hparams.epochs=2", "peft.rank=2",
    "io.log_every=1", "io.save_every=1", "model.weights=null", "trainer.accelerator=cpu",
]  # fmt: skip
MODES = ["memory", "disk"]


def trained(folder: Path, *words: str) -> Path:
    """Train one run in this process."""
    run = Run(compose([*TINY, f"io.results={folder}", *words]))
    run.once(train)
    return run.directory


def outcome(directory: Path) -> tuple[str, list[dict], dict]:
    """Trained tensors, curve and metrics of a run: what no cache may change on a CPU."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    curve = [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]
    tensors, _ = read_delta(directory / "delta.safetensors")  # beside them stands the run's name
    record = json.loads((directory / "record.json").read_text())
    return content_hash(tensors), curve, record["metrics"]


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


@contextlib.contextmanager
def counted(stop_at: int | None = None):
    """Count the passes through a backbone, by what reads images; the one asked for fails."""
    passes = []

    def count(module, args, output):
        if isinstance(module, Conv2d) and module.in_channels == 3 and not output.is_meta:
            passes.append(len(args[0]))
            if len(passes) == stop_at:
                raise RuntimeError("power cut")

    handle = register_module_forward_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


@pytest.fixture(autouse=True)
def empty_memory():
    Memory.kept.clear()
    yield
    Memory.kept.clear()


@pytest.fixture(scope="module")
def off(tmp_path_factory) -> tuple:
    return outcome(trained(tmp_path_factory.mktemp("off")))


@pytest.fixture
def model():
    config = compose(["model.weights=null"])
    torch.manual_seed(0)
    model = config.model.build(Subject(["a", "b"]))
    apply(model, config.peft, config.model.roles)
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(1))


# Runs


@pytest.mark.parametrize("mode", MODES)
def test_a_run_gives_identical_bits_and_the_next_needs_no_backbone(off, tmp_path, mode):
    word = f"trainer.cache_features={mode}"
    with counted() as passes:
        first = trained(tmp_path, word)
        assert 0 < len(passes) <= 8 * 2 + 4  # images in two views, or one
        passes.clear()
        assert trained(tmp_path, word, "peft.rank=4") != first
        assert passes == []
    assert outcome(first) == off


def test_a_method_that_begins_late_in_the_backbone_has_its_beginning_kept(tmp_path):
    words = ["peft.train=['embeddings','backbone.layer4.*']", "hparams.epochs=1", "data.train=4"]
    plain, cached = trained(tmp_path / "off", *words), "trainer.cache_features=disk"
    with counted() as passes:
        kept = trained(tmp_path / "on", *words, cached)
        assert passes
        passes.clear()
        trained(tmp_path / "on", *words, cached, "hparams.lr=0.01")
        assert passes == []
    assert outcome(kept) == outcome(plain)
    tensors, _ = read_delta(kept / "delta.safetensors")
    assert any("layer4" in name and "running" in name for name in tensors)  # its norms train


def test_a_run_goes_on_in_another_mode(off, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"), counted(stop_at=9):
        trained(tmp_path, "trainer.cache_features=disk")
    (directory,) = (tmp_path / "runs").iterdir()
    assert (directory / "last.ckpt").exists()
    assert outcome(trained(tmp_path, "trainer.cache_features=memory")) == off


def processes(*runs: tuple[Path, list[str]]) -> None:
    """Train runs in processes of their own, at the same time."""
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "segsweep", *TINY, f"io.results={folder}", *words],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for folder, words in runs
    ]  # fmt: skip
    for process in started:
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        assert "warning: " not in said


def test_processes_share_a_folder_at_the_same_time(off, tmp_path):
    words = ["trainer.cache_features=disk", f"io.features={tmp_path / 'shared'}"]
    processes((tmp_path / "a", words), (tmp_path / "b", [*words, "io.workers=2"]))
    for folder in ("a", "b"):
        assert outcome(next((tmp_path / folder / "runs").iterdir())) == off
    with counted() as passes:
        trained(tmp_path / "c", *words)
    assert passes == []
    assert not list(tmp_path.glob("shared/*/.*"))


def test_ranks_of_one_run_share_a_folder(tmp_path):
    words = ["trainer.devices=2", "hparams.epochs=1"]
    processes((tmp_path / "off", words), (tmp_path / "on", [*words, "trainer.cache_features=disk"]))
    plain, kept = (next((tmp_path / f / "runs").iterdir()) for f in ("off", "on"))
    assert outcome(kept) == outcome(plain)
    assert entries(tmp_path / "on" / "features")


def test_the_estimate_is_said_before_the_first_step(tmp_path, capsys):
    trained(tmp_path, "trainer.cache_features=disk", "io.features_gib=0.0015")
    said = capsys.readouterr().out
    there = entries(tmp_path / "features")
    line = (
        "features: at most 20 entries of 0.34 MiB, 6.72 MiB in all; 0 are there; room for 1.54 MiB"
    )
    assert line in said
    assert "the rest will be computed each time" in said
    assert said.count("warning: no room is left") == 1
    assert said.index(line) < said.index("epoch 1/2")
    assert said.count("features: ") == 1
    assert 0 < sum(path.stat().st_size for path in there) <= 0.0015 * 2**30


def test_a_disk_that_fills_up_stops_no_run(tmp_path, capsys):
    words = ["data.size=[256,256]", "hparams.epochs=1", "data.train=4", "data.val=2"]
    plain = trained(tmp_path / "off", *words)
    capsys.readouterr()
    with files_of_at_most(1_000_000):
        kept = trained(tmp_path / "on", *words, "trainer.cache_features=disk")
    assert outcome(kept) == outcome(plain)
    said = capsys.readouterr().out
    assert said.count("warning: ") == 1
    assert "cannot be written (File too large); more features are computed each time" in said
    assert not list((tmp_path / "on" / "features").rglob("*.*"))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["data.transform=lsj"], ["data.transform=lsj", "data.transform=squash"]),
        (["model.backbone.drop_path=0.3"], ["model.backbone.drop_path=0.3", "drop_path=0 or"]),
        (
            ["peft=full_head", "peft.train=['backbone.conv1.*']"],
            ["peft=full_head", "backbone.conv1"],
        ),
    ],
    ids=["lsj", "drop path", "trained backbone"],
)
@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_kept_is_refused_before_training(tmp_path, words, names, mode):
    words = [*words, f"trainer.cache_features={mode}", f"io.results={tmp_path}"]
    config = compose(["model.weights=null", *words])
    with pytest.raises(UserError) as refused:
        Run(config).once(train)
    for name in [f"trainer.cache_features={mode}", *names, "trainer.cache_features=off"]:
        assert name in str(refused.value)
    assert not (Run(config).directory / "metrics.jsonl").exists()
    assert state_of(Run(config).directory).value == "failed"
    assert not (tmp_path / "features").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"io\.features=.*cache_features=memory"):
        Disk(tmp_path / "file" / "features", None)


def test_room_must_be_positive():
    with pytest.raises(UserError, match=r"io\.features_gib=0"):
        compose(["io.features_gib=0"])


# Entries


def cache_of(store, about: str = "how") -> FeatureCache:
    return FeatureCache(about, store, entries=4)


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_maps_of_an_image_do_not_depend_on_its_batch(model, images):
    with torch.inference_mode():
        together = model.features(images)
        for i in range(len(images)):
            assert equal([m[i : i + 1] for m in together], model.features(images[i : i + 1]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_kept_maps_are_the_maps(model, images, tmp_path, mode, half):
    store = Disk(tmp_path, None) if mode == "disk" else Memory(None)
    with counted() as passes, torch.autocast("cpu", torch.bfloat16, enabled=half):
        plain = model.features(images)
        passes.clear()
        model.feature_cache = cache_of(store)
        with torch.inference_mode():  # as a validation does; training goes on with these entries
            assert equal(model.features(images.flip(0)), [m.flip(0) for m in plain])
        assert passes == [1] * 4
        again = model.features(images)
        assert passes == [1] * 4
    assert equal(again, plain)
    assert [(m.dtype, m.stride()) for m in again] == [(m.dtype, m.stride()) for m in plain]
    (2 * again[0].requires_grad_()).sum().backward()


def test_an_entry_is_named_by_all_that_it_depends_on(model, images, tmp_path):
    store, image, steps = Disk(tmp_path, None), images[:1], model.backbone.steps()

    def named(steps=steps, image=image, about="how", half=False):
        before = set(entries(tmp_path))
        with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.no_grad():
            cache_of(store, about)(steps, image)
        return set(entries(tmp_path)) - before

    assert named()
    assert not named()
    others = [
        named(image=image.flip(3)),
        named(image=image[..., :64]),
        named(image=image.clone().view(1, 3, 96, 64)),
        named(image=image + 1e-6),
        named(about="otherwise"),
        named(half=True),
        named(steps[:-1]),
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    others.append(named())
    torch.set_num_threads(threads)
    with torch.no_grad():
        model.backbone.layer4[0].conv1.weight[0, 0, 0, 0] += 1
    assert not named(steps[:-1])  # what comes later may train
    others.append(named())
    assert [len(new) for new in others] == [1] * 9


def test_another_backbone_has_other_entries(tmp_path):
    word = "trainer.cache_features=disk"
    with counted() as passes:
        for more in ([], ["model.backbone.kwargs.channels=[48,96,160,288]"], ["seed=1"]):
            trained(tmp_path, word, "hparams.epochs=1", *more)
            assert passes
            passes.clear()
    assert len({path.parent for path in entries(tmp_path / "features")}) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign"])
def test_a_damaged_file_is_computed_again_and_replaced(model, images, tmp_path, capsys, damage):
    plain = model.features(images)
    model.feature_cache = cache_of(Disk(tmp_path, None))
    model.features(images)
    path = entries(tmp_path)[0]
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "cut": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "foreign": b"no safetensors at all",
        }[damage]
    )
    capsys.readouterr()
    assert equal(model.features(images), plain)
    said = capsys.readouterr().out
    assert said.count("warning: ") == 1
    assert f"{path} is damaged" in said
    assert path.read_bytes() == content


# Room


def entry(value: float) -> dict[str, torch.Tensor]:
    return {"0": torch.full((1, 100, 100), float(value))}


def key(number: int) -> str:
    return f"{number % 2:016x}/{number:032x}"


SIZE = 40_000  # bytes of an entry; a file has a few more


def test_files_used_least_recently_go_first(tmp_path):
    store = Disk(tmp_path, None)
    for number in range(5):
        store.put(key(number), entry(number))
        past = time.time() - 100 + number
        os.utime(tmp_path / f"{key(number)}.safetensors", (past, past))
    file = entries(tmp_path)[0].stat().st_size
    mine = tmp_path / "0123456789abcdef" / "weights.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(bytes(SIZE))
    os.utime(mine, (0, 0))
    later = Disk(tmp_path, room=5 * file)
    assert later.get(key(0))
    later.put(key(5), entry(5))
    later.put(key(6), entry(6))
    there = [n for n in range(7) if (tmp_path / f"{key(n)}.safetensors").exists()]
    assert there == [0, 3, 4, 5, 6]
    assert mine.exists()  # not ours


def test_what_a_run_uses_is_not_dropped_for_more(tmp_path):
    file = 41_000
    for store in (Disk(tmp_path, room=3 * file), Memory(room=3 * SIZE)):
        for number in range(6):
            store.put(key(number), entry(number))
        kept = [n for n in range(6) if store.get(key(n)) is not None]
        assert kept == [0, 1, 2]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 3 * file


def test_memory_used_least_recently_goes_first():
    for number in range(4):
        Memory(room=4 * SIZE).put(key(number), entry(number))
    store = Memory(room=4 * SIZE)
    assert store.get(key(0))
    store.put(key(4), entry(4))
    store.put(key(5), entry(5))
    assert list(Memory.kept) == [key(3), key(0), key(4), key(5)]
    Memory(room=SIZE).put(key(6), entry(6))
    assert list(Memory.kept) == [key(6)]


def test_a_file_that_a_killed_writer_left_counts_and_goes(tmp_path):
    left = tmp_path / f"{0:016x}" / f".{1:032x}.safetensors.4711.tmp"
    left.parent.mkdir()
    left.write_bytes(bytes(SIZE))
    os.utime(left, (0, 0))
    Disk(tmp_path, room=SIZE + 1000).put(key(2), entry(2))
    assert not left.exists()
    assert len(entries(tmp_path)) == 1


def test_default_room_is_half_of_what_is_free(tmp_path):
    assert Memory(None).room == pytest.approx(free_memory() / 2, rel=0.2)
    assert Memory(None, processes=2).room == pytest.approx(free_memory() / 4, rel=0.2)
    stat = os.statvfs(tmp_path)
    assert Disk(tmp_path, None).room == pytest.approx(stat.f_bavail * stat.f_frsize / 2, rel=0.2)
