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
# # Explore a sweep
#
# Everything below comes from the files in `results/`; nothing is trained. Open it with Jupyter in
# the folder that holds `results/`, or run the `.py` of the same name as a script. Here the runs are
# those of [first_hour](first_hour.ipynb).

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import segsweep
from segsweep.results import forms, frame, settings, tables

RESULTS = Path("results")

# %% [markdown]
# ## One row per run
#
# Columns are the dotted keys of `record.json`: `config.peft.rank`, `metrics.segm_AP.value`,
# `params.trainable`, `seconds.train`, `memory.peak_rss_mib`, `git.commit` ...

# %%
runs = segsweep.runs(RESULTS)
shown = {
    "config.peft.name": "peft",
    "config.peft.rank": "rank",
    "config.seed": "seed",
    "metrics.segm_AP.value": "AP",
    "params.trainable": "trained",
    "params.percent": "%",
}
best_first = runs.sort_values("metrics.segm_AP.value", ascending=False)
table = best_first.reindex(columns=list(shown)).rename(columns=shown)
table.infer_objects().round(2).reset_index(drop=True)

# %% [markdown]
# ## The ablation table
#
# The same numbers that `python -m segsweep collect` prints.

# %%
records = frame.read(RESULTS)
for table in tables.ablation(records.runs):
    display(Markdown(forms.markdown([table])))

# %% [markdown]
# ## Curves
#
# `metrics.jsonl` has a line per logged step (`loss`, `lr`, ...) and a line per validation
# (`segm_AP`, ...).


# %%
def curve(run: str) -> pd.DataFrame:
    """Return the logged lines of a run."""
    path = RESULTS / "runs" / run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return pd.DataFrame([json.loads(line) for line in lines], columns=["epoch", "segm_AP", "loss"])


fig, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for run in sorted(settings.arrange(records.runs), key=settings.order):
    logged = curve(run.values["name"])
    for ax, key in zip(axes, ("loss", "segm_AP"), strict=True):
        drawn = logged.dropna(subset=[key])
        if len(drawn):
            ax.plot(
                drawn["epoch"], drawn[key], label=f"{run.setting}, seed {run.values['config.seed']}"
            )
        ax.set(xlabel="epoch", ylabel=key)
        ax.spines[["top", "right"]].set_visible(False)
fig.legend(*axes[1].get_legend_handles_labels(), loc="outside right", fontsize=8, frameon=False)
plt.show()
