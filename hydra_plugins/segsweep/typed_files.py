"""A config source whose YAML files are typed by the dataclass that they name in `_target_`.

With it, `peft.rnk=2` and `peft.rank=two` fail while composing, without one registration per file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict

from segsweep.base.config import Config, conf_dir, schema_of

SCHEME = "segsweep"
ConfigStore.instance().store(name="schema", node=Config, provider="segsweep")


class TypedFiles(ConfigSource):
    """YAML files of one folder, each merged into its dataclass."""

    @staticmethod
    def scheme() -> str:
        """Return the scheme of the search path entry."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file and merge it into the dataclass of its `_target_`."""
        path = Path(self.path, self._normalize_file_name(config_path))
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        text = path.read_text(encoding="utf-8")
        config = OmegaConf.create(text)
        schema = schema_of(config)
        if schema is not None:
            assert isinstance(config, DictConfig)
            defaults = {key: config.pop(key) for key in ("defaults",) if key in config}
            config = OmegaConf.merge(OmegaConf.structured(schema), config)
            open_dicts(config)
            with open_dict(config):
                config.update(defaults)  # Hydra's own list, which it takes out again
        return ConfigResult(
            config=config,
            path=f"{SCHEME}://{self.path}",
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )

    def available(self) -> bool:
        """Say whether the folder exists."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Say whether a folder of choices has this name."""
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Say whether a file has this name."""
        return Path(self.path, self._normalize_file_name(config_path)).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List the choices of a group."""
        files: list[str] = []
        for entry in Path(self.path, config_path).iterdir():
            self._list_add_result(
                files=files,
                file_path=str(Path(config_path, entry.name)),
                file_name=entry.name,
                results_filter=results_filter,
            )
        return sorted(set(files))


def open_dicts(config: Any) -> None:
    """Let dicts whose keys are the user's take new ones: `hparams.lr_factors={head: 0.5}`."""
    for key in config if OmegaConf.is_dict(config) else ():
        open_dicts(config._get_node(key))
    if OmegaConf.get_type(config) is dict:
        OmegaConf.set_struct(config, False)


class TypedSearchPath(SearchPathPlugin):
    """Read segsweep's own `conf/` through `TypedFiles`; other applications are left alone."""

    def manipulate_search_path(self, search_path) -> None:
        """Change the scheme of our folder on the search path."""
        for element in search_path.get_path():
            if element.path in (conf_dir(), f"file://{conf_dir()}"):
                element.path = f"{SCHEME}://{conf_dir()}"
