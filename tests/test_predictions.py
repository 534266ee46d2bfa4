"""Predictions are kept whole or not at all, and give the recorded metric again to the last bit."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from segsweep.analysis.study import evaluated
from segsweep.base.config import compose
from segsweep.base.errors import UserError
from segsweep.base.files import atomically, read_json
from segsweep.run import predictions
from segsweep.run.folder import OWN_FILES, file_facts
from segsweep.run.identity import Run
from segsweep.run.restore import load
from segsweep.story import train
from segsweep.sweeps.leftovers import leftovers

HEAD = {"run": "abc", "split": "val", "classes": ["a"], "data": "f"}
FOUND = [
    {
        "category_id": 0,
        "score": 1 / 3,
        "bbox": [0.1, 2.0, 3.3000001907348633, 4.0],
        "segmentation": {"size": [9, 9], "counts": "12340"},
    }
]


def write(path: Path) -> Path:
    with predictions.writing(path, HEAD) as writer:
        writer.add(7, FOUND)
        writer.add(3, [])
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """An evaluated run of the frozen base."""
    folder = tmp_path_factory.mktemp("run")
    one = Run(compose(["peft=frozen", "data.train=2", "data.val=4", f"io.results={folder}"]))
    one.once(train)
    return one


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = predictions.read(write(tmp_path / "one.gz"))
    assert found.head == {"schema": 1, **HEAD}
    assert list(found) == [(7, FOUND), (3, [])]
    assert dict(found)[3] == []  # it can be read again


def test_files_of_instances_stay_what_they_were(tmp_path: Path) -> None:
    """Records name their hash."""
    found = '[[0,0.3333333333333333,[0.1,2.0,3.3000001907348633,4.0],"12340"]]'
    assert gzip.decompress(write(tmp_path / "one.gz").read_bytes()).decode().splitlines() == [
        '{"schema":1,"run":"abc","split":"val","classes":["a"],"data":"f"}',
        f'{{"image_id":7,"size":[9,9],"found":{found}}}',
        '{"image_id":3,"size":null,"found":[]}',
    ]


def test_equal_predictions_are_equal_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "one.gz"), write(tmp_path / "other.gz")
    os.utime(first, (0, 0))
    assert first.read_bytes() == second.read_bytes()


def test_an_interrupted_evaluation_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with (
            atomically(tmp_path / "one.gz") as path,
            predictions.writing(path, HEAD) as writer,
        ):
            writer.add(7, FOUND)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["cut", "text", "absent", "newer", "no head"])
def test_a_broken_file_is_named(tmp_path: Path, broken: str) -> None:
    path = write(tmp_path / "one.gz")
    content: dict[str, Any] = {
        "cut": path.read_bytes()[:-20],
        "text": b"no archive",
        "newer": gzip.compress(b'{"schema": 99, "data": "f"}\n'),
        "no head": gzip.compress(b"[1]\n"),
    }
    path.write_bytes(content[broken]) if broken in content else path.unlink()
    with pytest.raises(UserError, match=r"one\.gz"):
        list(predictions.read(path))


def test_a_record_names_the_file_and_its_hash(run: Run) -> None:
    record = read_json(run.directory / "record.json")
    assert record["files"] == file_facts(run.directory)
    assert list(record["files"]) == [predictions.FILE]  # nothing was trained
    found = predictions.of_run(run.directory)
    assert found.head["run"] == run.id
    assert [image_id for image_id, _ in found] == [
        r.image_id for r in run.config.data.records("val")
    ]


def test_the_recorded_metrics_follow_exactly(run: Run) -> None:
    record = read_json(run.directory / "record.json")
    again = evaluated(load(run.directory), predictions.of_run(run.directory))
    assert again == {name: metric["value"] for name, metric in record["metrics"].items()}
    assert record["metrics"]["segm_AP"]["value"] > 0


OLD = ("schema", "id", "status", "config", "data")  # of a record without predictions


def test_a_file_that_is_not_the_recorded_one_does_not_count(run: Run, tmp_path: Path) -> None:
    record = read_json(run.directory / "record.json")
    for name, body, message in (
        ("unfinished", None, "has not finished"),
        (
            "old",
            {k: v for k, v in record.items() if k in OLD},
            r"kept no predictions .* force=true",
        ),
        ("gone", record, r"predictions\.jsonl\.gz is gone .*force=true"),
        ("other", record, "is not the file that record.json describes"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if body is not None:
            (folder / "record.json").write_text(json.dumps(body))
        if name == "other":
            write(folder / predictions.FILE)
        with pytest.raises(UserError, match=message):
            predictions.of_run(folder)


def test_none_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    one = Run(compose(["io.predictions=false", f"io.results={tmp_path}"]))
    one.directory.mkdir(parents=True)
    write(one.directory / predictions.FILE)  # of an earlier attempt
    with predictions.keeping(one) as keep:
        keep([1], [object()])
    assert not (one.directory / predictions.FILE).exists()


def test_predictions_go_with_the_weights(tmp_path: Path) -> None:
    one = Run(compose([f"io.results={tmp_path}", "force=true"]))
    one.directory.mkdir(parents=True)
    path = write(one.directory / predictions.FILE)
    (one.directory / "failed.json").write_text('{"status": "failed"}')
    files, _ = leftovers([one.directory], None, None)
    assert [file.kind for file in files] == ["predictions"]
    assert path.name in OWN_FILES
    one.prepare()
    assert not path.exists()
