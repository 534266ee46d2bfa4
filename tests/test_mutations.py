"""Annotation files that were changed at random: a message or a usable set, never a crash or a hang.

SEGSWEEP_MUTATIONS=2000 tries that many files instead of a few hundred.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from segsweep.base.errors import UserError
from segsweep.check.parts import joined
from segsweep.check.report import described, look_at
from segsweep.data.findings import accept
from segsweep.data.formats import masks
from segsweep.data.sets.coco import Coco
from tests.small_coco import HEIGHT, REAL, WIDTH, content, write

EXAMPLES = int(os.environ.get("SEGSWEEP_MUTATIONS", "300"))
NASTY = [
    None, True, False, 0, -1, 1, 7, 9, 11, 12, 0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf"),
    10**30, 2**63, 2**31, 1e7, "", "7", "nan", "1e3", "\ud800", "\x00", "../../x",
    "images/first.png", "<script>", [], [[]], [[[]]], {}, {"size": [HEIGHT, WIDTH]},
    10**400, [1, 2, 3, 4, 5, 6], [[1, 2]],
    [[0, 0, 1e9, 0, 0, 1e9]], {"size": [HEIGHT, WIDTH], "counts": "oooo0"},
    {"size": [2**31, 2**31], "counts": [2**62]}, {"size": [HEIGHT, WIDTH], "counts": [-1, 3073]},
]  # fmt: skip


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) of a nested structure."""
    for key in node if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def mutated(draw: st.DrawFn) -> str:
    """The text of a valid file after one to three changes."""
    tree = copy.deepcopy(content())
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[8:30, 10:40] = True
    tree["annotations"][1]["segmentation"] = masks.encode(mask[None])[0]
    for _ in range(draw(st.integers(1, 3))):
        every = list(places(tree))
        node, key = every[draw(st.integers(0, len(every) - 1))]
        kind = draw(st.sampled_from(["replace", "delete", "double", "other", "add"]))
        if kind == "replace":
            node[key] = copy.deepcopy(draw(st.sampled_from(NASTY)))
        elif kind == "delete":
            del node[key]
        elif kind == "double" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif kind == "add" and isinstance(node[key], int | float) and abs(node[key]) < 1e300:
            node[key] += draw(st.sampled_from([1, -1, 0.5, 1e6, -1e6]))
        else:
            source, place = every[draw(st.integers(0, len(every) - 1))]
            node[key] = copy.deepcopy(source[place])
    text = json.dumps(tree)
    cut = draw(st.sampled_from(["no", "no", "no", "no", "end", "inside", "byte"]))
    place = draw(st.integers(0, len(text)))
    parts = {"no": text, "end": text[:place], "inside": text[:place] + text[place + 9 :]}
    return parts.get(cut, text[:place] + draw(st.sampled_from('[]{}",:0\x00é')) + text[place:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("set")
    write(place)
    return place


@settings(
    max_examples=EXAMPLES,
    deadline=4000,  # milliseconds for one file
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(text=st.composite(mutated)())
def test_a_changed_file_gives_a_message_or_a_set_that_can_be_used(folder: Path, text: str) -> None:
    (folder / "train.json").write_text(text, encoding="utf-8")
    data = Coco(name="coco", root=str(folder))
    looks, _ = look_at(data, 1, quiet=True)
    json.dumps(described(data, looks, joined(part for part, _ in looks)), allow_nan=False).encode()
    for record in data.survey("train")[0]:
        for a in record.annotations:
            masks.to_mask(a.segmentation, (record.height, record.width))
            assert all(np.isfinite(np.array([*a.bbox, a.area], float)))
            assert len(a.bbox) == 4
            assert a.area > 0
            assert 0 <= a.category < len(data.files["train"].categories)
    if any(finding.level == "fatal" for finding in data.survey("train")[1]):
        with pytest.raises(UserError, match=r"train\.json"):
            accept(data.survey("train")[1])
        return
    ids = [a.id for record in data.survey("train")[0] for a in record.annotations]
    assert ids
    assert len(set(ids) - {0}) == len([i for i in ids if i])


LIMITED = """
import resource, sys, warnings
from pathlib import Path
from segsweep.check.parts import joined
from segsweep.check.report import look_at
from segsweep.check.page import overlay
from segsweep.check.parts import single
used = int(next(x for x in open("/proc/self/status") if x.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20,) * 2)
for name in sys.argv[2:]:
    [(part, looks)], _ = look_at(single(Path(name), Path(sys.argv[1])), 1, True)
    print(*sorted({f.code for f in part.findings()}), sum(len(x.objects) for x in looks))
    [overlay(part, look.record) for look in looks]
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits memory as Linux does")
def test_no_coordinate_and_no_size_takes_memory(tmp_path: Path) -> None:
    write(tmp_path)
    cases = {
        "nan": [[10, 10, float("nan"), 10, 26, 26, 10, 26]],
        "endless": [[10, 10, float("inf"), 10, 26, 26]],
        "huge": [[10, 10, 1e7, 10, 26, 26], [10, 10, 1e308, 1e308, -1e308, 26]],
        "border": [[-600, -600, 639, 10, 26, 639] * 500],
        "size": {"size": [2**31, 2**31], "counts": [2**62]},
    }
    files = []
    for name, segmentation in cases.items():
        what = content()
        what["annotations"][0]["segmentation"] = segmentation
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(what))
    what = content()
    what["images"][0].update(height=10**9, width=10**9)
    files.append(tmp_path / "image.json")
    files[-1].write_text(json.dumps(what))
    real = REAL / "defects/coco/nan_coordinates.json"
    files += [real] if real.exists() else []
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "images"), *map(str, files)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes = dict(zip([f.stem for f in files], done.stdout.splitlines(), strict=True))
    assert "not-finite" in codes["nan"]
    assert "not-finite" in codes["endless"]
    assert "far-away" in codes["huge"]
    assert codes["border"].endswith("2")
    assert "rle-size" in codes["size"]
    assert "image-broken" in codes["image"]
    assert "not-finite" in codes.get("nan_coordinates", "not-finite")
