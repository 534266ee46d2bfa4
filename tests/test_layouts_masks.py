"""Folders of masks: what one object is, and which masks are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segsweep.base.errors import UserError
from segsweep.data.sets.coco import Coco
from tests import exports
from tests.exports import HEIGHT, TRUTH, WIDTH


def test_masks_of_classes_are_refused(tmp_path: Path) -> None:
    exports.masks(tmp_path)
    for path in (tmp_path / "train/masks").iterdir():
        stripes = np.zeros((HEIGHT, WIDTH), np.uint8)
        stripes[::8], stripes[4::8] = 1, 2
        exports.Image.fromarray(stripes).save(path)
    with pytest.raises(UserError, match="data=semantic"):
        Coco(name="coco", root=str(tmp_path)).records("train")


def test_rims_and_grey_of_masks_are_no_objects(tmp_path: Path) -> None:
    exports.cellpose(tmp_path / "voc")
    for name in ("p3", "p5"):
        mask = exports.mask_of(name, [1, 2])
        mask.paste(255, (0, 0, WIDTH, 2))
        mask.putpalette([*range(256)] * 3)
        assert mask.mode == "P"
        mask.save(tmp_path / f"voc/{name}_masks.png")
    exports.masks(tmp_path / "grey")
    for path in [*(tmp_path / "grey").glob("*/masks/*.png")]:
        exports.Image.open(path).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    for folder, share in (("voc", "0.34"), ("grey", None)):
        data = Coco(name="coco", root=str(tmp_path / folder), split=share)
        for record in data.records("train") + data.records("val"):
            assert len(record.annotations) == len(TRUTH[Path(record.file).stem])
