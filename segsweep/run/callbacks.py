"""What happens beside training: the curve, the best weights, checkpoints, stopping, progress."""

from __future__ import annotations

import json
import time
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor, nn

from segsweep.base.config import Config
from segsweep.base.errors import UserError
from segsweep.base.signals import Stopped, wish
from segsweep.peft.delta import delta_state_dict
from segsweep.run.folder import CHECKPOINT, CURVE
from segsweep.run.identity import Run

NEVER = 2**62  # epochs between two validations


class Curve(pl.Callback):
    """`metrics.jsonl`: one flushed line per log. wandb and TensorBoard are views of it."""

    def __init__(self, run: Run, per_epoch: int) -> None:
        self.run, self.per_epoch = run, per_epoch
        self.path = run.directory / CURVE
        self.file: TextIO | None = None  # open on rank 0 while training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Cut what an interrupted run logged past its checkpoint, then open the file and views."""
        if not trainer.is_global_zero:
            return
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        valid = [x for x in lines if _whole(x) and json.loads(x)["step"] <= trainer.global_step]
        self.run.write(CURVE, "".join(f"{line}\n" for line in valid).encode())
        self.file = self.path.open("a", encoding="utf-8")
        self.view = self.run.config.logger.open(self.run)

    def write(self, step: int, **values: Any) -> None:
        """Write one line."""
        if self.file is None:
            return
        line = {"step": step, "epoch": round(step / self.per_epoch, 3), "time": time.time()}
        line |= {key: value for key, value in values.items() if value is not None}
        self.run.check()
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.view.log(line)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the losses of every `io.log_every`-th step and of the first."""
        step = trainer.global_step
        if step == 1 or step % self.run.config.io.log_every == 0:
            losses = {key: round(float(value), 6) for key, value in outputs.items()}
            self.write(step, lr=trainer.optimizers[0].param_groups[0]["lr"], **losses)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Close file and views, also after an error."""
        if self.file is not None:
            self.file.close()
            self.view.close()
            self.file = None


def _whole(line: str) -> bool:
    try:
        return "step" in json.loads(line)
    except ValueError:
        return False


class Best(pl.Callback):
    """Says when to validate, remembers the trained tensors of the best, stops when patience ends.

    Validations are `trainer.validate_every` epochs apart, counted back from the last epoch: what
    training ends with is always validated.
    """

    def __init__(self, config: Config, curve: Curve) -> None:
        self.config, self.curve, self.metric = config, curve, config.metrics
        self.record: dict[str, Any] | None = None  # epoch, step and value of the best validation
        self.weights: dict[str, Tensor] = {}
        self.values: dict[str, float | None] = {}  # of the last validation
        self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must know."""
        return {"record": self.record, "weights": self.weights, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where an interrupted run stopped. Raises UserError for an earlier version's."""
        if "weights" not in state_dict:
            last = self.curve.run.directory / CHECKPOINT
            raise UserError(f"{last} is of an earlier version; delete it to begin the run again")
        self.record, self.weights = state_dict["record"], state_dict["weights"]
        self.waited = state_dict["waited"]

    @property
    def exhausted(self) -> bool:
        """Whether patience has ended."""
        patience = self.config.hparams.patience
        return patience is not None and self.waited >= patience

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further where patience ended before an interruption."""
        trainer.should_stop = self.exhausted

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let Lightning validate at the end of this epoch or not."""
        epochs_left = (pl_module.total_steps - trainer.global_step) // self.curve.per_epoch
        due = epochs_left % self.config.trainer.validate_every == 0
        trainer.check_val_every_n_epoch = 1 if due else NEVER

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Log the metrics, remember the best weights, stop when patience ends."""
        self.values = pl_module.evaluator.compute()
        step, value = trainer.global_step, self.values[self.metric.key]
        self.curve.write(step, **self.values)
        self.waited += 1
        if self.better(value):
            self.keep(pl_module.model, step, value)
            self.waited = 0
        trainer.should_stop = self.exhausted

    def better(self, value: float | None) -> bool:
        """Say whether a value is the best so far; the first one is, even if it is not defined."""
        if self.record is None or value is None:
            return self.record is None
        best, direction = self.record["value"], self.metric.names()[self.metric.key][1]
        return best is None or (value > best if direction == "higher" else value < best)

    def keep(self, model: nn.Module, step: int, value: float | None) -> None:
        """Remember the weights that the model has now."""
        self.record = {"epoch": step // self.curve.per_epoch, "step": step, "value": value}
        self.weights = {name: t.cpu().clone() for name, t in delta_state_dict(model).items()}


class Checkpoint(pl.Callback):
    """`last.ckpt`: after every epoch's validation, and every `save_every` steps inside an epoch."""

    def __init__(self, run: Run, per_epoch: int, save_every: int) -> None:
        self.run, self.per_epoch, self.save_every = run, per_epoch, save_every

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint atomically (every rank calls, rank 0 writes)."""
        if trainer.is_global_zero:
            with self.run.writing(CHECKPOINT) as path:
                trainer.save_checkpoint(path)
        else:
            trainer.save_checkpoint(self.run.directory / CHECKPOINT)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save inside an epoch; its last step is saved after validation."""
        step = trainer.global_step
        if step % self.save_every == 0 and step % self.per_epoch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch's validation."""
        self.save(trainer)


class Stop(pl.Callback):
    """Stops between two batches, with a checkpoint, when the process is told to by a signal."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a signal waits for the end of its batch; Lightning's handlers go."""
        wish.train()
        self.stop(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop inside an epoch; its last step is saved after validation."""
        if trainer.global_step % self.checkpoint.per_epoch:
            self.stop(trainer, save=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop after the epoch's checkpoint."""
        self.stop(trainer)

    def stop(self, trainer: pl.Trainer, save: bool = False) -> None:
        """Stop if any process that trains this run was told to: all at the same step."""
        signum = wish.asked or 0
        if trainer.world_size > 1:
            signal_number = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(signal_number, reduce_op="max"))
        if signum:
            if save:
                self.checkpoint.save(trainer)
            raise Stopped(signum)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """From here on a signal stops at once."""
        wish.training = False


class Progress(pl.Callback):
    """One line that moves on a terminal; one line per epoch elsewhere."""

    def __init__(self, config: Config, per_epoch: int, best: Best) -> None:
        self.config, self.per_epoch, self.best = config, per_epoch, best
        self.console = Console(highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}"))
        self.bar = Bar(
            *columns,
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (config.io.progress and self.console.is_terminal),
        )

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the bar."""
        total = pl_module.total_steps
        self.task = self.bar.add_task("train", total=total, now="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if not self.bar.disable:
            now = f"epoch {trainer.global_step // self.per_epoch}/{self.config.hparams.epochs}"
            now += f"  loss {float(outputs['loss']):.2f}{self.score()}"
            self.bar.update(self.task, completed=trainer.global_step, now=now)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a line where there is no terminal."""
        if self.bar.disable and self.config.io.progress and trainer.is_global_zero:
            epoch = trainer.global_step // self.per_epoch
            print(f"  epoch {epoch}/{self.config.hparams.epochs}{self.score()}", flush=True)

    def score(self) -> str:
        """Return the metric of the last validation."""
        value = self.best.values.get(self.best.metric.key)
        return f"  {self.best.metric.key} {value:.2f}" if value is not None else ""

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Take the bar away."""
        self.bar.stop()
