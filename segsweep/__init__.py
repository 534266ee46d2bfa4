"""segsweep: which parameter-efficient fine-tuning, at which size, is enough for your data?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segsweep.api import TrainedModel, TrainedRun, load, runs, sweep, train

__version__ = "0.1.0"
__all__ = ["TrainedModel", "TrainedRun", "load", "runs", "sweep", "train"]


def __getattr__(name: str) -> Any:
    """Import the functions of segsweep/api.py when they are first asked for: torch takes long."""
    if name in __all__:
        return getattr(import_module("segsweep.api"), name)
    raise AttributeError(f"module 'segsweep' has no attribute {name!r}")
