"""Singular values of weights of a run, or of its update: tuned minus base weights.

Figure 2 of the paper on VFM-Adapter plots the former of attention weights; what it argues about,
the low rank of tuning, is a matter of the latter. Numbers beside are our definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segsweep.base.errors import Damaged, UserError
from segsweep.base.files import read_json
from segsweep.run.shapes import COUNT

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from segsweep.base.config import Config
    from segsweep.model.segmenter import Segmenter
    from segsweep.peft.sites import Site

OF = ("update", "weight")
SHARE = 0.9  # of the squared mass
BINS = 50
AGAIN = "delete it: python -m segsweep spectrum writes it again"
Layers = dict[int, list["Site"]]
"""Weights by the number of their layer or block, from 1 on."""


@dataclass(frozen=True)
class Spectrum:
    """The singular values (n,) of a matrix of some shape, the largest first; n is its lesser side.

    `layer` counts from 1. `part` is `fused` of queries, keys and values in one matrix, `q`, `k` or
    `v` of its rows, else what the weight is called in its layer. `trained` says whether the weight
    itself was, so that every entry was free.
    """

    layer: int
    weight: str
    part: str
    trained: bool
    shape: tuple[int, int]
    values: np.ndarray

    @property
    def effective_rank(self) -> float | None:
        """exp(entropy of s / sum s) (Roy and Vetterli 2007), n for the identity; None for zeros."""
        shares = self.values[self.values > 0] / self.values.sum() if self.values.any() else []
        return float(np.exp(-np.sum(shares * np.log(shares)))) if len(shares) else None

    @property
    def stable_rank(self) -> float | None:
        """|W|_F^2 / s_1^2 (Rudelson and Vershynin 2007), None for zeros."""
        return float(np.sum((self.values / self.values[0]) ** 2)) if self.values.any() else None

    def held(self) -> np.ndarray:
        """Share of the squared mass |W|_F^2 that the best approximations of rank 1 to n hold."""
        squares = np.cumsum((self.values / self.values[0]) ** 2)
        return squares / squares[-1]

    def rank(self, share: float = SHARE) -> int | None:
        """The least rank that holds a share of the squared mass, None for zeros."""
        return int(np.sum(self.held() < share - 1e-12)) + 1 if self.values.any() else None

    def histogram(self, highest: float) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of values in equal bins from 0 to the highest: (BINS,), edges (BINS + 1,)."""
        return np.histogram(self.values, BINS, (0, highest))


@dataclass(frozen=True)
class Spectra:
    """What was looked at in one run.

    `delta` is the hash of its trained tensors, None where it has none; `depth` counts its layers
    that have such weights, of which some are in `matrices`. `places` are filled ones, which are no
    weights, and are left out. `start` says what it started from, `steps` how far its weights went.
    """

    run: str
    of: str
    delta: str | None
    depth: int
    matrices: list[Spectrum]
    places: list[str]
    start: str
    steps: int

    def layers(self) -> dict[int, list[Spectrum]]:
        """Return the matrices of each layer."""
        numbers = dict.fromkeys(matrix.layer for matrix in self.matrices)
        return {k: [matrix for matrix in self.matrices if matrix.layer == k] for k in numbers}


MATRIX = {"layer": COUNT, "weight": str, "part": str, "trained": bool, "shape": [COUNT, COUNT],
          "values": [float]}  # fmt: skip
SPECTRA = {"run": str, "of": str, "delta": (str, None), "depth": COUNT, "matrices": [MATRIX],
           "places": [str], "start": str, "steps": COUNT}  # fmt: skip


def read(path: Path) -> Spectra | None:
    """Read what the verb `spectrum` wrote of a run, None where it did not. Raises Damaged."""
    kept = read_json(path, SPECTRA, AGAIN)
    if kept is None:
        return None
    matrices = []
    for matrix in kept["matrices"]:
        values = np.array(matrix["values"], float)
        if not len(values) or values[-1] < 0 or np.any(np.diff(values) > 0):
            raise Damaged(path, f"{matrix['weight']}: no singular values, the largest first", AGAIN)
        own: dict[str, Any] = {key: matrix[key] for key in MATRIX}
        matrices.append(Spectrum(**own | {"shape": tuple(matrix["shape"]), "values": values}))
    whole: dict[str, Any] = {key: kept[key] for key in SPECTRA}
    whole["matrices"] = matrices
    return Spectra(**whole)


