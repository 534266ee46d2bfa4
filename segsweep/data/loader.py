"""From records to batches, in an order that depends on nothing but (seed, step).

What a training step sees is a pure function of the seed and the global step: the order of an epoch
comes from (seed, epoch), the augmentation of a sample from (seed, epoch, index). So a run that is
stopped anywhere goes on with exactly the batches it would have seen, with any number of workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segsweep.base.errors import UserError
from segsweep.base.signals import deaf
from segsweep.data.base import IGNORE, DataSet, Record, trainable
from segsweep.data.geometry import DIVISOR, Size, View, evaluation_geometry
from segsweep.data.photometric import distorted
from segsweep.data.transforms import Sample, sample, training_geometry

if TYPE_CHECKING:
    import numpy as np

    Decoded = tuple[np.ndarray, np.ndarray | None]  # (H, W, 3) pixels, (H, W) label map

CACHE = 256 << 20  # bytes of decoded images that a loader keeps, over all its workers
Key = tuple[int, int]  # epoch, index of the record


@dataclass
class Target:
    """The instances of one image, or the regions of its classes.

    `labels` (n,) int64; `boxes` (n, 4) cxcywh in parts of the unpadded size; `masks` (n, H, W)
    bool in the padded frame; `size` is (h, w) of the image without padding, None where it fills the
    frame. A semantic image has its `label_map` (H, W) uint8 as well: class, BACKGROUND where it is
    known to be of none, IGNORE where nobody knows, and in the padding.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor
    size: Size | None = None
    label_map: Tensor | None = None

    def to(self, device: torch.device | str) -> Target:
        """Return the target on another device."""
        tensors = {name: t.to(device) for name, t in vars(self).items() if isinstance(t, Tensor)}
        return replace(self, **tensors)


@dataclass
class Batch:
    """What one step sees.

    `images` (B, 3, H, W) float32, normalised, then padded with zeros at the bottom and right;
    `sizes` are (h, w) without padding, `original_sizes` those of the files.
    """

    images: Tensor
    sizes: list[Size]
    original_sizes: list[Size]
    image_ids: list[int]
    targets: list[Target]

    @property
    def views(self) -> list[View]:
        """What is needed to bring what is found on each image back to its own pixels."""
        padded = (self.images.shape[-2], self.images.shape[-1])
        frames = zip(self.sizes, self.original_sizes, strict=True)
        return [(size, padded, original) for size, original in frames]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        targets = [target.to(device) for target in self.targets]
        return replace(self, images=self.images.to(device), targets=targets)

    def parts(self, size: int) -> list[Batch]:
        """Return the batch as several of at most `size` images, padded as before."""
        ranges = [slice(i, i + size) for i in range(0, len(self.targets), size)]
        return [Batch(**{name: all_[part] for name, all_ in vars(self).items()}) for part in ranges]


