"""Match the leaves of a file with the model's classes, and refuse what does not match.

Positions are never guessed. A hierarchy whose leaves are in another order than the model's outputs
looks right and answers wrongly, as the TinyImageNet trees of the original NBDT do.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nbdt.errors import NBDTError, listed, nearest
from nbdt.tree.nodes import nfc, short


class FormatError(NBDTError):
    """A file that cannot be read, or a format that cannot be written."""


@dataclass(frozen=True)
class Leaf:
    """A leaf as its file describes it; None for what the file does not state."""

    id: str
    label: str | None = None
    wnid: str | None = None
    class_index: int | None = None


def class_names(
    leaves: Sequence[Leaf], classes: Sequence[str] | None, wnids: Sequence[str] | None
) -> tuple[dict[str, str], list[str]]:
    """Return the class name of each leaf id, and the class names in order.

    The order comes from `wnids` (ids of the leaves), else from the file's class indices, else from
    `classes`, which must then name the leaves.

    Raises FormatError: no order, ids or names that are not those of the leaves, or two
    contradictory orders.
    """
    if wnids is not None:
        ordered = _by_ids(leaves, wnids)
    elif any(leaf.class_index is not None for leaf in leaves):
        ordered = _by_index(leaves)
    elif classes is not None:
        ordered = _by_names(leaves, classes)
    else:
        raise FormatError(
            "The file does not state the class order. Pass the class names in the "
            "model's order as classes=[…], or the file of ids that goes with it as wnids=…."
        )
    names = _labels(ordered) if classes is None else list(classes)
    if classes is not None:
        _check_agreement(ordered, classes)
    return {leaf.id: name for leaf, name in zip(ordered, names, strict=True)}, names


def check_order(in_file: Sequence[str], classes: Sequence[str] | None) -> None:
    """Refuse `classes` that contradict the order in a file. Raises FormatError."""
    if classes is None or [*map(nfc, in_file)] == [*map(nfc, classes)]:
        return
    _check_same(in_file, classes, "class")
    place = next(i for i, (a, b) in enumerate(zip(in_file, classes, strict=True)) if a != b)
    raise _contradiction(place, short(in_file[place]), short(classes[place]))


def _contradiction(place: int, in_file: str, given: str) -> FormatError:
    return FormatError(
        f"The class order contradicts the given classes: class {place} is {in_file} in the file and "
        f"{given} in the given classes. The wrong order would mislabel answers: find out which is "
        "the model's, and pass only that."
    )


def _check_same(in_file: Sequence[str], given: Sequence[str], what: str) -> None:
    """Check that both lists contain the same items, each once. Raises FormatError."""
    twice = [item for item, times in Counter(given).items() if times > 1]
    if twice:
        raise FormatError(f"The {what} {listed(twice)} is given more than once.")
    missing = [item for item in given if item not in set(in_file)]
    extra = sorted(set(in_file) - set(given))
    if missing or extra:
        hint = nearest(str(missing[0]), in_file) if missing else ""
        raise FormatError(
            f"The file has {len(in_file)} leaves, and {len(given)} are given; not among the leaves: "
            f"{what} {listed(missing) or 'none'}; not given: {listed(extra) or 'none'}.{hint}"
        )


def _by_ids(leaves: Sequence[Leaf], wnids: Sequence[str]) -> list[Leaf]:
    by_id = {leaf.id: leaf for leaf in leaves}
    _check_same([*by_id], wnids, "id")
    ordered = [by_id[wnid] for wnid in wnids]
    indices = [leaf.class_index for leaf in ordered]
    if any(index is not None for index in indices) and indices != [*range(len(indices))]:
        raise FormatError("The file's class indices contradict the order of the given ids.")
    return ordered


def _by_index(leaves: Sequence[Leaf]) -> list[Leaf]:
    by_index = {leaf.class_index: leaf for leaf in leaves}
    if {*by_index} != {*range(len(leaves))}:
        shown = listed(leaf.class_index for leaf in leaves)
        raise FormatError(
            f"The class indices of {len(leaves)} leaves should be 0 to {len(leaves) - 1}, each "
            f"once; they are {shown}."
        )
    return [by_index[place] for place in range(len(leaves))]


def _by_names(leaves: Sequence[Leaf], classes: Sequence[str]) -> list[Leaf]:
    """Match each class with exactly one leaf, by its id or by a word for it."""
    by_id = {leaf.id: leaf for leaf in leaves}
    if len(classes) == len(leaves) and by_id.keys() == {*classes}:
        return [by_id[name] for name in classes]
    found = _places(leaves, classes)
    places = [place for match in found if len(match) == 1 for place in match]
    if len(places) == len(classes) == len(leaves) == len({*places}):
        return [leaves[place] for place in places]
    _check_same([leaf.label or leaf.id for leaf in leaves], classes, "class")
    raise FormatError(
        "Several leaves have the same label, so names cannot tell the classes apart; pass the "
        "file of ids that goes with this file as wnids=…."
    )


def _places(leaves: Sequence[Leaf], classes: Sequence[str]) -> list[set[int]]:
    """Return the leaves that each name can mean, by id or label."""
    owners: dict[str, set[int]] = {}
    for place, leaf in enumerate(leaves):
        for word in filter(None, (leaf.id, leaf.label, leaf.wnid)):
            for spelt in _spelt(word):
                owners.setdefault(spelt, set()).add(place)
    return [set().union(*(owners.get(word, ()) for word in _spelt(name))) for name in classes]


def _labels(ordered: Sequence[Leaf]) -> list[str]:
    """Return labels as class names, with the id if two leaves share a label."""
    names = [leaf.label or leaf.id for leaf in ordered]
    times = Counter(names)
    return [
        f"{name} ({leaf.id})" if times[name] > 1 else name
        for name, leaf in zip(names, ordered, strict=True)
    ]


def _check_agreement(ordered: Sequence[Leaf], classes: Sequence[str]) -> None:
    """Refuse names of other leaves in an order of leaves, or names most of which mean no leaf."""
    if len(ordered) != len(classes):
        raise FormatError(
            f"The file has {len(ordered)} leaves, but {len(classes)} classes are given."
        )
    found = _places(ordered, classes)
    for place, match in enumerate(found):
        if match and place not in match:
            leaf = ordered[place]
            shown = f"{short(leaf.label)} ({short(leaf.id)})" if leaf.label else short(leaf.id)
            raise _contradiction(place, shown, short(classes[place]))
    unsettled = [name for name, match in zip(classes, found, strict=True) if not match]
    if 2 * len(unsettled) > len(classes):
        raise FormatError(
            f"Most of the given classes ({listed(unsettled)}) match no leaf of the file, so the "
            "orders cannot be compared. Leave out classes to use the file's names."
        )


def _spelt(name: str) -> set[str]:
    """Return a name's words in lower case: two for "tench, Tinca_tinca", also "crane" for "crane (bird)"."""
    unqualified = re.sub(r" *\([^()]*\)$", "", name)
    pieces = (
        re.sub(r"[\s_-]+", " ", nfc(piece)) for piece in (name, unqualified, *name.split(","))
    )
    return {piece.strip().casefold() for piece in pieces} - {""}


def shape(value: object) -> str:
    """Describe a value of a file for a message."""
    if isinstance(value, dict):
        return f"an object with the keys {listed(list(value)[:4])}" if value else "an empty object"
    return short(value)
