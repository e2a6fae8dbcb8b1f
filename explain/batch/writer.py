"""Which parts of a batch are left to do, and how one of them is computed and written."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.images.sources import ImageSource
from nbdt.model.model import NBDT

from ..result.explanation import Explanation
from ..result.pictures import picture, png
from .compute import Decoded, Decoder, Explainer, made_on
from .folder import BatchFolder
from .options import BatchOptions
from .rows import FAILED, drawn_name, packed_maps, parquet, plain_path, row_of

Row: TypeAlias = Mapping[str, Any]


@dataclass
class PartQueue:
    """The parts of this run's share that are not done, and counts of all its parts."""

    folder: BatchFolder
    size: int
    shard: tuple[int, int]
    on_images: Callable[[int], None]
    count: int = 0
    images: int = 0
    failed: int = 0
    repeated: int = 0
    waiting: deque[tuple[int, int]] = field(default_factory=deque)

    def parts(self, inputs: Iterator[ImageSource]) -> Iterator[tuple[int, list[ImageSource]]]:
        """Yield number and inputs of the parts of this share."""
        number, shards = self.shard
        for part, members in enumerate(parts_of(inputs, self.size)):
            self.count += 1
            if part % shards == number - 1:
                yield part, members

    def unfinished(self, inputs: Iterator[ImageSource]) -> Iterator[ImageSource]:
        """Yield the inputs of unfinished parts; a part is in `waiting` once its first input came."""
        for part, members in self.parts(inputs):
            if self.folder.is_done(part, members):
                self.add(len(members), self.folder.facts(part)["failed"], repeated=True)
                continue
            self.folder.forget(part)
            self.waiting.append((part, len(members)))
            yield from members

    def add(self, images: int, failed: int, *, repeated: bool) -> None:
        """Count the images of a part that is done."""
        self.images += images
        self.failed += failed
        self.repeated += images if repeated else 0
        self.on_images(images)


@dataclass(frozen=True)
class PartWriter:
    """Computes one part and writes its files, the rows last."""

    model: NBDT
    explainer: Explainer
    folder: BatchFolder
    options: BatchOptions
    on_images: Callable[[int], None]

    def write(self, part: int, images: Iterator[Decoded]) -> list[Row]:
        """Write all files of a part and return its rows; raises as `BatchFolder.write` does."""
        self.folder.check_present()
        first = part * self.options.part_size
        rows: list[Row] = []
        maps: list[tuple[int, Sequence[Any]]] = []
        with self.folder.drawing(part) as folders:
            while chunk := list(islice(images, self.options.batch_size)):
                for decoded, result in zip(chunk, self._explain(chunk), strict=True):
                    index = first + len(rows)
                    rows.append(row_of(index, decoded, result))
                    if not isinstance(result, str):
                        maps.append((index, result.maps))
                        _draw(result, index, decoded.reference, folders)
                self.on_images(len(chunk))
        if "maps" in self.folder.kinds:
            self.folder.write("maps", part, packed_maps(maps))
        made = made_on(self.model, self.options.precision)
        facts = {"made": made, "model": self.folder.model}
        self.folder.write("rows", part, parquet(rows, facts))
        return rows

    def write_all(
        self, queue: PartQueue, inputs: Iterator[ImageSource], decoder: Decoder
    ) -> Iterator[list[Row]]:
        """Yield the rows of each unfinished part; images are decoded ahead across parts."""
        with closing(decoder(queue.unfinished(inputs))) as images:
            for first in images:
                part, size = queue.waiting.popleft()
                rows = self.write(part, chain([first], islice(images, size - 1)))
                queue.images += size
                queue.failed += count_failed(rows)
                yield rows

    def _explain(self, chunk: Sequence[Decoded]) -> list[Explanation | str]:
        good = [image for image in chunk if image.error is None]
        results = iter(self._forward(good))
        return [next(results) if image.error is None else image.error for image in chunk]

    def _forward(self, good: Sequence[Decoded]) -> list[Explanation | str]:
        """One pass; where an image spoils it, one pass for each."""
        if not good:
            return []
        pixels = np.stack([image.pixels for image in good if image.pixels is not None])
        device = self.model.device
        images = self.model.preprocess.normalise(torch.from_numpy(pixels).to(device))
        try:
            explanations = self.explainer(images)
        except torch.OutOfMemoryError:
            raise NBDTError(
                f"The memory of {device} is full with {len(good)} images in one pass; take fewer: "
                "--batch-size, and a new --out."
            ) from None
        except NBDTError as error:
            if len(good) == 1:
                return [f"{good[0].reference!r}: {error}"]
            return [result for image in good for result in self._forward([image])]
        return [
            replace(explanation, photo=image.photo)
            for explanation, image in zip(explanations, good, strict=True)
        ]


def parts_of(inputs: Iterator[ImageSource], size: int) -> Iterator[list[ImageSource]]:
    """Yield lists of `size` inputs, the last one shorter."""
    while part := list(islice(inputs, size)):
        yield part


def count_failed(rows: Iterable[Row]) -> int:
    """Return how many rows are of images that could not be explained."""
    return sum(row["status"] == FAILED for row in rows)


def _draw(
    explanation: Explanation, index: int, reference: str, folders: Mapping[str, Path]
) -> None:
    """Write the page and the picture of one image, as far as the batch has them."""
    name = drawn_name(index, plain_path(reference))
    if "pages" in folders:
        explanation.save(folders["pages"] / name)
    if "pictures" in folders:
        write_atomic(folders["pictures"] / f"{name}.png", png(picture(explanation)))
