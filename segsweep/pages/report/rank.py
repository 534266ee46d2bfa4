"""In which rank the updates of whole weights lie, as far as the verb `spectrum` has looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segsweep.analysis.spectrum import SHARE, Spectra, Spectrum, read
from segsweep.base.files import sound
from segsweep.pages.report.charts import SIZE
from segsweep.pages.spectrum import mass_panel
from segsweep.results.candidates import Record
from segsweep.results.charts.canvas import Chart
from segsweep.results.charts.embed import svg
from segsweep.run.folder import DELTA, known_hash

MOST = 6  # runs that are shown
BACKBONE = "backbone"  # the role of every model whose weights a full tuning trains


@dataclass(frozen=True)
class RankPanel:
    """A sentence and a small picture for each run, and the runs that could be looked at."""

    sentences: list[str]
    svgs: list[str]
    unseen: list[str]


def rank_panel(results: Path, records: Sequence[Record]) -> RankPanel | None:
    """Tell of the runs that trained whole weights of a backbone and kept them; None of none."""
    whole = [record for record in records if _whole(results, record)]
    if not whole:
        return None
    found = [(record, one) for record in whole if (one := _kept(results, record))][:MOST]
    charts = [Chart([partial(mass_panel, one)], notes=False, size=SIZE) for _, one in found]
    seen = {one.run for _, one in found}
    return RankPanel(
        [_sentence(record, one) for record, one in found],
        [svg(chart, f"squared mass by rank, {i}") for i, chart in enumerate(charts, 1)],
        [record["name"] for record in whole if record["name"] not in seen],
    )


def _whole(results: Path, record: Record) -> bool:
    trained = record.get("config", {}).get("peft", {}).get("train", [])
    done = record.get("status") == "done" and "name" in record
    return done and BACKBONE in trained and (results / "runs" / record["name"] / DELTA).is_file()


def _kept(results: Path, record: Record) -> Spectra | None:
    """Return what `spectrum` wrote of a run, None where it did not, or of weights before these."""
    path = results / "spectrum" / record["name"] / "update.json"
    one = next((one for _, one in sound([path], read)), None)
    if one is None or one.delta != known_hash(record, DELTA):
        return None
    return one if any(matrix.trained for matrix in one.matrices) else None


def _sentence(record: Record, one: Spectra) -> str:
    config, parts = record["config"], dict[str, list[Spectrum]]()
    for matrix in one.matrices:
        if matrix.trained and matrix.values.any():
            parts.setdefault(matrix.part, []).append(matrix)
    ranks = ", ".join(f"{_ranks(several)} ({part})" for part, several in parts.items())
    layers = ", ".join(map(str, one.layers()))
    began = "random weights" if one.start.startswith("weights: random") else "its base weights"
    return (
        f"{config['model']['name']}, peft={config['peft']['name']}, data={config['data']['name']}, "
        f"seed {config.get('seed', '?')}: of what {one.steps} steps changed in {began}, "
        f"{SHARE:.0%} of the squared mass lies in rank {ranks}; layers {layers} of {one.depth}."
    )


def _ranks(several: Sequence[Spectrum]) -> str:
    ranks: list[Any] = [matrix.rank() for matrix in several]
    least, most = min(ranks), max(ranks)
    of = max(len(matrix.values) for matrix in several)
    return f"{least} of {of}" if least == most else f"{least} to {most} of {of}"