def spectra(
    directory: Path,
    of: str,
    wanted: Sequence[int] = (),
    at: str = "",
    words: Sequence[str] = (),
) -> Spectra:
    """Decompose weights of a finished run, or their update, in double precision.

    What a method edits is merged first; the fillings of places cannot be.

    Args:
        directory: of the run.
        of: one of `OF`.
        wanted: layers, from 1 on; default: three of all, see `numbered`.
        at: a role of the model, or a pattern of weights; default: see `attention`.
        words: where the data lie, see `restore`.

    Raises:
        UserError: the run has not finished, its weights or those that it started from are gone or
            others, it has no such weights or layers, or changed none of them.
    """
    from segsweep.peft.apply import merge
    from segsweep.run.folder import DELTA, known_hash
    from segsweep.run.restore import finished, restore

    config, record = finished(directory, words)
    if of == "update" and not record["params"]["trainable"]:
        raise UserError(
            f"{directory.name}: peft={config.peft.name} trains nothing, so there is no update; "
            "of=weight shows the base"
        )
    start, begun = _start(config, record, wanted, at) if of == "update" else ("", {})
    model = restore(directory, words=words).model.double()
    trained = {site.name: site.parameter.requires_grad for site in chosen(model, config, at)}
    places = merge(model)
    layers = numbered(chosen(model, config, at))
    matrices = []
    for layer in picked(len(layers), wanted, config):
        for site in layers[layer]:
            matrix = _tensor(site) - begun[site.name] if of == "update" else _tensor(site)
            matrices += _decomposed(layer, site, matrix, trained[site.name])
    if not any(matrix.values.any() for matrix in matrices):
        added = f"; what it adds at places is no weight: {_some(places)}" if places else ""
        raise UserError(
            f"{directory.name}: peft={config.peft.name} changed none of these weights: "
            f"{_some([matrix.weight for matrix in matrices])}{added}"
        )
    delta, steps = known_hash(record, DELTA), (record.get("best") or {"step": 0})["step"]
    return Spectra(directory.name, of, delta, len(layers), matrices, places, start, steps)


def _start(
    config: Config, record: dict[str, Any], wanted: Sequence[int], at: str
) -> tuple[str, dict[str, Tensor]]:
    """Return what a run started from: in words, and the tensors of the layers that are wanted.

    Raises UserError where the file of base weights is another one now: a delta of all weights does
    not tell.
    """
    from segsweep.run.restore import base, subject

    model, loaded = base(config, record["data"]["classes"], subject(config, record))
    now, then = loaded.facts()["sha256"], (record.get("weights") or {}).get("sha256")
    if then and now != then:
        raise UserError(
            f"{record['name']}: the base weights {config.model.weights} are others now (sha256 "
            f"{str(now)[:12]}..., recorded {then[:12]}...); bring that file back"
        )
    layers = numbered(chosen(model, config, at))
    sites = [site for k in picked(len(layers), wanted, config) for site in layers[k]]
    return str(loaded), {site.name: _tensor(site) for site in sites}


def chosen(model: Segmenter, config: Config, at: str = "") -> list[Site]:
    """Return the matrices of a model at a role or pattern, or the attention of its backbone.

    Where the backbone has none, that is what the family calls `attention`, with its keys.

    Raises UserError for words that name nothing, and a model without attention.
    """
    from segsweep.model.family import QKV
    from segsweep.peft.sites import match, resolve

    def matrices(patterns: Sequence[str], strict: bool = False) -> list[Site]:
        sites = match(model, patterns, strict, "at")
        return [site for site in sites if site.parameter.ndim > 1 and not site.added]

    roles = config.model.roles
    if at:
        found = matrices(resolve([at], roles, "at"), strict=True)
    else:
        named = [*roles.get("attention", []), *roles.get("keys", [])]
        whole = list(dict.fromkeys(pattern.partition(":")[0] for pattern in named))
        found = matrices([QKV]) or matrices(whole)
    if not found:
        others = [role for role, patterns in roles.items() if matrices(patterns)]
        what = f"no matrix at {at}" if at else "no attention weights"
        raise UserError(
            f"model={config.model.name} has {what}; it has matrices at={'|'.join(others)}, or name "
            "some by a pattern, as in at='*.fc1.weight'"
        )
    return found


def numbered(sites: Sequence[Site]) -> Layers:
    """Number the layers or blocks that weights lie in, from 1 on, in the order of the model."""
    from segsweep.peft.places import layer_of

    names = list(dict.fromkeys(layer_of(site.name) or site.name for site in sites))
    layers: Layers = {k: [] for k in range(1, len(names) + 1)}
    for site in sites:
        layers[1 + names.index(layer_of(site.name) or site.name)].append(site)
    return layers


def picked(count: int, wanted: Sequence[int], config: Config) -> Sequence[int]:
    """Return the layers that are wanted, or the first of each third: 1, 5, 9 of 12, as printed.

    Raises UserError for one that there is not.
    """
    for layer in wanted:
        if not 1 <= layer <= count:
            raise UserError(
                f"layers={layer}: model={config.model.name} has {count} layers with such weights, "
                f"1 to {count}"
            )
    return wanted or sorted({1 + k * count // 3 for k in range(3)})


def _tensor(site: Site) -> Tensor:
    """Return a weight as it is now, all of its rows."""
    return getattr(site.module, site.attribute).detach().double()


def _decomposed(layer: int, site: Site, whole: Tensor, trained: bool) -> list[Spectrum]:
    """Decompose a matrix and, where it is fused, its thirds; a kernel counts as (out, in h w)."""
    from segsweep.peft.places import layer_of
    from segsweep.peft.sites import THIRDS

    own = site.name.removeprefix(f"{layer_of(site.name)}.").removesuffix(".weight")
    found = []
    for part in [site, *map(site.third, THIRDS)] if site.fused else [site]:
        matrix = whole[part.start : part.start + part.shape[0]].flatten(1).numpy()
        values = np.linalg.svd(matrix, compute_uv=False)
        name = part.rows or ("fused" if part.fused else own)
        found.append(Spectrum(layer, part.name, name, trained, matrix.shape, values))
    return found


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} ... {names[-1]} ({len(names)})" if names[1:] else "".join(names)
