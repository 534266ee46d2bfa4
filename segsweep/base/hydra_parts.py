"""The parts of Hydra that its documents do not promise: whoever needs one finds it here.

tests/test_foreign.py has a test for each, which says what an upgrade of Hydra broke.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from segsweep.base.words import conf_dir

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction


@contextlib.contextmanager
def initialized() -> Iterator[None]:
    """Let `hydra.compose` compose from `conf/` and from the user's folders while inside."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=conf_dir()):
        yield


def parsed(words: Sequence[str]) -> list[Override]:
    """Parse override words; inside Hydra, `glob(*)` stands for the words of a group."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None
    return OverridesParser.create(loader).parse_overrides(list(words))


def plain_value(word: str) -> tuple[str, Any] | None:
    """Return key and value of a word that sets one value of what is there; None for any other.

    Words that add, delete or sweep, name a package or cannot be read are others.
    """
    from hydra.core.override_parser.types import OverrideType
    from hydra.errors import HydraException

    try:
        (override,) = parsed([word])
    except HydraException:
        return None
    if override.type is not OverrideType.CHANGE or override.package is not None:
        return None
    return None if override.is_sweep_override() else (override.key_or_group, override.value())


def overrides_of(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of a command line, and the options on it that Hydra does not have."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    options, unknown = parser.parse_known_intermixed_args(list(words))
    return options.overrides, unknown


def sweep_config(context: HydraContext, config: DictConfig, overrides: list[str]) -> DictConfig:
    """Compose one job of a sweep, without Hydra's own keys."""
    job = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        del job["hydra"]
    return job


def chosen_launcher(context: HydraContext, task: TaskFunction, config: DictConfig) -> Launcher:
    """Make the launcher that a command line chose."""
    from hydra.core.plugins import Plugins

    return Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task, config=config
    )


def job_return(words: Sequence[str], error: Exception | None) -> JobReturn:
    """Return the end of a job in Hydra's words: launched or done, or failed with an error."""
    from hydra.core.utils import JobReturn, JobStatus

    status = JobStatus.COMPLETED if error is None else JobStatus.FAILED
    return JobReturn(overrides=words, status=status, _return_value=error)


def failure(result: JobReturn) -> Any:
    """Return what a job failed of, None if it did not. `return_value` would raise it."""
    from hydra.core.utils import JobStatus

    return None if result.status == JobStatus.COMPLETED else result._return_value


def header(text: str) -> dict[str, str | None]:
    """Return what the comments at the top of a yaml file tell Hydra: `# @package _global_`."""
    from hydra.plugins.config_source import ConfigSource

    return ConfigSource._get_header_dict(text)


def open_dicts(config: Any) -> None:
    """Let dicts whose keys are the user's take new ones: `hparams.lr_factors={head: 0.5}`."""
    for key in range(len(config)) if OmegaConf.is_list(config) else config:
        unset = OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key)
        if not unset and OmegaConf.is_config(config[key]):
            open_dicts(config[key])
    if OmegaConf.get_type(config) is dict:
        OmegaConf.set_struct(config, False)
