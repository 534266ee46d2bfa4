"""Digit scenes as label maps: what is on top, and one family of strokes against everything else."""

import json

import numpy as np
import pytest

from segsweep.base.config import compose, fingerprint
from segsweep.data.base import BACKGROUND
from segsweep.data.formats.masks import to_mask
from segsweep.data.sets.digits_binary import FamilyName
from segsweep.data.sets.domains import DOMAINS, FAMILIES
from segsweep.data.sets.scenes import Canvas, Dice, Pose
from segsweep.verbs import check_data

each_domain = pytest.mark.parametrize("domain", list(DOMAINS))


def drawn(word, domain, *words):
    return compose([f"data={word}", f"data.domain={domain}", "data.train=9", "data.val=2", *words])


def test_what_is_painted_last_is_on_top_but_what_is_nothing_hides_only_where_it_is_opaque():
    canvas = Canvas(32, Dice("test"), "train")
    whole, left, top = (
        canvas.slab(Pose(x, y, 2.0, width))
        for x, y, width in ((0.5, 0.5, 1), (0, 0.5, 0.5), (0.5, -0.5, 2))
    )
    grey = np.full(3, 0.5)
    canvas.paint(whole, grey, 3)
    canvas.stain(left, grey, 7)
    canvas.stain(whole, grey, None)
    canvas.paint(top, grey, None)
    seen = canvas.on_top()
    assert (seen[:16] == -1).all()
    assert (seen[16:, :16] == 7).all()
    assert (seen[16:, 16:] == 3).all()


@each_domain
def test_label_maps_are_the_instances_as_they_lie_on_each_other(domain):
    data, instances = drawn("digits_semantic", domain).data, drawn("digits", domain).data
    assert data.classes() == instances.classes()
    for record, same in zip(data.records("train"), instances.records("train"), strict=True):
        labels = data.label_map(record)
        assert (data.image(record) == instances.image(same)).all()
        assert (labels.dtype, labels.shape) == (np.uint8, (128, 128))
        assert {*np.unique(labels)} <= {*range(len(data.classes())), BACKGROUND}
        assert (record.labels, record.annotations) == (record.file, [])
        there = [(a.category, to_mask(a.segmentation, (128, 128))) for a in same.annotations]
        seen = np.zeros((128, 128), bool)
        for category in {category for category, _ in there}:
            masks = [mask for k, mask in there if k == category]
            seen |= np.any(masks, 0)
            if not DOMAINS[domain].amodal:
                assert (labels[np.any(masks, 0)] == category).all()
        assert (labels[seen] != BACKGROUND).all()


@each_domain
def test_families_share_the_digits_and_other_digits_are_background(domain):
    whole = drawn("digits_semantic", domain).data
    parts = [drawn("digits_binary", domain, f"data.family={name}").data for name in FAMILIES]
    assert [part.classes() for part in parts] == [[name] for name in FAMILIES]
    assert [name.name for name in FamilyName] == FAMILIES
    for record in whole.records("val"):
        maps = np.stack([part.label_map(record) for part in parts])
        assert {*np.unique(maps)} == {0, BACKGROUND}
        assert ((maps == 0).sum(0) == (whole.label_map(record) != BACKGROUND)).all()
        if domain == "clutter":  # whose classes are the families
            assert all(
                (m == 0).sum() == (whole.label_map(record) == k).sum() for k, m in enumerate(maps)
            )


def test_what_is_asked_of_the_same_scenes_makes_other_data_and_other_runs():
    words = ("digits", "digits_semantic", "digits_binary", "digits_binary")
    families = ([], [], ["data.family=loop"], ["data.family=bow"])
    configs = [drawn(word, "xray", *family) for word, family in zip(words, families, strict=True)]
    assert len({config.data.fingerprint() for config in configs}) == 4
    assert len({fingerprint(config) for config in configs}) == 4
    assert [c.metrics.key for c in configs] == ["segm_AP", "mIoU_fg", "IoU_image", "IoU_image"]


@pytest.mark.parametrize("word", ["digits_semantic", "digits_binary"])
def test_they_are_checked_with_nothing_but_a_note(word, tmp_path):
    words = [f"data={word}", "data.train=6", "data.val=3", "--quiet", "--out", str(tmp_path)]
    assert check_data.main(words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {found["code"] for found in report["findings"]} <= {"labels-empty"}  # a note
    names = {row["name"] for row in report["parts"]["train"]["classes"]}
    assert names > {"(background)"}
