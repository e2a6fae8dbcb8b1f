"""A data set whose labels are classes of a hierarchy."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import NBDTError, listed, nearest
from ..tree.class_names import class_of_name, labels_by_name, normalised_name
from ..tree.hierarchy import Hierarchy
from .dataset import DataSet
from .report import log
from .sources import ImageSource

Data: TypeAlias = "str | os.PathLike[str] | Sequence[ImageSource]"


class LabelledImages:
    """The images of a data set, which can be iterated any number of times, and their classes.

    A label may be a class's name, in any case and with spaces or underscores, or its WordNet id. If
    all labels are numbers and no names, they are the model's class numbers.

    Args:
        data: as `nbdt.images.dataset.iter_images` reads it, or a sequence of sources.
        split: the folder of a split inside, "test" for instance.
        groups: whether a label may also be a group of the hierarchy.

    Raises NBDTError: names the labels that are no class, with the model's classes; or unreadable data.
    """

    def __init__(
        self, data: Data, hierarchy: Hierarchy, split: str | None = None, *, groups: bool = False
    ) -> None:
        self.name, self.split = "the data", split
        self._sources: Sequence[ImageSource] = ()
        if isinstance(data, str | os.PathLike):
            self.name, read = os.fspath(data), DataSet(data)
            self._data: DataSet | None = read
            times = read.labels(split)
            read.say(split)
        else:
            self._data, self._sources = None, data
            times = Counter(source.class_label for source in data)
        self._labels = (labels_by_name if groups else class_of_name)(hierarchy)
        numbers = {str(index): index for index in range(hierarchy.num_classes)}
        if times and self._labels.keys().isdisjoint(times) and times.keys() <= numbers.keys():
            log.info(
                "%s: the labels are read as numbers of the model's classes, from 0.", self.name
            )
            self._labels = numbers
        unknown = sorted(label for label in times if normalised_name(label) not in self._labels)
        if unknown:
            raise NBDTError(
                f"{self.name!r} has {len(times)} labels; {len(unknown)} of them are not classes "
                f"{'or groups ' if groups else ''}of the model: {listed(unknown)}."
                f"{nearest(unknown[0], hierarchy.classes)} The model's {hierarchy.num_classes} classes "
                f"are {listed(hierarchy.classes)}; name the folders like the classes, or by WordNet id."
            )
        self._count = times.total()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[ImageSource]:
        return iter(self._sources) if self._data is None else self._data.images(self.split)

    def labels(self, sources: Iterable[ImageSource]) -> Tensor:
        """Return the label of each image, as in `nbdt.tree.labels`: (images,) int64."""
        names = [normalised_name(source.class_label) for source in sources]
        return torch.tensor([self._labels[name] for name in names], dtype=torch.int64)
