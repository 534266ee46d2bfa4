"""Results folders of several sites as one: each run once, and what contradicts itself named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segsweep.base.errors import UserError
from segsweep.results import frame
from segsweep.verbs import collect, table
from tests.records import record, write

TABLE = Path("tables", "ablation.md")


def collected(results: Path, *sources: Path) -> str:
    words = ["--results", str(results)]
    assert collect.main([*words, "--from", *map(str, sources)] if sources else words) == 0
    return (results / TABLE).read_text()


def test_the_same_run_of_two_sites_is_counted_once(tmp_path: Path) -> None:
    runs = [record("lora", 40.0 + seed, seed=seed) for seed in range(4)]
    site_a, site_b, whole = tmp_path / "a", tmp_path / "b", tmp_path / "whole"
    write(whole, *runs)
    write(site_a, *runs[:3])
    later = runs[2] | {"started": "2027-01-01T00:00:00+00:00", "device": "another"}
    write(site_b, later, runs[3])
    assert collected(tmp_path / "both", site_a, site_b) == collected(whole)
    assert collected(tmp_path / "both", site_b, site_a) == collected(whole)


@pytest.mark.parametrize("turned", [False, True])
def test_the_same_id_with_other_content_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], turned: bool
) -> None:
    first, same, other = record("lora", 40.0), record("lora", 41.0, seed=1), record("lora", 40.0)
    other["metrics"]["segm_AP"]["value"] = 44.0
    sites = [tmp_path / "a", tmp_path / "b"]
    write(sites[0], first, same)
    write(sites[1], other, same)
    text = collected(tmp_path / "both", *(reversed(sites) if turned else sites))
    said = capsys.readouterr().out
    assert f"left out {first['id']}: segm_AP (4" in said
    assert all(f"{site / 'runs' / first['name']}" in said for site in sites)
    assert "44.00" not in text
    assert "| 41.00 |" in text
    assert first["id"] in text.partition("Left out")[2]
    table.main(["ablation", "--results", str(tmp_path / "both"), "--from", *map(str, sites)])
    assert "left out" in capsys.readouterr().err


def test_files_of_the_same_numbers_differ_by_their_hashes(tmp_path: Path) -> None:
    """Not the curve, whose lines hold the time."""
    for site, delta, curve in (("a", "x", "1"), ("b", "y", "1"), ("c", "x", "2")):
        hashes = {"delta.safetensors": delta, "metrics.jsonl": curve}
        files = {name: {"bytes": 1, "sha256": digest} for name, digest in hashes.items()}
        write(tmp_path / site, record("lora", 40.0) | {"files": files})
    read = frame.read(tmp_path / "a", tmp_path / "b")
    assert read.runs == []
    assert "delta.safetensors (x, y)" in read.differing[0]
    assert len(frame.read(tmp_path / "a", tmp_path / "c").runs) == 1


def test_a_copy_that_finished_outweighs_one_that_failed(tmp_path: Path) -> None:
    done = record("lora", 40.0)
    write(tmp_path / "a", done | {"status": "failed", "metrics": {}})
    write(tmp_path / "b", done)
    for sites in (("a", "b"), ("b", "a")):
        (run,) = frame.read(*(tmp_path / site for site in sites)).runs
        assert run["status"] == "done"


def test_a_copied_run_directory_is_no_second_seed(tmp_path: Path) -> None:
    (directory,) = write(tmp_path, record("lora", 40.0))
    shutil.copytree(directory, directory.with_name("a-copy"))
    assert "(2)" not in collected(tmp_path)
    assert len(frame.read(tmp_path).runs) == 1


def test_a_folder_that_holds_no_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--from .*nowhere: no folder of results"):
        collect.main(["--from", str(tmp_path / "nowhere")])
