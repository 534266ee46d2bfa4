# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # The papers' tables
#
# Published numbers of three studies and your own runs in the same tables: every number of
# `results/reported/reported.csv`, and every record below `results/runs/`. Nothing is trained. Open
# it with Jupyter in the folder that holds `results/`.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

from IPython.display import Image, Markdown, display

from segsweep.audit.rules import audit
from segsweep.results import forms, frame, reported, spec, tables
from segsweep.results.charts import figures
from segsweep.sweeps.plan import composed
from segsweep.sweeps.plan_lines import wanted

RESULTS = Path("results")
published = reported.read(RESULTS)
records = frame.read(RESULTS)
print(f"{len(published)} published settings, {len(records.runs)} runs of ours")

# %% [markdown]
# ## What one word runs, and what it needs
#
# Each study is a sweep. Here those of its runs that have LoRA: `python -m segsweep plan
# +sweep=table2` plans them all. What is missing, a set or a file of weights, stands there once.

# %%
for sweep in ("table2", "vfm", "convlora"):
    _, runs = composed([f"+sweep={sweep}", "peft=lora"], fetch=False)
    print(f"+sweep={sweep} peft=lora: {len(runs)} runs")
    for line in wanted(runs)[1:]:
        print(line.partition(". A run")[0])

# %% [markdown]
# ## Every table of `conf/table/`
#
# Where runs of yours belong to a table, they stand beside what was printed; what is missing is
# named.

# %%
for name in spec.names():
    found = tables.build(spec.load(name), [*published, *records.runs, *records.bench])
    if name != "ablation" and found:
        display(Markdown(forms.markdown(found)))

# %% [markdown]
# ## Figures 6 and 7 of the study of adapters and LoRA
#
# Delta AP to the full head (equation 11) against trained parameters, from its own Table 2.

# %%
with tempfile.TemporaryDirectory() as folder:
    for path in figures.draw_published(published, Path(folder)):
        if path.suffix == ".png":
            display(Markdown(f"**{path.stem}**"), Image(path.read_bytes(), width=800))

# %% [markdown]
# ## What each method costs, and what it reaches
#
# Detection of VFM-Adapter's Table 1 and two sets of Conv-LoRA's main table, against trained
# parameters: settings that none of fewer parameters beats are joined.

# %%
PRINTED = {
    "002 1": {"metric": "box AP"},
    "003 main": {"metric": "IoU_image"},
}
with tempfile.TemporaryDirectory() as folder:
    for title, asked in PRINTED.items():
        wish = replace(spec.load("ablation"), reported=title, mean=False, **asked)
        found = tables.build(wish, published, ("reported",))
        for path in figures.tradeoff_figure(found, "params.trainable", Path(folder) / title):
            if path.suffix == ".png":
                display(Markdown(f"**{title}**"), Image(path.read_bytes(), width=800))

# %% [markdown]
# ## What in them contradicts itself
#
# The same as `python -m segsweep audit`.

# %%
for finding in audit(reported.path_of(RESULTS)):
    if finding.certainty in ("certain", "definition"):
        print(f"{finding.id}: printed {finding.printed}; {finding.explanation}\n")
