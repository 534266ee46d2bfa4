"""Whole programs: images per second beside Mask2Former, runs that share a GPU, SAM ViT-H."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks._gpu.parts import Scale, Step, attempted, measured, tf32
from segsweep.base.config import compose
from segsweep.data.loader import TrainLoader
from segsweep.peft.apply import apply
from segsweep.run.module import parameter_groups


def throughput(scale: Scale) -> Iterator[dict[str, Any]]:
    """Images per second of training all weights, and of evaluation from pixels to masks.

    Mask2Former is transformers' own code; it has a third of the queries and no denoising. TF32.
    """
    tf32(True)
    for name, program in (("segsweep", _ours), ("transformers Mask2Former", _theirs)):

        def row(program: Callable[..., Any] = program) -> dict[str, Any]:
            training, evaluation = program(scale)
            row: dict[str, Any] = {}
            for part, call in (("training", training), ("evaluation", evaluation)):
                figures = measured(call, scale)
                row[part] = {"images/s": 1e3 * scale.images / figures.pop("ms")} | figures
            return row

        yield {"program": name} | attempted(row)


def _ours(scale: Scale) -> tuple[Callable[[], object], Callable[[], object]]:
    """A training step, and an evaluation."""
    step = Step(scale, scale.model, "full_ft")
    step.model.sem_seg_head.only_pixels()
    size = (scale.side, scale.side)

    @torch.no_grad()
    def evaluation() -> None:
        step.model.eval()
        step.model.predict(step.model(step.images), [(size, size, size)] * scale.images)
        step.model.train()

    return step, evaluation


def _theirs(scale: Scale) -> tuple[Callable[[], object], Callable[[], object]]:
    """The same of Mask2Former with ResNet-50, of transformers, with random weights."""
    import transformers as tf

    stages = ["stage1", "stage2", "stage3", "stage4"]
    small: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [16] * 4, "depths": [1] * 4}
    thin = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_queries": 10}
    narrow = thin | {"train_num_points": 64, "encoder_layers": 1, "decoder_layers": 2}
    backbone = tf.ResNetConfig(out_features=stages, **({} if scale.full else small))
    config = tf.Mask2FormerConfig(
        backbone_config=backbone, num_labels=80, **({} if scale.full else narrow)
    )
    model: Any = tf.Mask2FormerForUniversalSegmentation(config)
    model.to(scale.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    inputs = Step(scale, "maskdino_tiny")  # for its images and targets
    truth = {
        "mask_labels": [target.masks.float() for target in inputs.targets],
        "class_labels": [target.labels for target in inputs.targets],
    }
    read = tf.Mask2FormerImageProcessor(num_labels=80).post_process_instance_segmentation
    sizes = [(scale.side, scale.side)] * scale.images

    def training() -> None:
        optimizer.zero_grad()
        loss: Tensor = model(pixel_values=inputs.images, **truth).loss
        loss.sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    @torch.no_grad()
    def evaluation() -> None:
        model.eval()
        read(model(pixel_values=inputs.images), threshold=0.0, target_sizes=sizes)
        model.train()

    return training, evaluation


def jobs(scale: Scale) -> Iterator[dict[str, Any]]:
    """Seconds of four short runs of the tiny model on one GPU, so many of them at once."""
    for number in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "model=maskdino_tiny", "peft=lora", "trainer=gpu", "data.train=64"]
            words += ["data.val=8", "hparams.epochs=2", "seed=0,1,2,3", f"io.results={folder}"]
            command = [sys.executable, "-m", "segsweep", *words]
            start = time.monotonic()
            options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
            ended = subprocess.run([*command, f"hydra.launcher.jobs_per_gpu={number}"], **options)
            row = {"jobs_per_gpu": number, "seconds": time.monotonic() - start}
            yield row | ({"error": ended.stderr[-300:]} if ended.returncode else {})


def sam(scale: Scale) -> Iterator[dict[str, Any]]:
    """A step of Conv-LoRA in SAM's ViT-H, one image of 1024 x 1024 with its label map."""
    word, side = ("sam_h", 1024) if scale.full else ("sam_tiny", 128)
    sizes = [f"data.side={side}", f"data.size=[{side},{side}]", "data.train=1", "data.val=1"]
    words = [f"model={word}", "peft=conv_lora", "model.weights=null", "data=digits_binary", *sizes]
    config = compose([*words, "hparams.batch_size=1"])
    torch.manual_seed(0)
    model = config.model.build(config.data.subject())
    counts = apply(model, config.peft, config.model.roles)
    model.to(scale.device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config.hparams, config.model.roles))
    batch = next(TrainLoader(config.data, 1, seed=0).batches(0)).to(scale.device)

    def once() -> None:
        optimizer.zero_grad()
        with parametrize.cached():
            loss = model.loss(model(batch.images, batch.targets), batch.targets)["loss"]
        loss.backward()
        optimizer.step()

    def row(half: bool) -> dict[str, Any]:
        with torch.autocast(scale.device.type, torch.bfloat16, enabled=half):
            return measured(once, scale)

    tf32(True)
    for half in (True, False) if scale.cuda else (False,):
        head = {"model": word, "precision": "bf16" if half else "fp32", "trained": counts.trainable}
        yield head | attempted(lambda half=half: row(half))
