"""The parts of submitit that it does not promise: it writes batch scripts, `slurm.py` submits them.

tests/test_foreign.py says what an upgrade of submitit broke.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def batch_script(
    folder: Path, python: str | None, arguments: str, name: str, count: int, **parameters: Any
) -> str:
    """Return the batch script of an array of `count` jobs that run this Python, or `python`."""
    import submitit

    executor = submitit.SlurmExecutor(folder, python=python)
    executor.update_parameters(**parameters)
    if count > 1:
        executor.parameters["map_count"] = count
    return executor._make_submission_file_text(f"{executor.python} {arguments}", name)


def log_name(job: str) -> str:
    """Return the file in which the first task of a job writes what it says."""
    return f"{job}_0_log.out"
