"""Necks: what is too small for them, and what cannot be asked of them, is said in a sentence."""

from __future__ import annotations

import re

import pytest
import torch

from segsweep.base.errors import UserError
from segsweep.data.base import DataSet, Transform
from segsweep.model.necks import fpn, sfp
from segsweep.model.necks.sizes import check_input, check_size

LEAST = [  # scales, top, cells of the map that leave each level one
    ([2, 1, 0.5, 0.25], "pool", 8),
    ([2, 1, 0.5, 0.25], "subsample", 4),
    ([4, 2, 1, 0.5], "none", 2),
    ([2, 1], "pool", 2),
    ([4], "none", 1),
]


@pytest.mark.parametrize(("scales", "top", "least"), LEAST)
def test_an_input_that_leaves_a_level_empty_is_refused(scales, top, least):
    neck = sfp.build([8], [16], scales, out=4, top=top)
    for rows, columns in ((least, least), (least, 9), (least + 1, least)):
        levels = neck([torch.zeros(1, 8, rows, columns)])
        assert len(levels) == len(neck.strides)
        assert all(level.numel() for level in levels)
        check_size(16 * rows - 15, 16 * columns, 16, scales, top)  # what is less is padded
    for rows, columns in ((least - 1, 9), (9, least - 1)) if least > 1 else ():
        empty = len(neck.strides) - (top == "subsample")  # which keeps one cell of one
        coarse = neck.strides[empty - 1]
        said = rf"level {empty} .*stride {coarse:g}, .*0.* {16 * least} x {16 * least}:"
        with pytest.raises(UserError, match=said):
            neck([torch.zeros(1, 8, rows, columns)])
        with pytest.raises(UserError, match=said):
            check_size(16 * rows, 16 * columns, 16, scales, top)


def test_what_a_config_alone_tells_is_refused_before_a_model_is_built():
    said = "leaves level 5 of the neck, at stride 128, 0 x 0 cells; the least input is 128 x 128"
    known = [("samvit_base_patch16", {}), ("VisionTransformer", {"patch_size": 16})]
    for name, kwargs in known:
        with pytest.raises(UserError, match=said):
            check_input(name, kwargs, DataSet("x", size=[96, 96]))
        check_input(name, kwargs, DataSet("x", size=[97, 97]))  # padded to 128
        check_input(name, kwargs, DataSet("x", size=[96, 96], transform=Transform["lsj"]))
        check_input(name, kwargs, DataSet("x", size=[64, 64]), top="subsample", out=8)
    check_input("of_ones_own", {}, DataSet("x", size=[96, 96]))  # the forward will tell


def test_one_cell_is_enough_for_a_feature_pyramid_network():
    for extra in fpn.EXTRAS:
        neck = fpn.build([8, 8], [16, 32], 0, 4, extra, out=4)
        levels = neck([torch.zeros(1, 8, 1, 1)] * 2)
        assert [tuple(level.shape[2:]) for level in levels] == [(1, 1)] * 4


WRONG = [
    (sfp, {"scales": [3, 1]}, "model.neck.kwargs.scales=[3, 1]"),
    (sfp, {"scales": [1, 2]}, "in this order"),
    (sfp, {"top": "subsampled"}, "model.neck.kwargs.top=subsampled"),
    (fpn, {"start": 2}, "model.neck.kwargs.start=2: the backbone has 2 maps; choose 0 to 1"),
    (fpn, {"outputs": 1}, "model.neck.kwargs.outputs=1: must be at least 2"),
    (fpn, {"extra": "convs"}, "model.neck.kwargs.extra=convs"),
]


@pytest.mark.parametrize(("file", "kwargs", "said"), WRONG)
def test_what_a_neck_cannot_be_is_refused(file, kwargs, said):
    with pytest.raises(UserError, match=re.escape(said)):
        file.build([8, 8], [16, 32], **kwargs)
