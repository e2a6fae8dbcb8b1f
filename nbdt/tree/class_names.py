"""Which class of a model the label of a photograph means: its folder's name or a WordNet id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from ..errors import NBDTError, listed, nearest
from ..images.sources import ImageSource
from .hierarchy import Hierarchy
from .nodes import WNID

_WNID_FILE = re.compile(rf"({WNID.pattern})(?![0-9])")


def label_of(source: ImageSource) -> str:
    """The folder a photograph lies in or, in no folder, the WordNet id its file name starts with."""
    if source.label is not None:
        return source.label
    name = re.split(r"[/\\!]", source.reference)[-1]
    found = _WNID_FILE.match(name)
    return found[1] if found else f"(no folder: {name})"


def plain(name: str) -> str:
    """A label as it is compared: any case, spaces or underscores."""
    return name.casefold().replace("_", " ").strip()


def class_places(hierarchy: Hierarchy) -> dict[str, int]:
    """Class index by plain name and by WordNet id; names win, and shared ones are left out."""
    found: dict[str, int] = {}
    names = [plain(name) for name in hierarchy.classes]
    wnids = [wnid or "" for wnid in hierarchy.class_wnids]
    for keys in (wnids, names):
        times = Counter(keys)
        found.update({key: index for index, key in enumerate(keys) if times[key] == 1})
    found.pop("", None)
    return found


def check_labels(
    labels: Iterable[str], places: Mapping[str, int], hierarchy: Hierarchy, data: str
) -> None:
    """Refuse labels that are no class of the model.

    Raises:
        NBDTError: naming them all, with the model's classes.
    """
    given = set(labels)
    unknown = sorted(label for label in given if plain(label) not in places)
    if unknown:
        raise NBDTError(
            f"{data!r} has {len(given)} labels, of which {len(unknown)} are no class of the "
            f"model: {listed(unknown)}.{nearest(unknown[0], hierarchy.classes)} The model's "
            f"{hierarchy.num_classes} classes are {listed(hierarchy.classes)}; name the folders so, "
            "or by WordNet id."
        )


def check_same_classes(expected: Hierarchy, found: Hierarchy, name: str = "the hierarchy") -> None:
    """Refuse a tree that is not over the same classes in the same order. Raises NBDTError."""
    if found.classes == expected.classes:
        return
    same = {*found.classes} == {*expected.classes}
    pairs = zip(expected.classes, found.classes, strict=False)
    place, (wanted, got) = next(
        ((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]), (0, ("", ""))
    )
    how = f"in another order: class {place} is {got!r} instead of {wanted!r}"
    other = (
        f"other classes ({found.num_classes}, not {expected.num_classes}), the first that differs: "
        f"{got!r} instead of {wanted!r}"
    )
    raise NBDTError(
        f"The classes of {name} are not the model's: {how if same else other}. A tree goes "
        "with a model only over the model's own classes, in their order."
    )
