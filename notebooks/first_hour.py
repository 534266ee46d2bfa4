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
# # The first hour: from a folder to a decision
#
# A folder of annotated pictures is checked, a model is trained on it and looked at, and a small
# sweep says which method is enough. It takes a few minutes on a laptop, without a GPU.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.utils.capture import capture_output
from PIL import Image

import segsweep
from segsweep.pages.outlines import Outline, label
from segsweep.pages.painter import overlay
from segsweep.verbs import check_data, report

# %% [markdown]
# ## A folder
#
# Yours, as your annotation program wrote it: name it here and leave out the line that writes one.
# That line takes scenes of handwritten digits, since the small model that comes with the package
# knows digits and learns them quickly. Of photographs it learns next to nothing: for these add
# `"model=maskdino_r50"` to the words below.

# %%
FOLDER = "my_set"
with capture_output():
    check_data.main(["data=digits", "data.train=64", "data.val=16", "--fix", FOLDER])

# %% [markdown]
# ## Is it sound?
#
# `python -m segsweep check-data my_set` in a terminal says the same: what is in it, and every
# defect with its file, its consequence and its cure.

# %%
status = check_data.main([FOLDER])

# %% [markdown]
# ## One run
#
# LoRA on the frozen model: the words are those of the command line. Without `data.size` pictures
# come in the size that the model was made for, and without `hparams.epochs` ten times.

# %%
WORDS = ["data=coco", f"data.root={FOLDER}", "data.size=[128,128]", "hparams.epochs=5"]
run = segsweep.train(*WORDS, "peft=lora", "peft.rank=8")

# %%
{name: round(value, 1) for name, value in run.metrics.items() if value is not None}

# %% [markdown]
# ## What does it find?
#
# On any pictures: a folder, a file, several files. Here some that it was not trained on.

# %%
model = segsweep.load(run)
pictures = sorted(Path(FOLDER, "images", "val").iterdir())[:4]
fig, axes = plt.subplots(1, len(pictures), figsize=(12, 3.2), layout="constrained")
for axis, (path, found) in zip(axes, model.predict(pictures).items(), strict=True):
    pixels = np.asarray(Image.open(path).convert("RGB"))
    objects = [
        Outline(x["category_id"], x["segmentation"], label(model.classes, x)) for x in found.coco
    ]
    axis.imshow(overlay(pixels, objects, span=(256, 256)))
    axis.set_title(path.name, fontsize=9)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Which method is enough?
#
# The untrained model, LoRA and the whole head, each with two seeds. The first LoRA run is there
# already, so five of the six are trained.

# %%
table = segsweep.sweep([*WORDS, "peft=frozen,lora,full_head", "seed=0,1"], workers=1)

# %%
columns = {
    "config.peft.name": "peft",
    "config.seed": "seed",
    "metrics.segm_AP.value": "AP",
    "params.trainable": "trained",
}
shown = table[list(columns)].rename(columns=columns).sort_values(["trained", "seed"])
shown.infer_objects().round(2).reset_index(drop=True)

# %% [markdown]
# ## The decision
#
# `report` writes one page with tables, figures, pictures and a form for your limits, and says in
# short what follows: here, whether something smaller than the best costs more than one point.

# %%
status = report.main([])

# %% [markdown]
# `python -m segsweep plan --settle ablation --margin 1` names the seeds that would make it surer,
# and `python -m segsweep export run=... format=bundle` makes a folder to hand on. All runs are in
# `results/`: [explore_sweep](explore_sweep.ipynb) goes on with them.
