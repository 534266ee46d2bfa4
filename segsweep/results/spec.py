"""What a table is: `conf/table/<name>.yaml` or a file of the user's, read into a typed `Spec`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segsweep.base.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

KEY = "key"  # the metric of every run's own config.metrics.key


@dataclass
class Spec:
    """One table: what its rows and columns are, which numbers qualify, how they are printed.

    Rows, columns and `split` are fields of the frame: `setting` (method with its options),
    `method`, `model`, `architecture`, `backbone`, `data_set`, `metric`, `origin`, `head` (of
    `heads`), or any recorded key, with or without `config.` in front (`peft.rank`).
    """

    name: str
    title: str = ""  # heading; default: the name
    caption: str = ""
    rows: list[str] = field(default_factory=lambda: ["setting"])
    columns: list[str] = field(default_factory=lambda: ["data_set"])
    split: list[str] = field(default_factory=list)  # one table for each of their values
    metric: Any = KEY  # what is measured ("mask AP") or recorded ("segm_AP"); also several
    facts: list[str] = field(default_factory=list)  # recorded numbers in front of the metric
    where: dict[str, Any] = field(default_factory=dict)  # runs of ours that qualify: key -> values
    sweep: str = ""  # only models and settings of methods that this sweep has (`+sweep=`)
    varies: list[str] = field(default_factory=list)  # only methods on models whose runs differ here
    elsewhere: bool = False  # also what runs reach on data that they were not trained on
    reported: str = ""  # the published table that it stands for: "000 2a"
    reference: str = ""  # setting that the other rows are compared with
    mean: bool = False  # a column with the mean over all others
    ranks: bool = False  # ranks of our rows over the columns, from three data sets on
    heads: dict[str, list[str]] = field(default_factory=dict)  # a heading above data sets
    labels: dict[str, str] = field(default_factory=dict)  # label -> how it is printed here
    decimals: int = 2
    digits: dict[str, int] = field(default_factory=dict)  # decimals of single metrics
    noise: float | None = None  # standard deviation over seeds, where no run tells it

    @property
    def metrics(self) -> list[str]:
        """The metrics as a list."""
        return list(self.metric) if isinstance(self.metric, list) else [str(self.metric)]

    @property
    def heading(self) -> str:
        """What stands over the table."""
        return self.title or self.name

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.mean and len(self.metrics) > 1:
            raise UserError(f"{self.name}: mean: there is no mean over {len(self.metrics)} metrics")
        if len(self.metrics) > 1 and "metric" not in [*self.rows, *self.columns, *self.split]:
            raise UserError(f"{self.name}: several metrics, so `metric` must be a row or a column")
        for key in ("rows", "columns"):
            if not getattr(self, key):
                raise UserError(f"{self.name}: {key}: names no field")


def folder() -> Path:
    """Return where the tables that come with the package are."""
    from segsweep.base.words import conf_dir

    return Path(conf_dir()) / "table"


def names() -> list[str]:
    """Return the names of the tables that come with the package."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


@cache
def _schema() -> DictConfig:
    """Return what may stand in a table; making it takes longer than its use."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(Spec)


def load(word: str) -> Spec:
    """Read a table by its name or its file.

    Raises UserError naming file and key, for a table that is not there, unknown keys and values of
    the wrong type.
    """
    path = Path(word) if word.endswith((".yaml", ".yml")) else folder() / f"{word}.yaml"
    if not path.is_file():
        from segsweep.base.explain import choices

        raise UserError(f"table {word}: there is no {path.name}" + choices(word, names()))
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        given = OmegaConf.merge({"name": path.stem}, OmegaConf.load(path))
        spec = OmegaConf.to_object(OmegaConf.merge(_schema(), given))
    except (OmegaConfBaseException, YAMLError) as error:
        from segsweep.base.explain import explain

        raise UserError(f"{path}: {explain(error)}") from error
    assert isinstance(spec, Spec)
    return spec
