"""TIDE (Bolya 2020) by plain loops over pairs, which the analysis is compared with."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hotcoco import mask

BACKGROUND_IOU = 0.1
Entry = dict[str, Any]
Scored = tuple[int, float, bool]  # class, score, right


def average_precision(rows: list[tuple[float, bool]], objects: int) -> float:
    """COCO's: interpolated precision, the mean over 101 recalls."""
    rows = sorted(rows, key=lambda row: -row[0])
    right = np.cumsum([row[1] for row in rows])
    precision = right / np.arange(1, len(rows) + 1)
    recall = right / max(objects, 1)
    points = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, 101)]
    return 100 * float(np.mean(points))


def judge(objects: list[Entry], found: list[Entry], iou_of: np.ndarray, iou: float) -> None:
    """Say of each prediction of an image whether it is right, else its error (section 2.2).

    Objects that are crowds count neither way. (predictions best first, objects)
    """
    for i, guess in enumerate(found):
        free = [
            j for j, o in enumerate(objects)
            if o["category_id"] == guess["category_id"] and iou_of[i, j] >= iou
        ]  # fmt: skip
        fresh = [j for j in free if not objects[j]["iscrowd"] and not objects[j]["found"]]
        guess["error"] = guess["cause"] = None
        if fresh:
            objects[max(fresh, key=lambda j: iou_of[i, j])]["found"] = True
        elif any(objects[j]["iscrowd"] for j in free):
            guess["error"] = "ignored"
        else:
            guess["error"] = "false"
    real = [j for j, o in enumerate(objects) if not o["iscrowd"]]
    for i, guess in enumerate(found):
        if guess["error"] != "false":
            continue
        own = [j for j in real if objects[j]["category_id"] == guess["category_id"]]
        other = [j for j in real if j not in own]
        best, wrong = (max(js, key=lambda j: iou_of[i, j], default=None) for js in (own, other))
        own_iou = 0.0 if best is None else iou_of[i, best]
        other_iou = 0.0 if wrong is None else iou_of[i, wrong]
        if BACKGROUND_IOU <= own_iou < iou:
            guess["error"], guess["cause"] = "localisation", objects[best]
        elif other_iou >= iou:
            guess["error"], guess["cause"] = "classification", objects[wrong]
        elif own_iou >= iou:
            guess["error"] = "duplicate"
        else:
            guess["error"] = "background" if other_iou <= BACKGROUND_IOU else "both"
        if guess["cause"] is not None:
            guess["cause"]["covered"] = True


def tide(images: list[tuple[list[Entry], list[Entry]]], iou: float = 0.5) -> dict[str, Any]:
    """Errors of (objects, predictions) of each image, as `Matches.errors` gives them."""
    objects: list[Entry] = []
    found: list[Entry] = []
    for truth, guesses in images:
        truth = [{**o, "found": False, "covered": False} for o in truth]
        guesses = [dict(g) for g in sorted(guesses, key=lambda g: -g["score"])]
        codes = [[e["segmentation"] for e in entries] for entries in (guesses, truth)]
        crowd = [bool(o["iscrowd"]) for o in truth]
        shape = len(guesses), len(truth)
        judge(truth, guesses, np.reshape(mask.iou(*codes, crowd), shape), iou)
        objects += [o for o in truth if not o["iscrowd"]]
        found += [g for g in guesses if g["error"] != "ignored"]

    def mean_ap(rows: list[Scored], kept: list[Entry]) -> float:
        classes = {o["category_id"] for o in objects}
        per_class = [
            average_precision(
                [(s, r) for c, s, r in rows if c == k], sum(o["category_id"] == k for o in kept)
            )
            for k in classes
        ]
        return float(np.mean(per_class))

    def without(*errors: str) -> list[Scored]:
        return [
            (g["category_id"], g["score"], not g["error"])
            for g in found
            if g["error"] not in errors
        ]

    def repaired(error: str) -> list[Scored]:
        """The best of those that miss the same object becomes right, the others go."""
        best: dict[int, Entry] = {}
        for guess in (g for g in found if g["error"] == error and not g["cause"]["found"]):
            known = best.get(id(guess["cause"]))
            if known is None or guess["score"] > known["score"]:
                best[id(guess["cause"])] = guess
        rows = []
        for g in found:
            if g["error"] != error:
                rows.append((g["category_id"], g["score"], not g["error"]))
            elif g["cause"] is not None and best.get(id(g["cause"])) is g:
                rows.append((g["cause"]["category_id"], g["score"], True))
        return rows

    missed = [o for o in objects if not o["found"] and not o["covered"]]
    base = mean_ap(without(), objects)
    count = Counter(g["error"] for g in found)
    gains = {
        **{
            error: mean_ap(repaired(error), objects) for error in ("classification", "localisation")
        },
        **{
            error: mean_ap(without(error), objects) for error in ("both", "duplicate", "background")
        },
        "missed": mean_ap(without(), [o for o in objects if o["found"] or o["covered"]]),
    }
    count["missed"] = len(missed)
    right = [row for row in without() if row[2]]
    return {
        "base": {"AP": base},
        **{error: {"dAP": ap - base, "count": count[error]} for error, ap in gains.items()},
        "false_positives": {"dAP": mean_ap(right, objects) - base},
        "false_negatives": {"dAP": mean_ap(without(), [o for o in objects if o["found"]]) - base},
    }
