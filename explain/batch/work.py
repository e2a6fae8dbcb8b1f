"""A batch's work: which parts are left to do, and how one of them is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.images.inputs import Input, parts_of
from nbdt.model.model import NBDT

from ..result.explanation import Explanation
from ..result.pictures import picture, png
from .device import made_on
from .folder import BatchFolder
from .job import Explain, Job
from .loading import Loaded, Loader
from .rows import FAILED, drawn_name, packed_maps, parquet, plain_path, row_of

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one part; one without images stands behind the last, its number their count."""

    part: int
    images: int
    failed: int
    made: bool


@dataclass
class Parts:
    """Deals out the parts that are this run's and not done, and counts."""

    folder: BatchFolder
    size: int
    shard: tuple[int, int]
    tell: Callable[[int], None]
    verify: bool
    count: int = 0
    images: int = 0
    failed: int = 0
    repeated: int = 0
    waiting: deque[tuple[int, int]] = field(default_factory=deque)

    def unfinished(self, inputs: Iterator[Input]) -> Iterator[Input]:
        """The inputs of the parts to make, which stand in `waiting` once the first is given."""
        number, shards = self.shard
        for part, members in enumerate(parts_of(inputs, self.size)):
            self.count += 1
            if part % shards != number - 1:
                continue
            self.images += len(members)
            if self.folder.is_done(part, members, every_byte=self.verify):
                self.repeated += len(members)
                self.failed += self.folder.facts(part)["failed"]
                self.tell(len(members))
                continue
            self.folder.forget(part)
            self.waiting.append((part, len(members)))
            yield from members

    def add(self, outcome: Outcome) -> None:
        """Count a part that a cluster has made, or found done."""
        if not outcome.images:
            self.count = outcome.part
            return
        self.images += outcome.images
        self.failed += outcome.failed
        self.repeated += 0 if outcome.made else outcome.images
        self.tell(outcome.images)


@dataclass(frozen=True)
class Work:
    """Makes one part: forward passes, then its files, its rows last."""

    model: NBDT
    run: Explain
    folder: BatchFolder
    job: Job
    tell: Callable[[int], None]

    def make(self, part: int, images: Iterator[Loaded]) -> list[Row]:
        """The rows of a part, once they and all else of it are on the disk."""
        first = part * self.job.part_size
        rows: list[Row] = []
        maps: list[tuple[int, Sequence[Any]]] = []
        with self.folder.drawing(part) as draw:
            while chunk := list(islice(images, self.job.batch_size)):
                for loaded, found in zip(chunk, self._explain(chunk), strict=True):
                    index = first + len(rows)
                    rows.append(row_of(index, loaded, found))
                    if not isinstance(found, str):
                        maps.append((index, found.maps))
                        _draw(found, index, loaded.reference, draw)
                self.tell(len(chunk))
        if "maps" in self.folder.kinds:
            self.folder.write("maps", part, packed_maps(maps))
        self.folder.write(
            "rows", part, parquet(rows, {"made": made_on(self.model, self.job.precision)})
        )
        return rows

    def make_all(
        self, parts: Parts, inputs: Iterator[Input], loader: Loader
    ) -> Iterator[list[Row]]:
        """The rows of each unfinished part; images are loaded ahead across parts."""
        loaded = loader(parts.unfinished(inputs))
        for first in loaded:
            part, size = parts.waiting.popleft()
            rows = self.make(part, chain([first], islice(loaded, size - 1)))
            parts.failed += count_failed(rows)
            yield rows

    def _explain(self, chunk: Sequence[Loaded]) -> list[Explanation | str]:
        good = [item for item in chunk if item.error is None]
        found = iter(self._forward(good))
        return [next(found) if item.error is None else item.error for item in chunk]

    def _forward(self, good: Sequence[Loaded]) -> list[Explanation | str]:
        """One pass; where an image spoils it, one pass for each."""
        if not good:
            return []
        pixels = np.stack([item.pixels for item in good if item.pixels is not None])
        device = self.model.device
        images = self.model.preprocess.normalise(torch.from_numpy(pixels).to(device))
        try:
            found = self.run(images)
        except torch.OutOfMemoryError:
            raise NBDTError(
                f"The memory of {device} is full with {len(good)} images in one pass; take fewer: "
                "--batch-size, and a new --out."
            ) from None
        except NBDTError as error:
            if len(good) == 1:
                return [f"{good[0].reference!r}: {error}"]
            return [one for item in good for one in self._forward([item])]
        return [replace(one, photo=item.photo) for one, item in zip(found, good, strict=True)]


def count_failed(rows: Iterable[Row]) -> int:
    """How many of them are of images that could not be explained."""
    return sum(row["status"] == FAILED for row in rows)


def _draw(explanation: Explanation, index: int, reference: str, places: Mapping[str, Path]) -> None:
    """Its page and picture, where these are wanted."""
    name = drawn_name(index, plain_path(reference))
    if "pages" in places:
        explanation.save(places["pages"] / name)
    if "pictures" in places:
        write_atomic(places["pictures"] / f"{name}.png", png(picture(explanation)))
