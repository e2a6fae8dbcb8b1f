"""Labelled images in batches: from memory if they fit, else read again in each epoch.

Image ``i`` of epoch ``e`` looks the same in every run. Its draws come from the seed, the epoch and its
own index, so the number of workers and a resumed run change nothing.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nbdt.errors import NBDTError
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource, cores
from nbdt.network.preprocessing import Preprocessing

from ..recipe import AUTO, Recipe
from .augment import View, flips_alternate, plain_view, random_view, seeded

Batch: TypeAlias = tuple[Tensor, Tensor]
PLAIN_BATCH = 500
PLAIN_PIXELS = 16 * 256 * 256  # of such a batch: the memory of larger ones goes back to the system


class Images(NamedTuple):
    """Labelled images, in memory or decoded when they are needed.

    A label is a class index, or a group below 0: see `nbdt.tree.labels`.
    """

    labels: Tensor  # (count,) int64
    sources: Sequence[ImageSource] = ()  # of images that are decoded when they are needed
    pixels: Tensor | None = None  # (count, 3, size, size) uint8 of images in memory

    def pick(self, index: Tensor) -> "Images":
        """Return the images that an index or mask (count,) selects."""
        if self.pixels is not None:
            return Images(self.labels[index], pixels=self.pixels[index])
        chosen = index.nonzero().flatten() if index.dtype == torch.bool else index
        return Images(self.labels[index], [self.sources[i] for i in chosen.tolist()])

    def joined(self, other: "Images") -> "Images":
        """Return these and other images, which are in memory if these are."""
        labels = torch.cat([self.labels, other.labels])
        if self.pixels is not None and other.pixels is not None:
            return Images(labels, pixels=torch.cat([self.pixels, other.pixels]))
        return Images(labels, [*self.sources, *other.sources])

    def open(self, index: int) -> Image.Image:
        """Return one image. Raises NBDTError if the file has become unreadable."""
        if self.pixels is not None:
            return Image.fromarray(self.pixels[index].permute(1, 2, 0).numpy())
        try:
            return self.sources[index].open()
        except ImageError as error:
            raise NBDTError(
                f"A training image cannot be read: {error}. Repair it and continue with --resume, "
                "or start again with --set skip_corrupt=true."
            ) from None


KEPT = 2  # images of each class that are never held out: cross-validation needs two


def hold_out(data: Images, amount: float, seed: int) -> tuple[Images, Images]:
    """Return `data` without some images of every class, and these images, drawn with `seed`.

    An `amount` below 1 is a share of each class, rounded up; another is a number of images of each. At
    least `KEPT` images of each class stay, and all that have a group as their label.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.labels), generator=generator)
    held = torch.zeros(len(order), dtype=torch.bool)
    for label in data.labels[data.labels >= 0].unique():
        members = order[data.labels[order] == label]
        count = min(held_out_count(len(members), amount), len(members) - KEPT)
        held[members[: max(0, count)]] = True
    return data.pick(~held), data.pick(held)


def held_out_count(count: int, amount: float) -> int:
    """Return how many of a class's `count` images `amount` holds out; see `hold_out`."""
    return math.ceil(amount * count) if amount < 1 else int(amount)


def worker_count(recipe: Recipe) -> int:
    """Return how many processes read images."""
    if recipe.workers != AUTO:
        return recipe.workers
    return min(12, max(0, cores() - 1))


class Views(Dataset[Batch]):
    """Images as a view shows them, uint8 (3, size, size), with their labels."""

    def __init__(self, data: Images, view: View) -> None:
        self.data, self.view = data, view

    def __len__(self) -> int:
        return len(self.data.labels)

    def __getitem__(self, index: int) -> Batch:
        return self.view(self.data.open(index)), self.data.labels[index]


