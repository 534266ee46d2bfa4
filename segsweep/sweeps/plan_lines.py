"""A plan as text: a line for each run, the totals, what is left out, wrong or missing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from segsweep.base.terminal import aligned, duration, human, shared
from segsweep.sweeps.cost import Cost
from segsweep.sweeps.options import Slurm
from segsweep.sweeps.plan import Planned
from segsweep.sweeps.slurm import alike, script
from segsweep.sweeps.sweeper import left_out


def lines(plan: Sequence[Planned], starting: Sequence[Planned]) -> list[str]:
    """Return the plan as text: its runs, the totals, and what is wrong or missing."""
    runs = [entry for entry in plan if not entry.unfit]
    common = shared([entry.words for entry in runs])
    begun = {id(entry) for entry in starting}
    rows: list[Sequence[str]] = [("", "hours", "memory", "GPU memory", "disk", "as", "")]
    for entry in runs:
        trimmed = entry.to_run and id(entry) not in begun
        state = f"same as {entry.same}" if entry.same else "too much" if trimmed else entry.state
        cost = entry.cost if entry.to_run else Cost(source="")
        if entry.missing and cost == Cost():
            cost = Cost(source="unknown")  # there is nothing to probe
        hours = "" if cost.hours is None else f"{cost.hours:.2f}"
        sizes = ["" if s is None else human(s) for s in (cost.memory, cost.cuda, cost.disk)]
        words = " ".join(word for word in entry.words if word not in common)
        rows.append((state, hours, *sizes, cost.source, words))
    first = [f"all: {' '.join(common)}"] if common else []
    said = [_summary(runs, starting), *unfitting(plan), *licences(runs), *ceilings(runs)]
    return [*first, *aligned(rows), *said, *_troubles(runs), *wanted(runs)]


def unfitting(plan: Sequence[Planned]) -> list[str]:
    """Return how many combinations are left out, and why."""
    return left_out([entry.unfit for entry in plan if entry.unfit], len(plan))


def wanted(plan: Sequence[Planned]) -> list[str]:
    """Return what is not here, each set and file once: how to get it, and how many runs wait."""
    waiting = Counter(lack for entry in plan for lack in entry.missing)
    if not waiting:
        return []
    runs = sum(bool(entry.missing) for entry in plan)
    head = f"{runs} runs wait for what is missing here; with each, how many wait for it:"
    return [head, *(f"  {number}: {lack}" for lack, number in waiting.items())]


def _troubles(plan: Sequence[Planned]) -> list[str]:
    """Return what is wrong, each once, with the first combination that has it."""
    by_fault: defaultdict[str, list[Planned]] = defaultdict(list)
    for entry in plan:
        for fault in entry.faults:
            by_fault[fault].append(entry)
    return [
        f"{fault}  ({len(entries)} run(s), first {' '.join(entries[0].words) or 'the default'})"
        for fault, entries in by_fault.items()
    ]


def _summary(plan: Sequence[Planned], starting: Sequence[Planned]) -> str:
    """Return the totals in a line."""
    same = sum(entry.same is not None for entry in plan)
    hours = [entry.cost.hours for entry in starting]
    text = f"{len(plan) - same} runs: {len(starting)} to run"
    if refused := sum(entry.config is None for entry in plan):
        text += f", {refused} refused"
    if same:
        text += f", {same} combinations mean the same run as another"
    if known_hours := sum(h for h in hours if h is not None):
        text += f"; about {duration(3600 * known_hours)} of computing"
    if None in hours:
        unknown = [entry.images for entry in starting if entry.cost.hours is None]
        measured = "them" if all(not e.missing for e in starting) else "those that wait for nothing"
        text += f"; nothing is known of {len(unknown)} (--probe measures {measured})"
        if images := sum(filter(None, unknown)):
            more = f", without {unknown.count(None)} whose data tell it" * (None in unknown)
            text += f", which learn from {images / 1e6:,.1f} million images{more}"
    disk = sum(entry.cost.disk or 0 for entry in starting)
    return text + (f"; at most {human(disk)} of disk" if disk else "")


def header(hydra_config: DictConfig, starting: Sequence[Planned]) -> list[str]:
    """Return what sbatch would be asked for by `slurm`: an array of jobs for each kind of run."""
    launcher = OmegaConf.to_container(hydra_config.hydra.launcher, resolve=False)
    assert isinstance(launcher, dict)
    if not str(launcher.get("_target_")).endswith("SlurmLauncher"):
        return []
    options = Slurm(**{str(k): v for k, v in launcher.items() if k in Slurm.__dataclass_fields__})
    text: list[str] = []
    for runs in alike([entry.run for entry in starting if entry.run is not None]):
        intent = runs[0].directory.parent / ".submit" / "0.json"  # submission takes its own number
        batch = script(runs[0], options, intent, len(runs))
        text += [line for line in batch.splitlines() if line.startswith("#SBATCH")]
    return text


def ceilings(plan: Sequence[Planned]) -> list[str]:
    """Return a line for each model and data set whose annotations themselves would lose points."""
    lines: dict[str, None] = {}
    for entry in (entry for entry in plan if entry.ceiling and entry.ceiling.notable):
        assert entry.config is not None
        model, data = entry.config.model, entry.config.data
        lines[f"ceiling of model={model.name} data={data.name}: {entry.ceiling}"] = None
    return [*lines]


def licences(plan: Sequence[Planned]) -> list[str]:
    """Return a line for each model whose base weights have a licence that is known.

    Of weights that timm fetches timm alone knows it: only for these it is imported.
    """
    models = [entry.config.model for entry in plan if entry.config is not None]
    said = dict.fromkeys((model.name, model.licence) for model in models if model.licence)
    return [f"licence of the base weights of model={name}: {text}" for name, text in said]
