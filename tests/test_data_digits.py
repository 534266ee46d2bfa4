"""Digit scenes: the same everywhere, exact masks, and domains that differ as they claim."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from segsweep.base.config import compose, fingerprint
from segsweep.base.errors import UserError
from segsweep.data.formats.masks import to_mask
from segsweep.data.sets.digits import Digits, DomainName
from segsweep.data.sets.domains import DOMAINS, scene
from segsweep.data.sets.scenes import Canvas, Dice, Pose, glyphs

ROOT = Path(__file__).parents[1]
SHA = {  # of image, masks and labels of scene 5 of val: a change must raise scenes.VERSION
    "source": "f3cc9b834aee2594",
    "clean": "bfcc6f29cd96440f",
    "clutter": "86618852bebaffda",
    "xray": "4bfcbd0c0a54b4c4",
    "street": "6abb5cbf69de1c0e",
    "sonar": "f75e6c8e48fd8178",
}
each_domain = pytest.mark.parametrize("domain", list(DOMAINS))


def digits(domain: str, **options: int) -> Digits:
    return Digits(name="digits", domain=DomainName[domain], **{"train": 6, "val": 3, **options})


def digest(domain: str) -> str:
    drawn = scene(domain, "val", 5, 128)
    whole = drawn.image.tobytes() + drawn.masks.tobytes() + bytes(drawn.labels)
    return sha256(whole).hexdigest()[:16]


@each_domain
def test_scene_has_the_same_bytes_in_every_run(domain: str) -> None:
    scene(domain, "train", 3, 128)  # what was drawn before does not matter
    scene.cache_clear()
    assert digest(domain) == SHA[domain]


def test_scene_has_the_same_bytes_on_a_lesser_processor() -> None:
    cpu = np._core._multiarray_umath  # type: ignore[attr-defined]
    extras = [name for name in cpu.__cpu_dispatch__ if cpu.__cpu_features__[name]]
    program = "from tests.test_data_digits import *; print({d: digest(d) for d in DOMAINS}); "
    program += "assert 'sklearn' not in sys.modules"  # slow to import, and not needed
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(extras)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout.strip() == str(SHA), done.stderr
    assert done.returncode == 0, done.stderr


def test_no_handwriting_is_in_both_splits() -> None:
    train, val = ({g.tobytes() for hand in glyphs(s) for g in hand} for s in ("train", "val"))
    assert len(train) + len(val) == 1797
    assert not train & val


@each_domain
def test_records_describe_the_drawn_masks(domain: str) -> None:
    data = digits(domain)
    number = len(data.classes())
    for record in data.records("train"):
        assert data.image(record).shape == (record.height, record.width, 3) == (128, 128, 3)
        assert record.annotations
        for a in record.annotations:
            mask = to_mask(a.segmentation, (record.height, record.width))
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            assert a.area == mask.sum() > 0
            assert a.bbox[:2] == [columns[0], rows[0]]
            assert a.bbox[2:] == [np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert 0 <= a.category < number
    used = {a.category for r in digits(domain, train=60).records("train") for a in r.annotations}
    assert used == set(range(number))


@each_domain
def test_masks_overlap_only_where_things_are_transparent(domain: str) -> None:
    depth = max(scene(domain, "train", i, 128).masks.sum(0).max() for i in range(8))
    assert depth > 1 if domain == "xray" else depth == 1


@each_domain
def test_pixels_of_an_instance_look_unlike_what_is_around_them(domain: str) -> None:
    contrasts = []
    for index in range(8):
        drawn = scene(domain, "train", index, 128)
        around = ~drawn.masks.any(0)
        for mask in drawn.masks:
            inside = drawn.image[mask].mean(0)
            contrasts.append(np.abs(inside - drawn.image[around].mean(0)).max())
    assert np.median(contrasts) > 25


def test_xray_turns_around_what_source_shows() -> None:
    source, xray = (
        np.stack([scene(domain, "train", i, 128).image for i in range(12)]) / 255.0
        for domain in ("source", "xray")
    )
    assert source.mean() < 0.4 < 0.7 < xray.mean()
    saturation = [(i.max(-1) - i.min(-1)).mean() / (1 - i.min(-1)).mean() for i in (source, xray)]
    assert saturation[1] > 3 * saturation[0]
    assert digits("xray").classes() == digits("source").classes()


def test_street_grows_towards_the_viewer() -> None:
    boxes = [a.bbox for r in digits("street", train=40).records("train") for a in r.annotations]
    x, y, w, h = np.array(boxes).T
    whole = (x > 0) & (x + w < 128) & (y + h < 128)
    assert np.corrcoef((y + h)[whole], h[whole])[0, 1] > 0.8


def test_hidden_instances_are_not_annotated() -> None:
    canvas = Canvas(64, Dice("test"), "train")
    far, near = canvas.slab(Pose(0.5, 0.5, 0.4, 1)), canvas.slab(Pose(0.55, 0.5, 0.4, 1))
    grey = np.full(3, 128.0)
    for label, shape in enumerate((far, near, canvas.slab(Pose(0.2, 0.2, 0.02, 1)))):
        canvas.paint(shape, grey, label)
    assert canvas.instances(amodal=False)[0] == [1]  # 0 is hidden, 2 is too small
    assert canvas.instances(amodal=True)[0] == [0, 1]


def test_scale_of_a_scene_follows_its_side() -> None:
    large = digits("clean", side=256).records("train")
    small = digits("clean").records("train")
    ratio = np.mean([a.area for r in large for a in r.annotations]) / np.mean(
        [a.area for r in small for a in r.annotations]
    )
    assert 2 < ratio < 8  # about 4: other draws, twice the side


def test_fingerprint_is_of_what_is_drawn() -> None:
    names = {
        digits("clean").fingerprint(),
        digits("xray").fingerprint(),
        digits("clean", train=7).fingerprint(),
        digits("clean", side=64).fingerprint(),
    }
    assert len(names) == 4
    assert digits("clean").fingerprint() == digits("clean").fingerprint()


def test_composition_knows_domains_and_gives_each_its_own_run() -> None:
    runs = {fingerprint(compose(["data=digits", f"data.domain={domain}"])) for domain in DOMAINS}
    assert len(runs) == len(DOMAINS)
    with pytest.raises(Exception, match="domain"):
        compose(["data=digits", "data.domain=moon"])


@pytest.mark.parametrize(
    "override", ["data.train=0", "data.side=8", "data.size=[128]", "data.std=[1,0,1]",
                 "data.scale=[2,1]"]
)  # fmt: skip
def test_values_out_of_range_name_their_key(override: str) -> None:
    with pytest.raises(UserError, match=override.split("=")[0]):
        compose(["data=digits", override])


def test_composing_needs_neither_torch_nor_numpy() -> None:
    program = (
        "import sys, segsweep.data.sets.digits, segsweep.data.sets.coco, segsweep.metrics.coco;"
        "print([m for m in ('torch', 'numpy', 'sklearn', 'hotcoco') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
