"""What the report shows, gathered from files: plain values for the template, nothing is drawn."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from segsweep.base.errors import Damaged
from segsweep.base.files import read_json, sound
from segsweep.pages.report import charts
from segsweep.results import frame, reported, spec, tables
from segsweep.results.candidates import SIZES, Contest, Record, contests, timed
from segsweep.results.cells import Table
from segsweep.results.elsewhere import shift_tables
from segsweep.results.settings import Values
from segsweep.results.sheets import Entry, sheets
from segsweep.results.trace import code
from segsweep.results.wording import metric_name, natural, quantity_of
from segsweep.run.shapes import ANALYSIS, config_text, record_of
from segsweep.sweeps.names import chosen, settings
from segsweep.sweeps.status import Status, survey

PRICES = (
    *("params.trainable", "params.percent"),
    *("delta.bytes", "seconds.train", "memory.peak_cuda_mib"),
)
NAMED = 3  # words of a title
APART = re.compile(r"config\.(repeat|force|io|logger|trainer)\b")  # tells no settings apart
ANALYSED = re.compile(r"dAP |image IoU |IoU of |.*=")  # measures of errors, label maps and slices
TROUBLE = ("failed", "lost", "unreadable", "interrupted")


@dataclass(frozen=True)
class ReportContent:
    """All of a report; `runs` are those that ended, `statuses` all that were asked for."""

    title: str
    results: Path
    out: Path
    words: list[str]
    runs: list[Values]
    records: dict[str, Record]
    statuses: list[Status]
    warnings: list[str]
    contests: list[Contest]
    tables: list[Table]
    published: list[Table]
    shifted: list[Table]  # of runs that were judged on other data

    def counts(self) -> dict[str, int]:
        """Return how many runs are in which state, what is done first."""
        counter = Counter(status.state for status in self.statuses)
        order = ("done", "running", "pending", "new", *TROUBLE)
        return {state: counter[state] for state in order if counter[state]}

    def when(self) -> dict[str, str]:
        """Return when the first run began, the last one ended, and now; minutes, UTC."""
        begun = min((run["started"] for run in self.runs if run.get("started")), default="")
        ended = max((run["ended"] for run in self.runs if run.get("ended")), default="")
        now = datetime.now(UTC).isoformat(timespec="minutes")
        return {k: v[:16].replace("T", " ") for k, v in zip(
            ("begun", "ended", "now"), (begun, ended, now), strict=True)}  # fmt: skip

    def grid(self) -> dict[str, list[str]]:
        """Return what was swept: the values of every key of the command lines, else of records."""
        grid: dict[str, dict[str, None]] = {}
        for status in self.statuses:
            for word in status.setting.split():
                key, _, value = word.partition("=")
                grid.setdefault(key, {})[value] = None
        if not grid:
            keys = {"model": "model", "data": "data_set", "peft": "config.peft.name"}
            for key, column in (keys | {"seed": "config.seed"}).items():
                values = sorted({str(run[column]) for run in self.runs if column in run})
                grid[key] = dict.fromkeys(values)
        return {key: sorted(values, key=natural) for key, values in grid.items()}

    def unfinished(self) -> list[Status]:
        """Return the runs that nothing is wrong with and that are not done."""
        return [s for s in self.statuses if s.state not in ("done", *TROUBLE)]

    def trouble(self) -> list[dict[str, str]]:
        """Return what failed, with its last line and what to do about it."""
        return [asdict(s) | {"cure": cure(s)} for s in self.statuses if s.state in TROUBLE]

    def charts(self) -> charts.Groups:
        """Return the charts by the heading of their group."""
        return charts.groups(self.tables, self.runs, self.results / "runs")

    def prices(self) -> list[Table]:
        """Return the tables of what each setting costs."""
        asked = spec.Spec(
            "costs",
            columns=["metric"],
            split=["model"],
            metric=list(PRICES),
            digits={"seconds.train": 3},
        )
        return tables.build(asked, [run for run in self.runs if run["status"] == "done"])

    def environment(self) -> dict[str, list[tuple[str, int]]]:
        """Return versions, commits and machines, each with its number of runs."""
        counters: dict[str, Counter[str]] = {"commit": Counter(), "machine": Counter()}
        for run in self.runs:
            counters["commit"][code(run)] += 1
            parts = (run.get("device.host"), run.get("device.name") or run.get("device"))
            counters["machine"][", ".join(str(part) for part in parts if part) or "unknown"] += 1
            for key in (key for key in run if key.startswith("versions.")):
                counters.setdefault(key.partition(".")[2], Counter())[str(run[key])] += 1
        return {key: sorted(counter.items()) for key, counter in counters.items() if counter}

    def totals(self) -> dict[str, str]:
        """Return what all runs took together, and the most memory that one of them needed."""
        totals = {}
        if seconds := self._recorded("seconds.total"):
            totals["computed"] = (
                f"{sum(seconds) / 3600:.1f} h in {len(seconds)} runs, "
                f"{fmean(seconds):.0f} s each on average"
            )
        for name, key in (("peak memory", "rss"), ("peak GPU memory", "cuda")):
            if peaks := self._recorded(f"memory.peak_{key}_mib"):
                totals[name] = f"{max(peaks):.0f} MiB"
        return totals

    def _recorded(self, key: str) -> list[float]:
        return [value for run in self.runs if (value := run.get(key))]

    def listed(self) -> list[dict[str, Any]]:
        """Return every run that ended, with a link to its folder."""
        folder = os.path.relpath(self.results / "runs", self.out.parent)
        return [
            {
                "id": run["id"],
                "name": run["name"],
                "link": f"{folder}/{run['name']}/config.yaml",
                "state": run["status"],
                "seed": run.get("config.seed", ""),
                "seconds": run.get("seconds.total"),
                "commit": code(run),
                "ended": str(run.get("ended") or "")[:16].replace("T", " "),
            }
            for run in self.runs
        ]


def gather(results: Path, words: Sequence[str], out: Path, published: bool) -> ReportContent:
    """Read everything about the chosen runs. Raises UserError for words that name nothing."""
    statuses, warnings = survey(results, words)
    names = {run.name for run in chosen(results, words)}
    read = frame.read(results)
    runs = timed([run for run in read.runs if run["name"] in names], read.bench)
    records = {run["id"]: _record(results, run["name"]) for run in runs}
    warnings += [f"skipped {path}: {reason}" for path, reason in read.unreadable.items()]
    warnings += [f"left out {copies}" for copies in read.differing]
    return ReportContent(
        title=", ".join(words) if 0 < len(words) <= NAMED else f"{len(statuses)} runs of {results}",
        results=results,
        out=out,
        words=list(words),
        runs=runs,
        records=records,
        statuses=statuses,
        warnings=warnings,
        contests=contests(runs, records, _asked(results, statuses, bool(words))),
        tables=tables.build(spec.load("against_full_head"), runs) if runs else [],
        published=_published(results, runs) if published else [],
        shifted=shift_tables(runs, read.elsewhere),
    )


def _asked(results: Path, statuses: list[Status], named: bool) -> dict[str, list[str]]:
    """Return the words of all runs that were asked for, by name; of all sweeps if none was named.

    Runs that belong to no sweep have no words; what their configs say takes their place.
    """
    words = {s.run: s.setting.split() for s in statuses if s.setting}
    if not named:
        words |= {name: text.split() for name, text in settings(results).items()}
    for name in (s.run for s in statuses if s.run not in words):
        config = frame.flatten({"config": _config(results / "runs" / name)})
        keys = [key for key in config if key.startswith("config.") and not APART.match(key)]
        if keys:
            words[name] = [f"{key.removeprefix('config.')}={config[key]}" for key in keys]
    return words


def _config(directory: Path) -> dict[str, Any]:
    """Return the frozen config of a run, nothing if it cannot be read."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(config_text(directory) or "", loader)
    except (Damaged, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _record(results: Path, name: str) -> Record:
    """Return the record of a run; what it lacks of analysis the verb `analyse` may have written."""
    record = record_of(results / "runs" / name) or {}
    if record.get("analysis"):
        return record
    path = results / "analysis" / name / "analysis.json"
    cure = f"python -m segsweep analyse {name} writes it again"
    later = sound([path], lambda path: read_json(path, ANALYSIS, cure))
    return record | {"analysis": next((analysis for _, analysis in later), None)}


def _published(results: Path, runs: list[Values]) -> list[Table]:
    """Return the published tables, with ours where these belong to them."""
    every = [*reported.read(results), *runs]
    specs = [asked for name in spec.names() if (asked := spec.load(name)).reported]
    return [table for asked in specs for table in tables.build(asked, every)]


def cure(status: Status) -> str:
    """Return what to do about a run that did not finish."""
    again = f"python -m segsweep retry {status.run}"
    if "out of memory" in status.note.lower() or "OutOfMemory" in status.note:
        return (
            "It needs more memory than the device has: a smaller hparams.batch_size or data.size, "
            f"trainer.precision=bf16, or a larger device and then: {again}"
        )
    if status.note.startswith("UserError"):
        return f"The message says what to change. With the same words: {again}"
    if status.state == "lost":
        return f"Gone without a word, mostly for lack of time or memory: {again} --state lost"
    if status.state == "interrupted":
        return f"It goes on from its checkpoint: {again}"
    return f"What happened: python -m segsweep logs {status.run}. When mended: {again}"


def shown(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return tables as the template wants them."""
    return [
        {
            "page": page,
            "levels": page.levels(),
            "rows": [
                [_entry(entry, place < len(page.stub)) for place, entry in enumerate(row)]
                for row in page.body
            ],
        }
        for table in tables
        for page in sheets(table)
    ]


def _entry(entry: Entry, stub: bool) -> dict[str, Any]:
    ours = entry.runs and entry.runs[0]["origin"] == "ours"
    return {
        "stub": stub,
        "text": entry.marked(),
        "kind": "best" if entry.bold else "",
        "tip": entry.tip(),
        "run": entry.runs[0].get("judges.run", entry.runs[0]["id"]) if ours else "",
        "sort": number(entry.text),
    }


def number(text: str) -> str:
    """Return the number that a text begins with, to sort by; nothing if it begins with none."""
    word = text.split(" ", 1)[0].replace("−", "-").replace(",", "")
    try:
        return str(float(word))
    except ValueError:
        return ""


def measured(contest: Contest) -> dict[str, Any]:
    """Return the table of what the analyses tell: sizes, errors, calibration, slices."""
    known = {*SIZES.values(), "precision", "calibration error"}
    boxes = any(c.boxes for c in contest.candidates)
    sized = {f"{'box' if boxes else 'mask'} AP{size}" for size in ("s", "m", "l")}
    head = [
        name
        for name in contest.measures()
        if name in known or quantity_of(name) in sized or ANALYSED.match(name)
    ]
    analysed = any(quantity_of(name) not in sized for name in head)
    return {
        "head": [metric_name(name) for name in head],
        "rows": [(c.name, [c.measures.get(name) for name in head]) for c in contest.candidates],
        "analysed": analysed,
        "boxes": boxes,
        "sliced": next((name for name in head if "=" in name and "recall" not in name), ""),
    }
