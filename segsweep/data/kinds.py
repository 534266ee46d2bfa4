"""Every defect of data that is known by a code: what it is, what it does, what helps.

`docs/check_data.md` shows the same table.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """What all findings of a code have in common.

    `fixable`: `--fix` takes care of it. `drops`: what it is about is left out of training.
    """

    level: str
    what: str
    consequence: str
    cure: str
    fixable: bool = True
    drops: bool = False


DROPPED = "left out: the object stays in the picture and is learnt as background"
KINDS: dict[str, Kind] = {
    # files
    "file-unreadable": Kind(
        "fatal", "cannot be read", "nothing can be read", "restore or export the file again", False
    ),
    "no-images": Kind("fatal", "has no images", "nothing to learn", "export again", False),
    "no-annotations": Kind(
        "fatal", "has no annotations", "nothing to learn or to score against",
        "such a list serves prediction only", False,
    ),
    "boxes-only": Kind(
        "fatal", "no annotation has a segmentation; these are boxes, not masks",
        "nothing to learn", "export masks, or make them from the boxes with another program", False,
    ),
    "nothing-usable": Kind(
        "fatal", "no annotation can be used", "nothing to learn",
        "see what is said of the annotations, and export again", False,
    ),
    "mostly-dropped": Kind(
        "warning", "more than half of the annotations are left out",
        "what remains is hardly the data set: most objects are learnt as background",
        "export masks for all objects", False,
    ),
    "all-crowd": Kind(
        "fatal", "every annotation has iscrowd=1, as some exports of masks write it",
        "crowds are no training targets and are ignored in evaluation: nothing is left",
        "set iscrowd to 0 for single objects", False,
    ),
    # categories
    "category-broken": Kind(
        "fatal", "categories need an id and a name", "its annotations have no class",
        "correct the list of categories",
    ),
    "category-id-text": Kind(
        "fatal", "a category id is no whole number", "cannot be written to results files",
        "number the categories",
    ),
    "category-id-twice": Kind(
        "fatal", "a category id occurs twice", "which name is meant cannot be known",
        "give every category its own id", False,
    ),
    "category-unknown": Kind(
        "fatal", "the category of an annotation is not declared",
        "a class without a name, or a crash of the loss", "declare it or drop the annotation",
        drops=True,
    ),
    "category-other-split": Kind(
        "fatal", "a category of val is not in train", "could never be learnt",
        "export both splits with one list of categories", drops=True,
    ),
    "category-root": Kind(
        "warning", "a grouping entry without annotations, left out of the classes",
        "would be one class too many", "none needed",
    ),
    "category-name-twice": Kind(
        "warning", "two categories have the same name; the later one is called by name and id",
        "results by class could not be told apart", "rename one",
    ),
    "category-empty": Kind(
        "note", "a category has no annotation", "it counts in no mean; it can not be learnt",
        "none needed", False,
    ),
    # images
    "image-broken": Kind(
        "fatal", "images need id, file_name, height and width", "the image cannot be used",
        "correct the entry", drops=True,
    ),
    "image-id-text": Kind(
        "fatal", "an image id is no whole number", "evaluation needs whole numbers",
        "number the images",
    ),
    "image-id-twice": Kind(
        "fatal", "an image id occurs twice",
        "which picture an annotation belongs to cannot be known", "give every image its own id",
        drops=True,
    ),
    "image-file-twice": Kind(
        "warning", "one file is listed under several ids",
        "it counts several times; objects that are annotated in one entry are background in the "
        "other", "merge the entries", False,
    ),
    "image-empty": Kind(
        "note", "an image without annotation", "not trained on; evaluated, where every detection "
        "is a false one", "make sure that it shows nothing", False,
    ),
    "image-crowd-only": Kind(
        "warning", "an image has crowd regions only", "not trained on; evaluated as ignored",
        "check whether iscrowd=1 is meant", False,
    ),
    # annotations
    "annotation-broken": Kind(
        "fatal", "annotations need image_id and category_id", "it belongs to nothing",
        "correct or drop the entry", drops=True,
    ),
    "annotation-orphan": Kind(
        "warning", "its image is not listed", "left out",
        "list the image or drop the annotation", drops=True,
    ),
    "annotation-id-twice": Kind(
        "fatal", "an annotation id occurs twice",
        "an object may be there twice; other evaluators match wrongly, with no message",
        "number the annotations",
    ),
    "annotation-id-zero": Kind(
        "note", "annotation ids start at 0 (this evaluator numbers from 1)",
        "pycocotools takes a match with id 0 for no match: AP too low there", "number from 1",
    ),
    "annotation-id-text": Kind(
        "note", "an annotation has no id, or one that is no whole number",
        "pycocotools may not read the file", "number the annotations",
    ),
    "crowd": Kind(
        "note", "a crowd region", "never a training target, ignored in evaluation", "none needed",
        False,
    ),
    "twin": Kind(
        "warning", "an object is annotated twice: same class, masks that overlap almost wholly",
        "the network is asked for two where one is; half of them count as missed",
        "drop one", False,
    ),
    "filled-in": Kind(
        "note", "bbox, area or iscrowd is missing", "filled in here; pycocotools raises KeyError",
        "write them",
    ),
    "box-disagrees": Kind(
        "warning", "the box is not that of the mask (xyxy for xywh, another object, no size); "
        "the mask's is taken", "box AP would be measured against a wrong box", "none needed",
    ),
    "area-disagrees": Kind(
        "note", "the area is not that of the mask by more than a tenth",
        "AP by size counts it among others", "compute it from the mask",
    ),
    "tiny": Kind(
        "note", "an object is smaller than one pixel at the input size",
        "may vanish from training images; cannot be found", "a larger data.size", False,
    ),
    # masks
    "mask-missing": Kind("warning", "no mask", DROPPED, "draw or drop it", drops=True),
    "mask-form": Kind(
        "warning", "the segmentation is neither polygons nor RLE", DROPPED,
        "polygons are lists [[x1, y1, x2, y2, ...], ...] of numbers", drops=True,
    ),
    "rle-size": Kind(
        "fatal", "the RLE is of another size than the image (width and height swapped?)",
        "mask and image do not belong together", "export again", drops=True,
    ),
    "rle-broken": Kind(
        "fatal", "the RLE cannot be read or does not fill the image", "no mask, or nonsense",
        "export again", drops=True,
    ),
    "not-finite": Kind(
        "warning", "a coordinate is not finite", DROPPED, "draw it again", drops=True
    ),
    "far-away": Kind(
        "warning", "a coordinate is far away from the image", DROPPED, "draw it again", drops=True
    ),
    "odd-numbers": Kind(
        "warning", "a polygon has an odd number of coordinates (an RLE?)", DROPPED,
        "draw it again", drops=True,
    ),
    "short-polygon": Kind(
        "warning", "fewer than 3 points", DROPPED, "draw it again", drops=True
    ),
    "no-area": Kind("warning", "no area", DROPPED, "draw it again", drops=True),
    "outside": Kind("warning", "outside the image", DROPPED, "draw it again", drops=True),
    "ring-dropped": Kind(
        "warning", "one of its polygons is useless and left out, the others stay",
        "a part of the object may be missing", "draw it again",
    ),
    "sticks-out": Kind(
        "note", "a polygon sticks out of the image; what is outside is cut", "none",
        "none needed",
    ),
    # pictures
    "picture-missing": Kind(
        "fatal", "the picture is not there", "the run would end when it reaches it",
        "data.images names their folder (--images for a single file)", drops=True,
    ),
    "picture-broken": Kind(
        "fatal", "the picture cannot be decoded", "the run would end when it reaches it",
        "replace the file", drops=True,
    ),
    "picture-size": Kind(
        "fatal", "the picture has another size than its annotations", "masks at wrong places",
        "export again for the pictures as they are", drops=True,
    ),
    "picture-turned": Kind(
        "warning", "the picture has an EXIF orientation",
        "followed where the sizes ask for it; with equal sizes the masks may be turned by 180°",
        "look at the overlay; store the picture upright",
    ),
    "picture-changed": Kind(
        "warning", "the picture is not of the size in bytes that the file tells",
        "it was changed since it was annotated; masks may be at wrong places",
        "look at the overlay", False,
    ),
    "picture-deep": Kind(
        "note", "more than 8 bits a channel; scaled by the depth that its brightest pixel needs",
        "contrast differs from picture to picture", "convert all in one way", False,
    ),
    "picture-alpha": Kind(
        "note", "has transparent pixels; alpha is dropped", "hidden colours appear",
        "put it on a colour", False,
    ),
    "picture-suffix": Kind(
        "note", "the suffix does not tell its format", "none here; other programs may fail",
        "rename it", False,
    ),
    "picture-blank": Kind(
        "warning", "the picture has one colour only", "nothing to learn from", "replace the file",
        False,
    ),
    "picture-twice": Kind(
        "warning", "the same picture several times in a split", "it counts several times",
        "drop the copies", False,
    ),
    "leak": Kind(
        "warning", "the same picture in train and in val", "the scores are too good",
        "split again by photograph", False,
    ),
    "leak-similar": Kind(
        "warning", "nearly the same picture in train and in val", "the scores are too good",
        "split again by photograph, scene or burst", False,
    ),
    "leak-source": Kind(
        "warning", "train and val hold copies of one photograph (by their names)",
        "the scores are too good", "split before augmenting", False,
    ),
    "labels-broken": Kind(
        "fatal", "the label map cannot be read, has another size or unknown values",
        "wrong classes, or a crash of the loss", "export again", False, drops=True,
    ),
    # other forms
    "set-refused": Kind(
        "fatal", "the data set cannot be read", "training stops", "see the message", False
    ),
    "polyline-open": Kind(
        "warning", "the ends of a polyline are far apart; they are joined by a line",
        "the mask has a straight edge that nobody drew", "close it in the annotation program",
        False,
    ),
    "region-unlabelled": Kind(
        "warning", "a region of a VIA file without a label", DROPPED, "label it", drops=True
    ),
    "region-unusable": Kind(
        "warning", "a region of a VIA file that is no object", DROPPED, "draw or label it again",
        drops=True,
    ),
}  # fmt: skip
