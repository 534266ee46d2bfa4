"""How an image becomes an input of the network: what `data.transform` names, a class for each.

`size`, `scale` and `crop` are those of the data. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from segsweep.base.errors import UserError

Size = tuple[int, int]  # (height, width)
MARGIN = 8 / 7  # of the shorter side to the part in the middle that is evaluated: 256 / 224


@dataclass(frozen=True)  # for workers: unpickled, it is equal, hence the same word
class Squash:
    """To exactly `size`, aspect ratio lost (what remains of the paper's pipeline)."""

    word = "squash"  # of data.transform
    exact = True  # every input has `size`, and shows the whole image
    partial = False  # training sees a random part of the image, resized to `size`
    cuts = False  # training images by `crop`
    varied = False  # in training: cuts of mixed classes, padded to `crop`, in changed colours

    def check(self, task: str, scale: list[float], crop: list[int] | None) -> None:
        """Raise UserError for a task and other options of the data that it does not go with."""
        if scale[0] > scale[1]:
            raise UserError(f"data.scale={scale}: the first factor must not be the larger one")
        if crop is not None and not self.cuts:
            raise UserError(
                f"data.crop={crop}: data.transform={self.word} does not cut by "
                "it; choose data.transform=fit or crop, or data.crop=null"
            )

    def resized(self, size: list[int], whole: Size, factor: float = 1.0) -> Size:
        """Return the size for a `whole` image, `factor` of it drawn where that is random."""
        return self.frame(size)

    def cut(self, size: list[int], crop: list[int] | None, resized: Size) -> Size:
        """Return the size of what training sees of a resized image."""
        return self.frame(size)

    def evaluated(self, size: list[int], resized: Size) -> Size:
        """Return the size of what evaluation sees, the middle of a resized image."""
        return resized

    def frame(self, size: list[int]) -> Size:
        """Return a size that holds every image of evaluation."""
        return size[0], size[1]

    def in_words(self, size: list[int]) -> str:
        """Say to what evaluation resizes an image, for those who have to do it themselves."""
        return f"height {size[0]}, width {size[1]}"


class LSJ(Squash):
    """Into `size`, aspect ratio kept; training takes a random factor out of `scale` of that, cut or
    padded to `size` (Ghiasi 2021, the COCO recipe of Mask DINO).
    """

    word = "lsj"
    exact = False

    def resized(self, size: list[int], whole: Size, factor: float = 1.0) -> Size:
        """Return the largest size of the image's aspect ratio within `factor` times `size`."""
        scale = factor * min(size[0] / whole[0], size[1] / whole[1])
        return max(round(whole[0] * scale), 1), max(round(whole[1] * scale), 1)

    def in_words(self, size: list[int]) -> str:
        """Say it as `Squash` does."""
        return f"fit into {super().in_words(size)}, aspect ratio kept"


class Fit(Squash):
    """By the short and the long side that are `size`, upright or lying, aspect ratio kept; of what
    is longer, training sees as much as `crop` says (mmdet: 1333 x 800).
    """

    word = "fit"
    exact = False
    cuts = True

    def resized(self, size: list[int], whole: Size, factor: float = 1.0) -> Size:
        """Return the largest size of which neither side is longer, as mmcv's `rescale_size`."""
        short, long = sorted(int(side * (factor if self.varied else 1)) for side in size)
        scale = min(long / max(whole), short / min(whole))
        return max(int(whole[0] * scale + 0.5), 1), max(int(whole[1] * scale + 0.5), 1)

    def cut(self, size: list[int], crop: list[int] | None, resized: Size) -> Size:
        """Return what is left of each side."""
        height, width = map(min, resized, crop or resized)
        return height, width

    def frame(self, size: list[int]) -> Size:
        """Return the long side twice."""
        return max(size), max(size)

    def in_words(self, size: list[int]) -> str:
        """Say it as `Squash` does."""
        short, long = sorted(size)
        return f"a long side of at most {long}, a short one of at most {short}, aspect ratio kept"


class Crop(Fit):
    """As `Fit`; training takes a random factor out of `scale` of both sides, cuts in which no class
    fills too much, pads them to `crop`, and changes colours (mmseg: 2048 x 512).
    """

    word = "crop"
    varied = True

    def check(self, task: str, scale: list[float], crop: list[int] | None) -> None:
        """Raise UserError where there is no `crop`, too."""
        super().check(task, scale, crop)
        if crop is None:
            raise UserError(
                "data.transform=crop: to which height and width? data.crop=[512,512], say"
            )


class RandomPart(Squash):
    """A random part of the image, resized to `size`: of its area a part out of `scale`, of its
    sides one out of 3/4 to 4/3. Evaluation cuts `size` out of the middle of an image whose shorter
    side is MARGIN of it (torchvision's recipe). For sets that tell the class of a picture.
    """

    word = "part"
    exact = False
    partial = True

    def check(self, task: str, scale: list[float], crop: list[int] | None) -> None:
        """Raise UserError for other tasks and for parts that are more than the whole, too."""
        super().check(task, scale, crop)
        if task != "label":
            raise UserError(
                "data.transform=part: may cut off what is to be found, and is for sets that tell "
                "the class of a picture; choose squash, lsj, fit or crop"
            )
        if scale[1] > 1:
            raise UserError(
                f"data.scale={scale}: data.transform=part takes parts of a picture, at most 1; "
                "data.scale=[0.08,1.0], say"
            )

    def resized(self, size: list[int], whole: Size, factor: float = 1.0) -> Size:
        """Return MARGIN of the least size of the image's aspect ratio that covers `size`."""
        scale = MARGIN * max(size[0] / whole[0], size[1] / whole[1])
        return round(whole[0] * scale), round(whole[1] * scale)

    def evaluated(self, size: list[int], resized: Size) -> Size:
        """Return `size`."""
        return self.frame(size)

    def in_words(self, size: list[int]) -> str:
        """Say it as `Squash` does."""
        return (
            f"8/7 of the least that covers {super().in_words(size)}, aspect ratio kept, of which "
            "the middle of that size is taken"
        )
