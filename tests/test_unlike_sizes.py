"""Every family learns from images of unlike sizes, and finds on each what it finds on it alone."""

from __future__ import annotations

import pytest
import torch

from segsweep.base.config import Config, compose, words
from segsweep.data.geometry import Geometry
from segsweep.data.loader import collate
from segsweep.data.transforms import sample
from segsweep.run.restore import assemble

SMALL = {family: word for word, family in words("model").items() if "tiny" in word}
SIZES = (64, 80), (96, 40)


def small(word: str) -> Config:
    """A small config of a model, on data that its task is for."""
    options = ["peft=full_ft", f"model={word}", "model.weights=null", "data.val=1"]
    task, *_ = words("model")[word].tasks
    data = {"instances": "digits", "semantic": "digits_semantic", "label": "digits_label"}[task]
    return compose([*options, f"data={data}", f"data.train={10 if task == 'label' else 2}"])


@pytest.mark.parametrize("word", SMALL.values())
def test_batches_of_unlike_sizes(word: str) -> None:
    config = small(word)
    data, samples = config.data, []
    for record, size in zip(data.records("train"), SIZES, strict=False):
        label_map = data.label_map(record) if record.labels else None
        samples.append(sample(data.image(record), record, Geometry(size, size), label_map))
    batch = collate(samples, data)
    assert batch.images.shape == (2, 3, 96, 96)
    assert batch.sizes == list(SIZES)
    model = assemble(config, data.classes(), data.subject())[0]
    loss = model.train().loss(model(batch.images, batch.targets), batch.targets)["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        together = model.eval().find(batch)
        alone = [model.find(part)[0] for part in batch.parts(1)]  # padded as before
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=1e-4)
