"""Contests to decide: examples by hand, and any that hypothesis thinks of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from segsweep.results.candidates import Candidate, Contest, OperatingPoint
from segsweep.results.wishes import Limit, Wishes

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
UNIT = st.floats(0, 100, width=32)
NAMES = ["site=a", "segm_APs"]


def seeded(*values: float) -> dict[int, float]:
    """Return the values of seeds 0, 1, ..."""
    return dict(enumerate(values))


TASK = Contest(
    "boxes", "AP", "%", True,
    [
        Candidate("Frozen base", False, seeded(20, 20, 20), 0, 0.0, 10.0),
        Candidate("LoRA (r=8)", False, seeded(39.6, 40, 40.4), 1e5, 0.4, 10, {"site=a": 30.0}),
        Candidate("Adapters (I=2)", False, seeded(39.7, 40.1, 40.5), 3e5, 1.2, 12.0),
        Candidate("Full head", True, seeded(44.7, 45, 45.3), 3e6, 12, 10, {"site=a": 50.0}),
    ],
    "m",
)  # fmt: skip


def contest(*values: tuple[float, ...], missing: int = 0, higher: bool = True) -> Contest:
    """Return frozen base, LoRA, adapters and full head with these values; () is not done."""
    names = ("Frozen base", "LoRA (r=4)", "Adapters (I=2)", "Full head")
    found = [
        replace(TASK.candidates[k], name=name, by_seed=seeded(*values[k]), measures={})
        for k, name in enumerate(names)
    ]
    own = [c for c in found if c.values]
    return replace(TASK, candidates=own, missing=missing, higher=higher)


UNSTABLE = contest((), (50, 41, 30), (50.8, 50.9, 51.0), (51.0, 51.2, 51.1))
NOISY = contest((), (30, 30.2, 30.1), (50, 50.2, 20), (51, 51.2, 13.1))
CLOSE = contest((20, 20, 20), (50.1, 50.2, 49.0), (51.0, 50.4, 50.2), (51.5, 51.0, 52.0))
EXAMPLES = [
    TASK,
    contest((), (51.2, 53.4), (52.0, 52.1), (53.0, 53.1)),
    contest((), (48.0, 48.1), (51.2, 53.4), (48.0, 48.2)),
    UNSTABLE,
    NOISY,
    CLOSE,
    contest((0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0)),
    contest((0.01,), (0.01,), (0.05,), (0.02,)),
    contest((), (50.1, 50.4), (), (), missing=3),
    contest((30, 30, 30), (12.2, 12.0, 12.1), (12.9, 12.6, 12.8), (12.0, 12.4, 12.2), higher=False),
]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Contest, Wishes]:
    """Any contest of up to six settings, and any wishes about it."""
    point = st.builds(OperatingPoint, st.floats(0, 1, width=32), UNIT, UNIT)
    near = st.floats(38, 40, width=16)  # so that noise and margins matter
    values = st.lists(UNIT, max_size=4) | st.lists(near, min_size=2, max_size=4)
    one = st.builds(
        Candidate,
        name=st.just(""),
        reference=st.sampled_from([True, False, False, False]),
        by_seed=values.map(lambda values: seeded(*values)),
        trained=UNIT,
        size=UNIT,
        latency=st.none() | UNIT,
        measures=st.dictionaries(st.sampled_from(NAMES), UNIT),
        outcomes=st.lists(st.lists(point, min_size=1, max_size=3), max_size=3),
    )
    found = [replace(c, name=f"s{i}") for i, c in enumerate(draw(st.lists(one, max_size=6)))]
    limit = st.builds(Limit, st.sampled_from(NAMES), st.booleans(), UNIT)
    cost = st.sampled_from([0.0, 1.0, 7.5])
    cap, must = st.none() | UNIT, st.lists(limit, max_size=2)
    margin = st.sampled_from([0.0, 1.0, 5.0, 30.0])
    wishes = st.builds(Wishes, cap, cap, cost, cost, must, margin, st.sampled_from([0.0, 1.0]))
    higher, missing = draw(st.booleans()), draw(st.sampled_from([0, 0, 2]))
    return Contest("t", "AP", "%", higher, found, "m", missing), draw(wishes)


def analysis(recall: float, precision: float, value: float = 30.0) -> dict[str, Any]:
    """What a record says about predictions that find 200 objects at a score of 0.5."""
    hits = round(2 * recall)
    alarms = round(hits * (100 / precision - 1))
    bins = [[0, None, None] for _ in range(10)]
    bins[5], bins[0] = [hits + alarms, 55.0, precision], [100, 5.0, 10.0]
    return {
        "iou": 0.5, "score": 0.5, "images": 50,
        "best": {"score": 0.5, "f1": 50.0, "precision": precision, "recall": recall},
        "recall": {k: {"objects": 200, "found": hits, "recall": recall} for k in ("all", "s")},
        "missed": {"count": 200 - hits, "first": []},
        "errors": {"base": {"AP": 40.0}, "missed": {"dAP": 7.0, "count": 9}},
        "calibration": {"ECE": 5.0, "MCE": 9.0, "predictions": 90, "bins": bins},
        "slices": {"site": {EVIL: {"images": 9, "segm_AP": value, "objects": 9, "found": 3,
                                   "recall": 33.0}}},
    }  # fmt: skip
