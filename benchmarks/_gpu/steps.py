"""Training steps by precision, plain and compiled; what makes the host wait in the loss."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks._gpu.parts import Scale, Step, attempted, measured, tf32

HEADS = ("maskdino_tiny", "seem_tiny", "vit_tiny_atss", "vit_tiny_solo")


def steps(scale: Scale) -> Iterator[dict[str, Any]]:
    """A step of LoRA in fp32, TF32 and bf16: plain first, then compiled."""
    step = Step(scale, scale.model)
    for compiled in (False, True) if scale.cuda else (False,):
        for precision in ("bf16", "tf32", "fp32") if scale.cuda else ("fp32",):
            tf32(precision == "tf32")

            def row(compiled: bool = compiled, precision: str = precision) -> dict[str, Any]:
                with torch.autocast(scale.device.type, torch.bfloat16, precision == "bf16"):
                    return _compiled(step, scale) if compiled else measured(step, scale)

            head = {"precision": precision, "compiled": compiled}
            yield head | attempted(row)
    if not scale.cuda:
        yield {"skipped": "compiled: takes minutes of a CPU"}


def _compiled(step: Step, scale: Scale) -> dict[str, Any]:
    """The same with the forward of the model compiled, and why its graph breaks."""
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    model: Any = torch.compile(step.model)
    row = measured(lambda: step(model), scale)
    breaks = {reason.partition("\n")[0]: n for reason, n in counters["graph_break"].items()}
    return row | {"graphs": counters["stats"]["unique_graphs"], "breaks": breaks}


def waits(scale: Scale) -> Iterator[dict[str, Any]]:
    """Operations whose result, or its size, the host must know: of forward and loss.

    The transfer of the matcher's costs is one more; no CPU shows it.
    """
    for word in HEADS:
        step = Step(scale, word, side=128)

        def row(step: Step = step) -> dict[str, Any]:
            with Asked() as forward:
                output = step.model(step.images, step.targets)
            with Asked() as loss:
                step.model.loss(output, step.targets)
            found: dict[str, Any] = {"forward": dict(forward.counts), "loss": dict(loss.counts)}
            return found | {"waited": _waited(step)} if scale.cuda else found

        yield {"model": word} | attempted(row)


class Asked(TorchDispatchMode):
    """Counts operations that ask a device for a value or for how many of them there are."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim")

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.counts[name] += 1
        elif name in ("index", "index_put", "index_put_"):
            places = [place for place in args[1] if isinstance(place, Tensor)]
            if any(place.dtype == torch.bool for place in places):
                self.counts["mask as index"] += 1
        return func(*args, **(kwargs or {}))


def _waited(step: Step) -> dict[str, int]:
    """Where CUDA says that the host waits, by line, for forward and loss."""
    torch.set_warn_always(True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        output = step.model(step.images, step.targets)
        torch.cuda.set_sync_debug_mode("warn")
        step.model.loss(output, step.targets)
        torch.cuda.set_sync_debug_mode("default")
    torch.set_warn_always(False)
    return dict(Counter(f"{Path(one.filename).name}:{one.lineno}" for one in caught))
