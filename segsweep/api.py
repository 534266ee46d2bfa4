"""segsweep from Python, as in a notebook: what the command line does, in four functions.

    import segsweep

    run = segsweep.train("peft=lora", "peft.rank=4")
    run.metrics["segm_AP"]
    table = segsweep.sweep(["peft=lora", "peft.rank=2,4", "seed=0,1"])
    table = segsweep.runs()
    model = segsweep.load(run)
    model.predict("pictures")

Words are those of the command line; they are checked before anything is trained, and what is done
already is not done again. Mistakes are a `segsweep.base.errors.UserError`, in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError
from segsweep.base.files import read_json
from segsweep.base.remarks import plainly

if TYPE_CHECKING:
    import pandas as pd

    from segsweep.model.found import Instances, PictureClass, SemanticMap
    from segsweep.run.restore import Restored

RESULTS = Path("results")


@dataclass(frozen=True)
class TrainedRun:
    """A run that was trained and evaluated, by its folder."""

    directory: Path

    @property
    def name(self) -> str:
        """`<model>-<peft>-<data>-<key>`."""
        return self.directory.name

    @cached_property
    def record(self) -> dict[str, Any]:
        """All that is recorded of it (docs/configuration.md)."""
        return read_json(self.directory / "record.json") or {}

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics of its evaluation by name, None where one is not defined."""
        return {name: metric["value"] for name, metric in self.record["metrics"].items()}


@dataclass(frozen=True)
class TrainedModel:
    """The model of a finished run, in evaluation mode."""

    restored: Restored

    @property
    def classes(self) -> list[str]:
        """Names of its classes: `labels` and label maps count them from 0."""
        return self.restored.record["data"]["classes"]

    @cached_property
    def threshold(self) -> float:
        """The score of the best F1 on its validation images, 0.5 where none was measured."""
        from segsweep.analysis.study import threshold

        return threshold(self.restored.directory, self.restored.config, self.restored.record)[0]

    @plainly()
    def predict(
        self,
        pictures: str | Path | Sequence[str | Path],
        threshold: float | None = None,
        every: int = 1,
    ) -> dict[Path, Instances | SemanticMap | PictureClass]:
        """Return what is found on each picture, at its own size.

        Args:
            pictures: a folder, file, pattern (`"a/*.jpg"`) or address, or several of them.
            threshold: least score of an object; default: `self.threshold`.
            every: of a video each so many-th picture counts; they are all held in memory.

        Files that are no pictures are told of and left out. Pictures of a video go by its path and
        their place, `clip.mp4#12`; those of addresses by their name.

        Returns:
            By path, `scores` (M,), `labels` (M,), `boxes` (M, 4) x1 y1 x2 y2, `masks` (M, H, W) of
            objects (None where the model finds boxes alone); or of a label map `classes` and their
            `scores`, both (H, W); or of a picture as a whole its `best` class and score.

        Raises:
            UserError: there is no such file, or none is a picture.
        """
        from segsweep.data.folder import Folder
        from segsweep.data.inputs import find
        from segsweep.run.evaluate import predict_shots

        places = [pictures] if isinstance(pictures, str | Path) else pictures
        config, least = self.restored.config, self.threshold if threshold is None else threshold
        found: dict[Path, Any] = {}
        with TemporaryDirectory() as out:
            files = find([str(place) for place in places], Path(out)).files
            levels, batch_size = self.restored.levels, config.hparams.images_at_once
            folder = Folder(files, config.data, batch_size, levels=levels, every=every)
            for shot, result in predict_shots(config, self.restored.model, folder, least):
                fetched = shot.file.path.is_relative_to(out)
                path = Path(shot.name) if fetched else shot.path
                found[path] = result.above(least)
        for path, reason in folder.skipped.items():
            print(f"skipped {path}: {reason}")
        if not found:
            raise UserError(f"{pictures}: none of {len(files)} files is a picture")
        return found


