"""What the literature calls methods, data sets, models and quantities; all else keeps its word."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How a method or data set is called, and the keys that its label always shows."""

    family: str
    keys: tuple[str, ...] = ()


# In the order of the rows of the tables of the studies; what is not here follows by its own word.
METHODS = {
    "domain_specific": Wording("Domain specific"),
    "from_scratch": Wording("Trained from scratch"),
    "full_ft": Wording("Full tuning"),
    "fix": Wording("Fixed backbone"),
    "frozen": Wording("Frozen base"),
    "full_head": Wording("Full head"),
    "decoder_only": Wording("Only decoder"),
    "embeddings_only": Wording("Only class & mask embeddings"),
    "bitfit": Wording("BitFit"),
    "adapter": Wording("Adapters", ("repeats", "residual")),
    "vpt": Wording("VPT"),
    "lst": Wording("LST"),
    "sam_adapter": Wording("SAM-Adapter"),
    "lora": Wording("LoRA", ("rank",)),
    "ssf": Wording("SSF"),
    "lorand": Wording("LoRand"),
    "arc": Wording("ARC"),
    "vfm_adapter": Wording("VFM-Adapter"),
    "conv_lora": Wording("Conv-LoRA"),
}
DATA = {
    "digits": Wording("digits", ("domain",)),
    "coco": Wording("", ("root",)),  # called by its folder
    "ndd20": Wording("NDD20"),
    "zerowaste": Wording("ZeroWaste"),
    "wixray": Wording("WIXray"),
    "cityscapes": Wording("Cityscapes"),
    "ade20k": Wording("ADE20K"),
    "kvasir": Wording("Kvasir"),
    "cvc612": Wording("CVC-612"),
    "isic2017": Wording("ISIC 2017"),
    "camo": Wording("CAMO"),
    "sbu": Wording("SBU"),
    "leaf": Wording("Leaf"),
    "road": Wording("Road"),
    "trans10k": Wording("Trans10K"),
}
WORDING = METHODS | DATA
SYMBOLS = {
    "form": "{}",
    "repeats": "I={}",
    "rank": "r={}",
    "residual": "{}",
    "domain": "{}",
    "root": "{}",
}
GREEK = {"kappa": "κ", "lambda": "λ", "kappa+lambda": "κ+λ"}

# Architecture and backbone of the words of `model=`; other models are called by their word.
MODELS = {
    "maskdino_r50": ("Mask DINO", "ResNet-50"),
    "maskdino_swinl": ("Mask DINO", "Swin-L"),
    "maskdino_tiny": ("Mask DINO", "tiny"),
    "seem_focall": ("SEEM", "Focal-L"),
    "seem_focalt": ("SEEM", "Focal-T"),
    "seem_tiny": ("SEEM", "tiny"),
}

DOCUMENTS = {
    "000": "the study of adapters and LoRA for Mask DINO and SEEM",
    "001": "the article on its use",
    "002": "VFM-Adapter",
    "003": "Conv-LoRA",
}

MILLION = 1e6


@dataclass(frozen=True)
class Quantity:
    """A recorded number that is no metric: its name, its unit, and the factor to that unit."""

    name: str
    unit: str
    factor: float = 1.0
    direction: str = ""  # none: not a contest

    @property
    def heading(self) -> str:
        """The heading of its column."""
        return f"{self.name} ({self.unit})"


QUANTITIES = {
    "params.trainable": Quantity("Trained", "M", 1 / MILLION),
    "params.percent": Quantity("Trained", "%"),
    "bench.median_ms": Quantity("Latency", "ms"),
    "bench.iqr_ms": Quantity("IQR", "ms"),
    "bench.ratio.median": Quantity("To base", "×"),
    "bench.ratio.low": Quantity("95 % from", "×"),
    "bench.ratio.high": Quantity("to", "×"),
    "bench.cpu_ratio.median": Quantity("CPU time to base", "×"),
    "bench.flops": Quantity("Operations", "GFLOP", 1e-9),
    "bench.peak_mib": Quantity("Peak", "MiB"),
    "bench.checkpoint_bytes": Quantity("Checkpoint", "MB", 1 / MILLION),
    "seconds.train": Quantity("Training", "h", 1 / 3600, "lower"),
    "memory.peak_cuda_mib": Quantity("GPU memory", "GB", 1 / 1024, "lower"),
    "delta.bytes": Quantity("Checkpoint", "MB", 1 / MILLION, "lower"),
}


def metric_name(metric: str) -> str:
    """Return the heading of a metric's column; masks go without saying."""
    found = QUANTITIES.get(metric)
    return found.heading if found else metric.removeprefix("segm_").replace("bbox_", "box ")


def protocol_in_words(metric: str, protocol: str) -> str:
    """Return "COCO mask AP": the metric with the rules that it is computed by, if they are known.

    Of COCO's average precision the number of detections that count is part of the protocol.
    """
    kinds = {"segm": "mask", "bbox": "box"}
    kind, _, name = metric.partition("_")
    if kind not in kinds:
        return f"{protocol} {metric_name(metric)}".strip()
    rules, found, most = protocol.partition(" maxDets ")
    dets = f", maxDets {most if found else 100}" if rules == "COCO" else ""
    return f"{rules} {kinds[kind]} {name}{dets}".strip()


def document(source: str, table: str) -> str:
    """Return "VFM-Adapter (002), table 1": where a published number stands."""
    return f"{DOCUMENTS.get(source, source)} ({source}), table {table}"


def natural(text: str, short_first: bool = False) -> list[tuple[int, float, str]]:
    """Return a sort key: numbers as numbers; on request shorter words first (κ, λ before κ+λ)."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    length = len if short_first else lambda _: 1
    return [(0, float(p), "") if p[0].isdigit() else (length(p), 0.0, p) for p in parts]
