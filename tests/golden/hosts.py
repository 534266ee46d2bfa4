"""Recorded outputs of timm's transformers and of methods on them, and hosts with their weights."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from recorded import FOLDER, Recorded
from torch import Tensor

from segsweep.model.backbones.host import Host
from segsweep.model.layers.block import HostBlock
from segsweep.peft.delta import trained

LAYOUTS = {"VisionTransformer": "vit", "VisionTransformerSAM": "sam", "SwinTransformer": "swin"}


class Hosts(Recorded):
    """The folder of golden files of fine-tuning methods inside a backbone."""

    def __init__(self) -> None:
        super().__init__(FOLDER / "peft")

    def build(self, name: str) -> Host:
        """The host of a file with its weights, in evaluation mode."""
        config: dict[str, Any] = self.manifest[name]["config"]
        timm_class = config["constructor"].rpartition(".")[2]
        layout, kwargs = LAYOUTS[timm_class], dict(config["kwargs"])
        kwargs.pop("norm_layer", None)  # eps 1e-6 is what our encoder of SAM has by itself
        if layout == "swin":  # timm does not shift where a map is a single window
            kwargs["always_partition"] = False
        host = import_module(f"segsweep.model.backbones.{layout}").build(timm_class, kwargs)
        state = {own(host, k): t for k, t in self.state(name, "param/").items()}
        missing, unexpected = host.load_state_dict(state, strict=False)
        assert not unexpected
        assert all(layout == "swin" and n.startswith("norm") for n in missing)  # norms of outputs
        return host.eval()

    def check(self, file: str, key: str, actual: Tensor) -> None:
        """Compare with a tensor of a file, which may be flat, within its own tolerance."""
        expected = self.arrays(file)[key]
        atol = self.manifest[file]["tensors"][key]["atol"]
        actual = actual.detach().reshape(expected.shape)
        torch.testing.assert_close(actual, expected, atol=atol, rtol=0, msg=lambda m: f"{key}: {m}")

    def keys(self, file: str, prefix: str) -> set[str]:
        """Names of all that was recorded of a case: outputs, gradients, merged weights."""
        outputs = [k for k, info in self.manifest[file]["tensors"].items() if "atol" in info]
        return {key for key in outputs if key.startswith(prefix)}


def own(host: Host, name: str) -> str:
    """Our name of a weight of timm: the final norm of a Swin is that of its last output."""
    last = len(host.channels) - 1
    return name.replace("norm.", f"norm{last}.") if last and name.startswith("norm.") else name


def outputs(host: Host, image: Tensor) -> dict[str, Tensor]:
    """What the blocks give, the patch embedding, and what the last norm or the neck gives."""
    seen: dict[str, Tensor] = {}
    blocks = [module for module in host.modules() if isinstance(module, HostBlock)]
    parts = {"out/features": host.tail()[-1], "mid/patch_embed": host.patch_embed.norm}
    parts |= {f"mid/block{i}": block for i, block in enumerate(blocks)}
    hooks = [
        part.register_forward_hook(lambda module, inputs, out, key=key: seen.update({key: out}))
        for key, part in parts.items()
    ]
    host(image)
    for hook in hooks:
        hook.remove()
    return seen


def passed(
    hosts: Hosts, file: str, case: str, host: Host, image: Tensor, end: str = "features"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run a host forward and backward; its outputs, and the gradients by our names."""
    values = outputs(host, image)
    upstream = hosts.arrays(file)[f"{case}upstream/{end}"]
    (values["out/features"].reshape(upstream.shape) * upstream).sum().backward()
    return values, {name: p.grad for name, p in trained(host) if p.grad is not None}


def compare(
    hosts: Hosts, file: str, case: str, values: dict[str, Tensor], but: str = "never"
) -> None:
    """Compare all that was recorded of a case, except keys with `but` in them."""
    recorded = {key for key in hosts.keys(file, case) if but not in key}
    assert recorded
    for key in recorded:
        hosts.check(file, key, values[key.removeprefix(case)])
