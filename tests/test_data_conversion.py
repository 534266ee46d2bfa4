"""The cache of converted sets: whole or not there, whoever makes it; and splits as files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segsweep.base.errors import UserError
from segsweep.data.base import SPLITS
from segsweep.data.items import MANIFEST, Item
from segsweep.data.splits import Rule, digest, read, text
from tests.layouts import ndd20, picture, source

CONVERT = """
import sys
from segsweep.data.sets.ndd20 import NDD20
from segsweep.base.errors import UserError

if __name__ == "__main__":
    words = dict(word.split("=") for word in sys.argv[1:])
    options = {key: int(word) if word.isdigit() else word for key, word in words.items()}
    try:
        data = NDD20(name="ndd20", val=5, **options)
        print(len(data.records("train")), len(data.records("val")), data.converted)
    except UserError as error:
        sys.exit(f"segsweep: {error}")
"""


def start(folder: Path, *words: str, limit: str = "") -> subprocess.Popen[str]:
    """Begin a conversion in a process of its own, with two processes of its own."""
    script = folder / "convert.py"
    script.write_text(limit + CONVERT)
    places = [f"root={folder / 'root'}", f"cache={folder / 'cache'}"]
    command = [sys.executable, str(script), *places, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def large(folder: Path, count: int) -> Path:
    """NDD20 with pictures that take a while: `count` in each folder, all the same."""
    root = ndd20(folder / "root", count)
    one = picture(folder / "one.jpg", size=(800, 1200))
    for path in root.glob("*/*.jpg"):
        path.unlink()
        os.link(one, path)
    for labels in root.glob("*.json"):
        entries = json.loads(labels.read_text())
        labels.write_text(json.dumps({k: {**e, "size": -1} for k, e in entries.items()}))
    return root


def finished(cache: Path) -> list[Path]:
    return sorted(path.parent for path in cache.glob(f"*/{MANIFEST}"))


def until(found: object, seconds: float = 60) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not found():  # pyright: ignore[reportCallIssue]
        assert time.monotonic() < deadline
        time.sleep(0.01)


# one conversion, whole


def test_of_two_processes_one_converts_and_both_are_served(tmp_path: Path) -> None:
    large(tmp_path, 12)
    both = [start(tmp_path, "longest=600", "train=10") for _ in range(2)]
    said = [process.communicate(timeout=150) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    (folder,) = finished(tmp_path / "cache")
    assert {out.strip() for out, _ in said} == {f"10 5 {folder}"}
    assert sum(err.count("converting ndd20") for _, err in said) == 1
    assert len([*folder.rglob("*.jpg")]) == 15
    assert not [*tmp_path.glob("cache/.converting/*/[!o]*")]


def test_a_killed_conversion_leaves_nothing_that_counts_and_no_process(tmp_path: Path) -> None:
    large(tmp_path, 50)
    words = ["longest=600", "train=60"]
    process = start(tmp_path, *words)
    until(lambda: [*tmp_path.glob("cache/.converting/*/new.1/images/*/*.jpg")])
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children), 10)
    assert finished(tmp_path / "cache") == []
    again = start(tmp_path, *words)
    out, err = again.communicate(timeout=150)
    (folder,) = finished(tmp_path / "cache")
    assert out.strip() == f"60 5 {folder}", err
    assert len([*folder.rglob("*.jpg")]) == 65
    assert not [*tmp_path.glob("cache/.converting/*/[!o]*")]


def test_without_room_there_is_one_sentence_and_no_rest(tmp_path: Path) -> None:
    large(tmp_path, 12)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
    process = start(tmp_path, "longest=900", "train=10", limit=limit)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 1
    assert f"data.cache={tmp_path}/cache: the set cannot be stored there (File too large)" in err
    assert "Traceback" not in err
    assert not [*tmp_path.glob("cache/.converting/*/[!o]*")]
    (tmp_path / "file").write_text("")
    data = source("ndd20", tmp_path / "root", tmp_path / "file", "train=10")
    with pytest.raises(UserError, match=r"data\.cache=.*cannot be stored .*Not a directory"):
        data.records("train")


def test_a_broken_picture_is_named_from_other_processes(tmp_path: Path) -> None:
    root = ndd20(tmp_path / "root", 70)
    (root / "BELOW/7.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    split = tmp_path / "split.tsv"
    keys = [f"{water}/{n}.jpg" for water in ("ABOVE", "BELOW") for n in range(70)]
    split.write_text("".join(f"{'val' if n % 9 else 'train'}\t{k}\n" for n, k in enumerate(keys)))
    process = start(tmp_path, f"split={split}")
    _, err = process.communicate(timeout=150)
    assert process.returncode == 1
    said = err.partition("segsweep: ")[2]
    assert f"{root}/BELOW/7.jpg" in said
    assert "Git LFS pointer" in said
    assert "Traceback" not in err
    assert finished(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("root", "lost", "message"),
    [
        ("", None, r"data\.root=.*no such folder.*obtain it: download NDD20"),
        ("root", "ABOVE_LABELS.json", r"has no ABOVE_LABELS.json or .*obtain it"),
        ("root", "BELOW/*.jpg", r"pictures are missing: \d+ \(BELOW/.*obtain it"),
    ],
)
def test_what_is_missing_is_said_with_how_to_get_it(
    root: str, lost: str | None, message: str, tmp_path: Path
) -> None:
    place = ndd20(tmp_path / "root") if root else tmp_path / "nowhere"
    for path in place.glob(lost or "nothing"):
        path.unlink()
    with pytest.raises(UserError, match=message):
        source("ndd20", place, tmp_path / "cache").fingerprint()


def test_a_torn_cache_says_how_to_mend_it(tmp_path: Path) -> None:
    root = ndd20(tmp_path / "root")
    data = source("ndd20", root, tmp_path / "cache")
    data.records("val")
    (data.converted / "val.json").write_text("{")
    with pytest.raises(UserError, match=f"delete {data.converted} to convert again"):
        source("ndd20", root, tmp_path / "cache").records("val")
    (data.converted / MANIFEST).unlink()
    assert len(source("ndd20", root, tmp_path / "cache").records("val")) == 5


# splits


def test_a_split_file_replaces_the_rule_and_is_known_by_its_lines(tmp_path: Path) -> None:
    root, cache = ndd20(tmp_path / "root"), tmp_path / "cache"
    ruled = source("ndd20", root, cache)
    facts = ruled.split_facts()
    assert facts["rule"].startswith("blocks of 25 consecutive file numbers")
    manifest = ruled.converted / MANIFEST
    shuffled = tmp_path / "mine.tsv"
    lines = manifest.read_text().splitlines()
    shuffled.write_text("\ufeff# mine\n\n" + "\r\n".join(reversed(lines)))
    mine = source("ndd20", root, cache, f"split={shuffled}")
    assert mine.split_facts() == {**facts, "rule": "file mine.tsv"}
    assert [r.file for r in mine.records("val")] == [r.file for r in ruled.records("val")]
    shuffled.write_text("train\tABOVE/1.jpg\nval\tABOVE/29.jpg\n")
    other = source("ndd20", root, cache, f"split={shuffled}")
    assert other.fingerprint() != ruled.fingerprint()
    assert other.split_facts()["hash"] != facts["hash"]
    assert [[r.file for r in other.records(s)] for s in SPLITS] == [
        ["ABOVE/1.jpg"],
        ["ABOVE/29.jpg"],
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("train\tABOVE/1.jpg\nval\tABOVE/l.jpg", r"1 \(ABOVE/l.jpg\).* is not .*did you mean"),
        ("train\t/data/x.png\nval\tABOVE/1.jpg", r"1 \(/data/x.png\).*keys are like 'ABOVE/0.jpg'"),
        ("train\tABOVE/1.jpg\nval\tABOVE/1.jpg", r"'ABOVE/1.jpg' is on lines 1 and 2"),
        ("train\tABOVE/1.jpg\n", r"has no line of val"),
        ("train\tABOVE/1.jpg\ntest\tABOVE/2.jpg", r"line 2 is 'test.*; a line is train or val"),
        ("train ABOVE/1.jpg", r"line 1 is 'train ABOVE/1.jpg'; .*a tab, a key"),
        (None, r"cannot be read"),
    ],
)
def test_faults_of_split_files_are_named(lines: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "split.tsv"
    if lines is not None:
        path.write_text(lines)
    data = source("ndd20", ndd20(tmp_path / "root"), tmp_path / "cache", f"split={path}")
    with pytest.raises(UserError, match=rf"data\.split={path}: .*{message}"):
        data.fingerprint()


def test_torn_groups_are_told(tmp_path: Path) -> None:
    path = tmp_path / "split.tsv"
    path.write_text("train\tABOVE/1.jpg\nval\tABOVE/2.jpg\n")
    data = source("ndd20", ndd20(tmp_path / "root"), tmp_path / "cache", f"split={path}")
    with pytest.warns(UserWarning, match=r"1 \(ABOVE/0\) groups .* on both sides"):
        data.records("val")


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.data())
def test_a_rule_is_exact_and_keeps_groups_whole(sizes: list[int], draws: st.DataObject) -> None:
    pool = [
        Item(f"{group}/{n}", Path("x"), group=str(group))
        for group, size in enumerate(sizes)
        for n in range(size)
    ]
    shuffled = draws.draw(st.permutations(pool))
    number = draws.draw(st.integers(1, len(pool)))
    try:
        found = Rule("x", val=number).split(shuffled)
    except UserError:
        last = max(sorted(sizes, reverse=True))
        assert number > len(pool) - last  # nothing is left for train
        return
    assert found == Rule("x", val=number).split(pool)
    assert len(found["val"]) == number
    assert sum(map(len, found.values())) == len(pool)
    groups = [{item.group for item in found[split]} for split in SPLITS]
    assert not groups[0] & groups[1]


def test_a_rule_gives_the_same_on_every_machine() -> None:
    pool = [Item(f"{n}", Path("x"), group=f"{n // 5}") for n in range(40)]
    found = Rule("some set", val=8, train=20).split(pool)
    groups = {split: "".join(dict.fromkeys(i.group for i in found[split])) for split in found}
    assert groups == {"val": "35", "train": "6201", "rest": "547"}
    with pytest.raises(UserError, match=r"40 pictures .* too few"):
        Rule("some set", val=30, train=20).split(pool)


def test_manifests_are_written_as_they_are_read(tmp_path: Path) -> None:
    keys = {"train": ["b/ä 1.jpg", "a"], "val": ["c"]}
    path = tmp_path / "split.tsv"
    path.write_text(text(keys), "utf-8")
    assert text(read(path)) == text(keys)
    assert digest(text(keys)) == digest(text({"val": ["c"], "train": ["a", "b/ä 1.jpg"]}))
