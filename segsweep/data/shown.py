"""How pictures are shown to the network: which options of a data set go together."""

from __future__ import annotations

from segsweep.base.errors import UserError

CUTTING = ("fit", "crop")  # transforms that cut by `crop`


def check_transform(transform: str, task: str, scale: list[float], crop: list[int] | None) -> None:
    """Raise UserError for a transform that does not fit the other options, or the task."""
    if scale[0] > scale[1]:
        raise UserError(f"data.scale={scale}: the first factor must not be the larger one")
    if crop is not None and transform not in CUTTING:
        raise UserError(
            f"data.crop={crop}: data.transform={transform} does not cut by it; "
            "choose data.transform=fit or crop, or data.crop=null"
        )
    if crop is None and transform == "crop":
        raise UserError("data.transform=crop: to which height and width? data.crop=[512,512], say")
    if transform == "part" and task != "label":
        raise UserError(
            "data.transform=part: may cut off what is to be found, and is for sets that tell the "
            "class of a picture; choose squash, lsj, fit or crop"
        )
    if transform == "part" and scale[1] > 1:
        raise UserError(
            f"data.scale={scale}: data.transform=part takes parts of a picture, at most 1; "
            "data.scale=[0.08,1.0], say"
        )
