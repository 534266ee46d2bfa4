"""A run as a program that needs no segsweep: torch.export, or ONNX.

Weights are merged, classes and input size are fixed. A program is kept only if it gives the outputs
of the run, each within ABSOLUTE + RELATIVE times its largest value, in an order that is free where
the head says so (`Head.aligned`).
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.files import write_json

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

    from segsweep.run.restore import Restored

    Program = Callable[[Tensor], dict[str, Tensor]]

RELATIVE, ABSOLUTE = 1e-4, 1e-5
IMAGES = 3
INPUT = "images"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TALK = ("torch.onnx", "torch._export", "torch.export", "onnxscript", "onnx_ir")  # loggers


def check(kind: str) -> None:
    """Raise UserError where packages are missing that a program of this kind needs."""
    missing = [name for name in NEEDED if find_spec(name) is None] if kind == "onnx" else []
    if missing:
        raise UserError(
            f"format=onnx needs {', '.join(missing)}, not installed here: pip install "
            "'segsweep[export]'; format=torch_export needs nothing more"
        )


def write(restored: Restored, folder: Path, kind: str, batch: int) -> list[str]:
    """Write a program and what one must know to use it into a folder; return what there is to say.

    The model of `restored` is changed. Raises UserError where the model cannot be traced, or where
    the written program gives other outputs.
    """
    from segsweep.exporting.inference import (
        Inference,
        differences,
        examples,
        in_words,
        outputs,
    )
    from segsweep.peft.apply import merge

    data, model = restored.config.data, restored.model.requires_grad_(False)
    images, source = examples(data, max(IMAGES, batch))
    images = images[: len(images) // batch * batch]
    if not len(images):
        raise UserError(f"batch={batch}: data={data.name} has fewer validation images to compare")
    wanted = outputs(Inference(model, data), images, batch)  # of the run as it was trained
    merge(model)
    model.sem_seg_head.fix_texts()
    with quiet():
        exported = traced(Inference(model, data).eval(), images[:batch])
        program = (onnx if kind == "onnx" else torch_export)(exported, folder, list(wanted))
    given = model.sem_seg_head.aligned(outputs(program, images, batch), wanted)
    gaps = differences(given, wanted)
    allowed = {n: ABSOLUTE + RELATIVE * float(t.abs().max()) for n, t in wanted.items()}
    if not all(gaps[name] <= allowed[name] for name in allowed):  # nor where one is no number
        raise UserError(
            f"{restored.directory}: the program gives other outputs than the run, {in_words(gaps)} "
            f"where {in_words(allowed)} is allowed ({source}); nothing was written"
        )
    shapes = {INPUT: images[:batch]} | {name: t[:batch] for name, t in wanted.items()}
    write_json(folder / "model.json", described(restored, shapes, gaps))
    limits = f"{in_words(gaps)}; allowed {in_words(allowed)}"
    return [f"  differs from the run by at most {limits} ({source})"]


def traced(inference: Any, images: Tensor) -> ExportedProgram:
    """Trace a program for images of this shape. Raises UserError where that is not possible."""
    import torch

    try:
        with torch.no_grad():
            return torch.export.export(inference, (images,), strict=False)
    except Exception as error:  # what a backbone of one's own may stumble over is not listed
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torch.export cannot trace this model ({reason})") from error


def torch_export(exported: ExportedProgram, folder: Path, names: list[str]) -> Program:
    """Save `model.pt2`; return the program that was read back."""
    import torch

    plain = exported.run_decompositions({})  # autocast blocks, off as they are, cannot be saved
    torch.export.save(plain, folder / "model.pt2")
    return torch.export.load(folder / "model.pt2").module()


def onnx(exported: ExportedProgram, folder: Path, names: list[str]) -> Program:
    """Save `model.onnx`; return what onnxruntime computes with it."""
    import onnxruntime
    import torch

    from segsweep.exporting.operators import TRANSLATIONS

    onnx_program = torch.onnx.export(
        exported,
        dynamo=True,
        input_names=[INPUT],
        output_names=names,
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    assert onnx_program is not None
    onnx_program.save(folder / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )

    def run(images: Tensor) -> dict[str, Tensor]:
        arrays = session.run(names, {INPUT: images.numpy()})
        return {name: torch.as_tensor(array) for name, array in zip(names, arrays, strict=True)}

    return run


def described(
    restored: Restored, tensors: dict[str, Tensor], gaps: dict[str, float]
) -> dict[str, Any]:
    """Return what one must know to use a program: classes, input, outputs."""
    from segsweep.exporting.labels import facts, labels

    data = restored.config.data
    size = data.transform.value.in_words(data.size)
    means = {
        INPUT: f"RGB pixels 0..255; resized to {size}, {data.resample.name} with antialias; "
        f"at the top left, the rest filled with {data.mean}",
        **restored.model.sem_seg_head.meanings,
    }
    described = [
        {"name": n, "shape": list(t.shape), "type": "float32", "meaning": means[n]}
        for n, t in tensors.items()
    ]
    return {
        **facts(restored.record),
        "classes": labels(restored.record),
        "input": described[0],
        "outputs": described[1:],
        "differences": gaps,
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what exporters tell of their work; their errors stay."""
    loggers = [logging.getLogger(name) for name in TALK]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
