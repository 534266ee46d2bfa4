"""One optimizer step and one evaluation of the models of full size, each in a process of its own.

Weights are generated (`model.weights=null`), pictures are scenes of the embedded digits at the
size of the model's input, classes as many as those of COCO and ADE20K; one image, where the recipes
have 16. A step draws and reads its picture, then forward, loss, backward and update; an evaluation
draws another one, finds what is on it and scores that. Weights that have learnt nothing are sure of
nothing, so boxes and masks are taken from any score on: no evaluation has more to do.

CPU time on one thread; memory is the peak of the whole process, Python and torch included.
`python -m benchmarks.large_models model ...` measures some of the models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from time import process_time
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from benchmarks import _sides
from benchmarks.__main__ import markdown
from segsweep.base.config import Config, compose
from segsweep.data.loader import TrainLoader
from segsweep.model.segmenter import Segmenter
from segsweep.peft.apply import apply
from segsweep.run.evaluate import validation
from segsweep.run.module import parameter_groups

BACKBONES = ("dinov2_b", "sam_b", "swin_b")
INSTANCES = ["data=digits", "model.score_threshold=0"]
HEADS = {
    "atss": (80, 1024, INSTANCES),
    "solo": (80, 1024, INSTANCES),
    "segformer": (150, 512, ["data=digits_semantic"]),
}
"""By the head: classes, height and width of the input, and words."""
CASES = {f"{backbone}_{head}": case for head, case in HEADS.items() for backbone in BACKBONES} | {
    "vit_h_atss": (80, 512, INSTANCES),
    "sam_h": (1, 512, ["data=digits_binary"]),
}
METHODS = ["vfm_adapter", "full_ft"]


def run(word: str, method: str) -> dict[str, Any]:
    """Measure a model and a method in this process."""
    classes, side, words = CASES[word]
    sizes = [f"data.side={side}", f"data.size=[{side},{side}]", "data.train=1", "data.val=1"]
    ours = [f"model={word}", f"peft={method}", "model.weights=null", "hparams.batch_size=1"]
    config = compose([*ours, *words, *sizes])
    config.data.classes = lambda: [f"class {number}" for number in range(classes)]
    torch.manual_seed(config.seed)
    model = config.model.build(config.data.subject())
    counts = apply(model, config.peft, config.model.roles)
    step = seconds(lambda: stepped(config, model.train()))
    evaluation = seconds(lambda: evaluated(config, model.eval()))
    return {
        "model": word,
        "method": method,
        "input": f"{side} x {side}",
        "parameters": f"{counts.total:,}",
        "trained": f"{counts.trainable:,}",
        "step s": step,
        "evaluation s": evaluation,
        "peak MiB": _sides.memory("VmHWM"),
    }


def seconds(work: Callable[[], None]) -> float:
    """Return the CPU seconds of some work."""
    start = process_time()
    work()
    return process_time() - start


def stepped(config: Config, model: Segmenter) -> None:
    """Take one optimizer step of the config's recipe on its first batch."""
    batch = next(TrainLoader(config.data, config.hparams.batch_size, seed=0).batches(0))
    groups = parameter_groups(model, config.hparams, config.model.roles)
    optimizer = torch.optim.AdamW(groups)
    with parametrize.cached():
        loss = model.loss(model(batch.images, batch.targets), batch.targets)["loss"]
    loss.backward()
    if config.hparams.clip:
        nn.utils.clip_grad_norm_(model.parameters(), config.hparams.clip)
    optimizer.step()


def evaluated(config: Config, model: Segmenter) -> None:
    """Evaluate on the validation picture."""
    evaluator = config.metrics.evaluator(config.data, "val")
    for batch in validation(config):
        evaluator.update(batch, model.find(batch))
    evaluator.compute()


def rows(words: Iterable[str] = CASES) -> Iterable[dict[str, Any]]:
    """Yield a row for each model and method."""
    for word in words:
        for method in METHODS:
            yield _sides.in_process("benchmarks.large_models", word, method)


if __name__ == "__main__":
    match sys.argv[1:]:
        case [word, method] if method in METHODS:
            print(json.dumps(run(word, method)))
        case words:
            print(markdown(rows(words or CASES)))