def generator(*key: int) -> torch.Generator:
    """Return a generator that is a function of a few integers of any size."""
    import numpy as np

    state = np.random.SeedSequence([k % (1 << 64) for k in key]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def collate(samples: list[Sample], data: DataSet, least: list[int] | None = None) -> Batch:
    """Normalise and pad samples to the largest, rounded up to a multiple of 32, into one batch.

    `least` is a height and width that they are padded to in any case.
    """
    mean = torch.tensor(data.mean).view(3, 1, 1)
    std = torch.tensor(data.std).view(3, 1, 1)
    sizes = [(s.image.shape[1], s.image.shape[2]) for s in samples]
    sides = zip(*sizes, least or sizes[0], strict=True)
    height, width = (-(-max(side) // DIVISOR) * DIVISOR for side in sides)
    images = torch.zeros(len(samples), 3, height, width)
    targets = []
    for image, (h, w), s in zip(images, sizes, samples, strict=True):
        image[:, :h, :w] = (s.image - mean) / std
        masks = torch.zeros(len(s.labels), height, width, dtype=torch.bool)
        masks[:, :h, :w] = s.masks
        targets.append(Target(s.labels, s.boxes, masks, (h, w), padded(s.label_map, height, width)))
    originals = [(s.record.height, s.record.width) for s in samples]
    return Batch(images, sizes, originals, [s.record.image_id for s in samples], targets)


def padded(label_map: Tensor | None, height: int, width: int) -> Tensor | None:
    """Put a label map into a frame of which the rest is unknown. (h, w) -> (height, width)"""
    if label_map is None:
        return None
    frame = torch.full((height, width), IGNORE, dtype=torch.uint8)
    frame[: label_map.shape[0], : label_map.shape[1]] = label_map
    return frame


class Samples(Dataset[Sample]):
    """Records as samples by (epoch, index); without a seed as evaluation sees them."""

    def __init__(self, data: DataSet, records: list[Record], seed: int | None, room: int) -> None:
        self.data = data
        _ = data.levels  # once, not in each process
        self.records = records
        self.seed = seed
        self.room = room  # bytes left for decoded images
        self.cache: dict[int, Decoded] = {}

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        data, record = self.data, self.records[index]
        pixels, label_map = self.decoded(index)
        if self.seed is None:
            geometry = evaluation_geometry(data, record)
            return sample(pixels, record, geometry, label_map, data.boxes)
        draws = generator(self.seed, epoch, index)
        geometry = training_geometry(data, record, draws, label_map)
        seen = sample(pixels, record, geometry, label_map, data.boxes)
        if data.transform.value.varied:
            seen.image = distorted(seen.image, draws)
        return seen

    def decoded(self, index: int) -> Decoded:
        """Return an image and its label map, if any, from memory if they were there and fitted."""
        if index in self.cache:
            return self.cache[index]
        record = self.records[index]
        label_map = self.data.label_map(record) if record.labels else None
        arrays = (self.data.image(record), label_map)
        size = sum(array.nbytes for array in arrays if array is not None)
        if size <= self.room:
            self.room -= size
            self.cache[index] = arrays
        return arrays


def loader(
    data: DataSet,
    records: list[Record],
    keys: Iterable[list[Key]],
    workers: int,
    seed: int | None = None,
) -> DataLoader[Sample]:
    """Return a loader of the batches that `keys` names each time an iteration begins.

    Its own generator keeps the global one, which the model draws from, untouched.
    """
    varied = seed is not None and data.transform.value.varied
    return DataLoader(
        Samples(data, records, seed, CACHE // max(workers, 1)),
        batch_sampler=keys,
        collate_fn=partial(collate, data=data, least=data.crop if varied else None),
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator(),
        worker_init_fn=deaf,
    )


def served(loader: DataLoader[Sample]) -> Iterator[Batch]:
    """Yield the batches of a loader; an error of a worker without the traceback in its text."""
    try:
        yield from loader
    except UserError as error:
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None


class Steps:
    """The samples of global steps: epoch after epoch in an order drawn from (seed, epoch).

    Serves as batch sampler: each iteration goes through the steps of `span`. Of several processes
    that train together, each takes its `share` (rank, processes) of every batch.
    """

    def __init__(self, records: int, batch_size: int, seed: int) -> None:
        self.records, self.batch_size, self.seed = records, batch_size, seed
        self.per_epoch = records // batch_size  # the last incomplete batch is dropped
        self.span: Iterable[int] = ()
        self.share: tuple[int, int] = (0, 1)

    def __iter__(self) -> Iterator[list[Key]]:
        order = lru_cache(maxsize=1)(self.order)
        rank, processes = self.share
        for step in self.span:
            epoch, place = divmod(step, self.per_epoch)
            start = place * self.batch_size
            places = slice(start + rank, start + self.batch_size, processes)
            yield [(epoch, index) for index in order(epoch)[places]]

    def order(self, epoch: int) -> list[int]:
        """Return the order of all records in an epoch."""
        return torch.randperm(self.records, generator=generator(self.seed, epoch)).tolist()


class TrainLoader:
    """The batches of training, from any global step on as if the steps before had been taken.

    Crowds are left out, and images without instances unless `data.negatives` keeps them. The last
    incomplete batch of an epoch is dropped; a set smaller than a batch is one batch, but for what
    is left of it over a number of images that are taken `together`.

    Raises UserError if no image has an instance to learn.
    """

    def __init__(
        self, data: DataSet, batch_size: int, seed: int, workers: int = 0, together: int = 1
    ) -> None:
        records = trainable(data)
        if all(record.negative for record in records):
            raise UserError(f"data={data.name}: no training image has an annotated instance")
        size = min(batch_size, len(records))
        size -= size % together if size > together else 0
        self._steps = Steps(len(records), size, seed)
        self._loader = loader(data, records, self._steps, workers, seed)

    def __len__(self) -> int:
        """Steps per epoch."""
        return self._steps.per_epoch

    def share(self, rank: int, processes: int) -> None:
        """Serve one process's share of every batch.

        Raises UserError if there are fewer images in a batch than processes.
        """
        if self._steps.batch_size < processes:
            raise UserError(
                f"hparams.batch_size={self._steps.batch_size}: {processes} devices need at least "
                "one image each"
            )
        self._steps.share = (rank, processes)

    def batches(self, step: int, count: int | None = None) -> Iterator[Batch]:
        """Yield the batches of global steps `step`, `step` + 1 ...; `count` of them, or endless."""
        self._steps.span = itertools.count(step) if count is None else range(step, step + count)
        yield from served(self._loader)

    def epoch(self, step: int, per_epoch: int | None = None) -> Iterator[Batch]:
        """Yield what is left of the epoch that a global step belongs to."""
        per_epoch = per_epoch or len(self)
        yield from self.batches(step, per_epoch - step % per_epoch)


class EvalLoader:
    """The batches of evaluation: every image of a split, always in the order of its records."""

    def __init__(self, data: DataSet, split: str, batch_size: int, workers: int = 0) -> None:
        records = data.records(split)
        keys = [(0, index) for index in range(len(records))]
        steps = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
        self._loader = loader(data, records, steps, workers)

    def __len__(self) -> int:
        """Batches of the split."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        yield from served(self._loader)

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from one on."""
        yield from itertools.islice(self, first, None)
