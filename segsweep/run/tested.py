"""What a finished run reaches on the test part of its data, which no choice was made by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segsweep.base.errors import UserError
from segsweep.base.files import write_json
from segsweep.run.restore import finished, restore, same


def on_test(directory: Path, out: Path, words: Sequence[str]) -> list[str]:
    """Evaluate a run on test; write `test.json` to a folder, and return what to tell.

    Raises UserError where its data have no test, or are not what they were.
    """
    from segsweep.metrics.base import of_classes
    from segsweep.run.evaluate import judged
    from segsweep.run.record import metric_facts

    config, record = finished(directory, words)
    if "test" not in config.data.splits():
        raise UserError(
            f"{directory}: data={config.data.name} has no test; name its file with data.test="
        )
    same(directory, config, record)  # before the model is built
    model = restore(directory, words=words).model
    evaluator = judged(config, model, "test", f"{directory.name} on test")
    values = evaluator.compute()
    content = {
        "run": record["id"],
        "split": "test",
        "images": len(config.data.records("test")),
        "metrics": metric_facts(config.metrics, values),
        "classes": of_classes(evaluator),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "test.json", content)
    key, value = config.metrics.key, values[config.metrics.key]
    known = record["metrics"][key]["value"]
    on_test, on_val = (f"{v:.2f}" if v is not None else "undefined" for v in (value, known))
    return [f"{key} {on_test} on test, {on_val} on val", f"wrote {out / 'test.json'}"]