@plainly()
def train(*words: str) -> TrainedRun:
    """Train and evaluate one run, unless it is done already: `train("peft=lora", "seed=1")`.

    Raises UserError for words that mean nothing, and for several values of a key (`sweep`).
    """
    from segsweep.base.config import compose
    from segsweep.base.explain import explained
    from segsweep.run.identity import Run
    from segsweep.verbs.train import launch

    with explained():
        run = Run(compose(list(words)))
    launch(run)
    return TrainedRun(run.directory)


@plainly()
def sweep(words: Sequence[str], workers: int | None = None) -> pd.DataFrame:
    """Train all runs of a sweep on this machine; return those that are done, a row each.

    Combinations whose words cannot go together are left out; the reason is printed.

    Args:
        words: as behind `-m`: `["peft=lora", "peft.rank=2,4"]`, `["+sweep=demo", "seed=0,1"]`.
        workers: runs at once on the CPU; default: one per core, at most 8.

    Raises:
        UserError: words mean nothing, or runs failed; the same call tries these again.
    """
    import pandas as pd

    from segsweep.run.identity import State
    from segsweep.story import all_ready
    from segsweep.sweeps.board import last_words
    from segsweep.sweeps.local import Local, train_all
    from segsweep.sweeps.names import remember_launch
    from segsweep.sweeps.plan import composed
    from segsweep.sweeps.plan_lines import unfitting

    hydra_config, plan = composed(words, fetch=True)
    faults = [(entry.words, f) for entry in plan for f in (*entry.faults, *entry.missing)]
    if lines := dict.fromkeys(f"{' '.join(words)}: {fault}" for words, fault in faults):
        raise UserError("\n  ".join(["nothing was started:", *lines]))
    for line in unfitting(plan):
        print(line)
    labels = {entry.run: " ".join(entry.words) for entry in plan if entry.run and not entry.same}
    todo = {run: label for run, label in labels.items() if not run.finished()}
    all_ready(run.config for run in todo)
    jobs = [(entry.words, entry.run) for entry in plan if entry.run]
    remember_launch(jobs, hydra_config.hydra.runtime.choices.get("sweep"))
    ended = train_all(todo, Local(workers)) if todo else {}
    failed = [
        f"{labels[run]}: {last_words(run.directory)}"
        for run, state in ended.items()
        if state is not State.DONE
    ]
    if failed:
        raise UserError("\n  ".join([f"{len(failed)} of {len(labels)} runs failed:", *failed]))
    folders = dict.fromkeys(Path(run.config.io.results) for run in labels)
    tables = [runs(results) for results in folders]
    table = pd.concat(tables, ignore_index=True)
    return table.loc[table["name"].isin([run.name for run in labels])].reset_index(drop=True)


def runs(results: str | Path = RESULTS) -> pd.DataFrame:
    """Return all runs of a results folder that ended, a row each, a column per recorded value.

    Columns are dotted keys of `record.json`: `config.peft.rank`, `metrics.segm_AP.value`,
    `params.trainable` ... A row is as its run left it: `status` says `failed` of some.
    """
    from segsweep.results import frame

    return frame.read(Path(results)).frame()


@plainly()
def load(run: TrainedRun | str | Path, results: str | Path = RESULTS) -> TrainedModel:
    """Return the model of a finished run with its trained weights, on the GPU where there is one.

    Args:
        run: what `train` returned, a name or id (also its beginning), the folder of a run, or that
            of an exported bundle.
        results: where names and ids are looked for.

    Raises:
        UserError: there is no such run, it has not finished, or its weights are gone.
    """
    import torch

    from segsweep.run.restore import restore
    from segsweep.sweeps.names import single_run

    named = run.directory if isinstance(run, TrainedRun) else single_run(Path(results), str(run))
    return TrainedModel(restore(named, "cuda" if torch.cuda.is_available() else "cpu"))
