"""A config source whose YAML files are typed by the dataclass that they name in `_target_`.

With it, `peft.rnk=2` and `peft.rank=two` fail while composing, without one registration per file;
and what is composed names words, no classes.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict

from segsweep.base.config import Config, class_named
from segsweep.base.errors import UserError
from segsweep.base.hydra_parts import header, open_dicts
from segsweep.base.words import FOLDERS, GROUPS, conf_dir, own_folders

SCHEME = "segsweep"
ConfigStore.instance().store(name="schema", node=Config, provider="segsweep")


class TypedFiles(ConfigSource):
    """YAML files of one folder, those of words each merged into its dataclass."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the search path entry."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file; a word without its `_target_`, merged into the dataclass named there."""
        path = self._file(config_path)
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        of_word = config_path.partition("/")[0] in GROUPS
        config, about = read(path, of_word, path.stat().st_mtime_ns)
        return ConfigResult(
            config=deepcopy(config),  # Hydra takes parts out of it
            path=f"{SCHEME}://{self.path}",
            provider=self.provider,
            header=dict(about),
        )

    def available(self) -> bool:
        """Say whether the folder exists."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Say whether a folder of choices has this name."""
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Say whether a file has this name."""
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List the choices of a group."""
        folder = Path(self.path, config_path)
        groups = {path.name for path in folder.iterdir() if path.is_dir()} - {"__pycache__"}
        configs = {path.stem for path in folder.glob("*.yaml")}
        return sorted(
            (groups if results_filter is not ObjectType.CONFIG else set())
            | (configs if results_filter is not ObjectType.GROUP else set())
        )

    def _file(self, config_path: str) -> Path:
        return Path(self.path, config_path.removesuffix(".yaml") + ".yaml")


@cache
def read(path: Path, of_word: bool, changed: int) -> tuple[Any, dict[str, str | None]]:
    """Read a file, and what its head tells Hydra; it is read again when it was changed."""
    text = path.read_text(encoding="utf-8")
    config = OmegaConf.create(text)
    return word(path, config) if of_word else config, header(text[:512])


def word(path: Path, config: object) -> DictConfig:
    """Return the file of a word merged into its dataclass; defaults stay where it names none.

    Raises UserError where it has another name than its file.
    """
    if not isinstance(config, DictConfig) or config.get("name") != path.stem:
        raise UserError(f"{path}: needs the line 'name: {path.stem}', as the file is called")
    if "_target_" not in config:
        return config
    kind = class_named(path, config.pop("_target_"))
    defaults = {key: config.pop(key) for key in ("defaults",) if key in config}
    merged = OmegaConf.merge(OmegaConf.structured(kind), config)
    assert isinstance(merged, DictConfig)
    open_dicts(merged)
    with open_dict(merged):
        merged.update(defaults)  # Hydra's own list, which it takes out again
    return merged


class TypedSearchPath(SearchPathPlugin):
    """Read `conf/` and the user's folders through `TypedFiles`; other applications keep theirs."""

    def manipulate_search_path(self, search_path) -> None:
        """Change the scheme of our folder on the search path; put the user's behind it."""
        for element in search_path.get_path():
            if element.path in (conf_dir(), f"file://{conf_dir()}"):
                element.path = f"{SCHEME}://{conf_dir()}"
                for folder in own_folders():
                    search_path.append(FOLDERS, f"{SCHEME}://{folder}")
                return
