"""A step of training of each run of a pack, beside a run alone and one with kept features.

Runs differ in their learning rate. They train as `hydra.launcher.pack` has them trained, on scenes
of the embedded digits which `data.transform=lsj` shows otherwise each time, so that no features can
be kept; `kept` are those of `data.transform=squash`, all of them there. A step goes from a batch
to the next, loading included. CPU time on one thread; memory is that of the whole process. Weights
of large models are random.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from statistics import median
from typing import Any

from benchmarks import _sides
from segsweep.base.config import compose
from segsweep.run.identity import Run
from segsweep.run.module import Module
from segsweep.run.pack import train_pack
from segsweep.story import train

SIDES = {"1 run": 1, "4 in turns": 4, "12 in turns": 12, "1 run, kept": 0}
LAST = "[backbone.blocks.{}.attn.qkv.weight]"
SAM_B = [
    "model=sam_b", "model.weights=null", "model.input=[256,256]", "data=digits_binary",
    "data.side=256", "data.size=[256,256]", "hparams.batch_size=2",
]  # fmt: skip
CASES = {
    "seem_tiny, LoRA, 8 x 128 x 128": ["model=seem_tiny", "peft=lora", "hparams.batch_size=8"],
    "sam_tiny, LoRA in the last block, 8 x 128 x 128": [
        "model=sam_tiny", "data=digits_binary", "peft=lora", "hparams.batch_size=8",
        f"peft.targets={LAST.format(3)}",
    ],
    "sam_tiny, full head, 8 x 128 x 128": [
        "model=sam_tiny", "data=digits_binary", "peft=full_head", "hparams.batch_size=8",
    ],
    "sam_b, LoRA in the last 3 blocks, 2 x 256 x 256": [
        *SAM_B, "peft=lora",
        "peft.targets=[" + ",".join(LAST.format(i)[1:-1] for i in (9, 10, 11)) + "]",
    ],
    "seem_focall, LoRA, 1 x 256 x 256": [
        "model=seem_focall", "model.weights=null", "peft=lora", "data.side=256",
        "data.size=[256,256]", "hparams.batch_size=1",
    ],
}  # fmt: skip
STEPS, EPOCHS = 4, 8


def run(case: str, side: str) -> dict[str, Any]:
    """Return milliseconds of a step of each run, and peak memory."""
    runs, stamps = SIDES[side], []
    begin = Module.on_train_batch_start

    def stamped(self: Module, *arguments: Any) -> None:
        stamps.append(time.process_time())
        begin(self, *arguments)

    Module.on_train_batch_start = stamped  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        words = [*CASES[case], f"io.results={folder}", "data.val=1", "trainer.accelerator=cpu"]
        size = int(next(word for word in words if "batch_size" in word).partition("=")[2])
        epochs, steps = (1, STEPS) if runs else (EPOCHS, 2)
        words += [f"data.train={size * steps}", f"hparams.epochs={epochs}", "io.progress=false"]
        words += [f"trainer.validate_every={epochs}", "io.predictions=false"]
        words += ["data.transform=lsj"] if runs else ["trainer.cache_features=memory"]
        lrs = [f"hparams.lr={1e-4 * (i + 1)}" for i in range(max(1, runs))]
        if not train_pack([Run(compose([*words, lr])) for lr in lrs], train):
            raise RuntimeError(f"{case}: a run failed")
    if runs:  # rounds but the first, which warms up
        rounds = zip(stamps[runs::runs], stamps[2 * runs :: runs], strict=False)
        ms = [1e3 * (b - a) / runs for a, b in rounds]
    else:  # the second steps of the later epochs, which have seen most images both ways
        ms = [1e3 * (b - a) for a, b in zip(stamps[8::2], stamps[9::2], strict=True)]
    return {"ms": median(ms), "mib": _sides.memory("VmHWM")}


def rows(cases: list[str] = list(CASES)[:3]) -> list[dict[str, Any]]:
    """Return the tiny models; name others on the command line, by their beginning."""
    table = []
    for case in cases:
        sides = {side: _sides.in_process("benchmarks.packs", case, side) for side in SIDES}
        for side, got in sides.items():
            ratio = got["ms"] / sides["1 run"]["ms"]
            row = {"case": case, "side": side, "step ms": got["ms"], "to 1 run": ratio}
            table.append(row | {"MiB": got["mib"]})
    return table


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(run(*sys.argv[1:])))
    else:
        named = [case for case in CASES if any(case.startswith(word) for word in sys.argv[1:])]
        print(_sides.markdown(rows(named or list(CASES)[:3])))
