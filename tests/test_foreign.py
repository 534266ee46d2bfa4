"""Parts of other libraries that these do not promise: each failure names library, version, part."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from segsweep.base import hydra_parts as parts
from segsweep.base.config import Hparams
from segsweep.base.errors import UserError
from segsweep.base.explain import explain
from segsweep.model import torch_parts
from segsweep.sweeps.submitit_parts import batch_script, log_name

SOURCES = [*Path(__file__).parents[1].glob("segsweep/**/*.py")]
SOURCES += Path(__file__).parents[1].glob("hydra_plugins/**/*.py")
PRIVATE = {  # what only one file may touch
    "hydra_parts.py": r"hydra\._internal|global_hydra|override_parser|core\.plugins|"
    r"load_sweep_config|_return_value|_get_header_dict|\._get_node|\._metadata",
    "submitit_parts.py": r"import submitit|_make_submission|map_count",
    "torch_parts.py": r"torch\.\w+(\.\w+)*\._\w|torch\._\w+ import|\._cdata|\._version|aten\._",
}


@contextmanager
def part(library: str, name: str) -> Iterator[None]:
    """Name library, version and part in whatever goes wrong inside."""
    try:
        yield
    except Exception as error:
        pytest.fail(f"{library} {version(library)} broke {name}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("file", PRIVATE)
def test_one_file_touches_what_is_private(file: str) -> None:
    touching = {p.name for p in SOURCES if re.search(PRIVATE[file], p.read_text(encoding="utf-8"))}
    assert touching == {file}


def test_hydra_composes_again_and_again() -> None:
    import hydra

    for _ in range(2):  # what stands from before is cleared
        with part("hydra-core", "GlobalHydra.clear, initialize_config_dir"), parts.initialized():
            assert hydra.compose("train", overrides=["seed=3"]).seed == 3


def test_hydra_parses_sweeps_and_knows_the_words_of_a_group() -> None:
    with part("hydra-core", "OverridesParser"):
        (plain,) = parts.parsed(["peft.rank=2,4"])
        assert list(plain.sweep_string_iterator()) == ["2", "4"]
        assert (plain.get_key_element(), plain.input_line) == ("peft.rank", "peft.rank=2,4")
    with part("hydra-core", "GlobalHydra.config_loader"), parts.initialized():
        (every,) = parts.parsed(["peft=glob(*)"])
        assert {"lora", "adapter"} <= set(every.sweep_string_iterator())


def test_hydra_tells_options_from_overrides() -> None:
    with part("hydra-core", "get_args_parser"):
        words = ["peft=lora", "-m", "seed=1", "--cfg", "job", "--epochs=3"]
        assert parts.overrides_of(words) == (["peft=lora", "seed=1"], ["--epochs=3"])


def test_hydra_reads_the_header_of_a_file() -> None:
    with part("hydra-core", "ConfigSource._get_header_dict"):
        assert parts.header("# @package _global_\na: 1\n")["package"] == "_global_"
        assert parts.header("a: 1\n")["package"] is None


def test_hydra_takes_ends_of_jobs_and_gives_them_back() -> None:
    with part("hydra-core", "JobReturn._return_value"):
        assert parts.failure(parts.job_return(["a=1"], None)) is None
        error = UserError("lost")
        assert parts.failure(parts.job_return(["a=1"], error)) is error


def test_hydra_composes_jobs_and_makes_launchers() -> None:
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext, RunMode

    with parts.initialized():
        with part("hydra-core", "Hydra.compose_config, HydraContext, GlobalHydra.hydra"):
            engine = GlobalHydra.instance().hydra
            assert engine is not None
            whole = engine.compose_config("train", [], run_mode=RunMode.MULTIRUN)
            context = HydraContext(engine.config_loader, Callbacks())
        with part("hydra-core", "ConfigLoader.load_sweep_config"):
            job = parts.sweep_config(context, whole, ["peft=adapter", "seed=5"])
            assert (job.seed, job.peft.name, "hydra" in job) == (5, "adapter", False)
        with part("hydra-core", "Plugins.instantiate_launcher"):
            launcher = parts.chosen_launcher(context, lambda config: None, whole)
            assert hasattr(launcher, "launch")


def test_omegaconf_opens_dicts_and_says_what_is_wrong() -> None:
    with part("omegaconf", "get_type and set_struct of one node"):
        config = OmegaConf.structured(Hparams)
        OmegaConf.set_struct(config, True)
        parts.open_dicts(config)
        config.merge_with({"lr_factors": {"head": 0.5}})
        assert config.lr_factors.head == 0.5
    with part("omegaconf", "full_key, value, object_type, parent_node and texts of its errors"):
        for wrong, said in (
            ({"epoch": 3}, "epoch: there is no key 'epoch'"),
            ({"epochs": "many"}, "epochs=many: must be a whole number"),
            ({"milestones": 1}, "milestones=1: must be a list, as in milestones=[1,1]"),
        ):
            with pytest.raises(Exception, match=next(iter(wrong))) as error:
                OmegaConf.merge(OmegaConf.structured(Hparams), wrong)
            assert explain(error.value).startswith(said)
        with pytest.raises(Exception, match="b") as error:
            DictConfig({"a": 1}, flags={"struct": True})["b"]
        assert explain(error.value).endswith("(choices: a)")


def test_submitit_writes_the_script_of_an_array(tmp_path: Path) -> None:
    with part("submitit", "SlurmExecutor._make_submission_file_text, parameters['map_count']"):
        asked = {"time": 5, "stderr_to_stdout": True, "setup": ["export A=1"], "teardown": ["end"]}
        script = batch_script(tmp_path, "py", "-m segsweep work x", "name", 3, **asked)
        lines = script.splitlines()
        assert lines[0].startswith("#!")
        assert {"#SBATCH --time=5", "export A=1", "end"} <= set(lines)
        assert any(line.startswith("#SBATCH --array=0-2") for line in lines)
        assert "py -m segsweep work x" in script
        assert any(line.endswith(log_name("%A_%a")) for line in lines)
        alone = batch_script(tmp_path, None, "x", "name", 1, time=5, stderr_to_stdout=True)
        assert "--array" not in alone
        assert any(line.endswith(log_name("%j")) for line in alone.splitlines())


def test_torch_counts_changes_and_tells_storages_apart() -> None:
    tensor = torch.zeros(2, 3)
    with part("torch", "Tensor._version"):
        before = torch_parts.changes(tensor)
        assert torch_parts.changes(tensor.add_(1)) == before + 1
    with part("torch", "UntypedStorage._cdata"):
        of: Callable[[torch.Tensor], int] = lambda t: torch_parts.storage_id(t.untyped_storage())  # noqa: E731
        assert of(tensor) == of(tensor[1]) != of(tensor.clone())
    with part("torch", "utils._pytree.tree_leaves"):
        assert len(torch_parts.tensors([tensor, {"a": (tensor, 3)}, None])) == 2
    with part("torch", "utils._python_dispatch.TorchDispatchMode, ops.aten._embedding_bag"):
        seen = []

        class Watching(torch_parts.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                seen.append(func.overloadpacket)
                return func(*args, **(kwargs or {}))

        with Watching(), torch.no_grad():
            bag = torch.tensor([[0, 1]])
            torch.nn.functional.embedding_bag(bag, tensor, mode="sum")
        assert set(seen) & set(torch_parts.EMBEDDING_BAGS)
    with part("torch", "ops.aten._embedding_bag_per_sample_weights_backward"):
        rows, table = torch.tensor([[0, 1]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        shares = torch.ones(1, 2, requires_grad=True)
        bags = torch.nn.functional.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)
        bags.sum().backward()
        asked = torch.ones(1, 2), table, rows[0], torch.tensor([0]), torch.tensor([0, 0]), 0
        assert shares.grad is not None
        assert torch.equal(torch_parts.grad_bag_shares(*asked), shares.grad[0])