class RandomViews(Dataset[Batch]):
    """Random views of images, by (epoch, index).

    Where flips alternate, each image is flipped in every other epoch, half of them in the first: fewer
    repeated views (Jordan, 94 % on CIFAR-10 in 3.29 Seconds, 2024).
    """

    def __init__(self, data: Images, recipe: Recipe, preprocessing: Preprocessing) -> None:
        self.views, self.seed = Views(data, random_view(recipe, preprocessing)), recipe.seed
        generator = torch.Generator().manual_seed(recipe.seed)
        first = torch.randperm(len(self.views), generator=generator) % 2
        self.first_flip = first if flips_alternate(recipe) else None

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        with seeded(self.seed, epoch, index):
            image, label = self.views[index]
        flipped = self.first_flip is not None and (self.first_flip[index] + epoch) % 2 == 0
        return image.flip(-1) if flipped else image, label


class TrainingBatches:
    """Shuffled, augmented batches, one epoch after another; a last, partial batch is left out.

    Lightning sets the epoch (through `sampler`) and saves `state_dict` with a checkpoint, so a resumed
    run continues with the next batch.

    Each of several ranks takes its own images of every batch. Together they see the same batches and
    the same views as one process.
    """

    rank, ranks = 0, 1

    def __init__(self, data: Images, recipe: Recipe, preprocessing: Preprocessing) -> None:
        self.count, self.seed = len(data.labels), recipe.seed
        self.batch_size = min(recipe.batch_size, self.count)
        self.epoch = self.position = 0
        self.sampler = self
        self._keys: list[list[tuple[int, int]]] = []  # of each batch; the loader reads this list
        views, workers = RandomViews(data, recipe, preprocessing), worker_count(recipe)
        self._loader = _loader(views, self._keys, workers, persistent=True)

    def __len__(self) -> int:
        return self.count // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, unless it is the one that was restored in the middle."""
        if epoch != self.epoch or self.position >= len(self):
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and how many of its batches were taken."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a state."""
        self.epoch, self.position = state["epoch"], state["position"]

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.count, generator=generator)[: len(self) * self.batch_size]
        self._keys[:] = [
            [(self.epoch, index) for index in batch[self.rank :: self.ranks].tolist()]
            for batch in order.split(self.batch_size)[self.position :]
        ]
        for batch in self._loader:
            self.position += 1
            yield batch

    def share(self, rank: int, ranks: int) -> None:
        """Take only the images of one rank. Raises NBDTError if the batches cannot be divided."""
        if self.batch_size % ranks:
            raise NBDTError(
                f"A batch of {self.batch_size} images cannot be divided evenly among {ranks} "
                f"devices; choose a multiple: --set batch_size={math.ceil(self.batch_size / ranks) * ranks}."
            )
        self.rank, self.ranks = rank, ranks


class PlainBatches:
    """The images in order, unaugmented; images that are not in memory are framed for the network."""

    def __init__(self, data: Images, preprocessing: Preprocessing, workers: int = 0) -> None:
        self.data, self.preprocessing, self.workers = data, preprocessing, workers
        self.batch_size = max(1, min(PLAIN_BATCH, PLAIN_PIXELS // preprocessing.size**2))
        self.share(0, 1)

    def share(self, rank: int, ranks: int) -> None:
        """Take only the images of one rank."""
        self._chosen = range(rank, len(self.data.labels), ranks)

    def __len__(self) -> int:
        return math.ceil(len(self._chosen) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        chosen, size = self._chosen, self.batch_size
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        if self.data.pixels is not None:
            for batch in batches:
                part = slice(batch.start, batch.stop, batch.step)
                yield self.data.pixels[part], self.data.labels[part]
            return
        yield from _loader(Views(self.data, plain_view(self.preprocessing)), batches, self.workers)


def _loader(
    views: Dataset[Batch], keys: Iterable[Any], workers: int, *, persistent: bool = False
) -> DataLoader[Batch]:
    return DataLoader(
        views,
        batch_sampler=keys,
        num_workers=workers,
        persistent_workers=persistent and workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return uint8 images as the network's input, channels last in memory."""
    scale = torch.tensor(std, device=images.device)[:, None, None] * 255
    shift = torch.tensor(mean, device=images.device)[:, None, None] * 255
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)
