"""Which leaf of a file is which class of the model, or a refusal: never a guess by position.

A tree whose leaves are in another order than the model's outputs looks right and answers wrongly:
the TinyImageNet trees of the original NBDT are so mislabelled.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nbdt.errors import NBDTError, listed, nearest
from nbdt.tree.nodes import short


class FormatError(NBDTError):
    """A file that cannot be read as, or a hierarchy that cannot be written in, a format."""


@dataclass(frozen=True)
class Leaf:
    """A leaf as a file describes it: id, label, WordNet id and class index, where it has them."""

    id: str
    label: str | None = None
    wnid: str | None = None
    class_index: int | None = None


def class_names(
    leaves: Sequence[Leaf], classes: Sequence[str] | None, wnids: Sequence[str] | None
) -> tuple[dict[str, str], list[str]]:
    """The class name of each leaf id, and the class names in order.

    The order is that of `wnids` (ids of the leaves), else the file's own class indices, else that
    of `classes`, whose names must then be those of the leaves.

    Raises:
        FormatError: no order at all, ids or names that are not those of the leaves, or two orders
            that contradict each other.
    """
    if wnids is not None:
        ordered = _by_ids(leaves, wnids)
    elif any(leaf.class_index is not None for leaf in leaves):
        ordered = _by_index(leaves)
    elif classes is not None:
        ordered = _by_names(leaves, classes)
    else:
        raise FormatError(
            "The file does not say in which order the classes are. Pass the class names in the "
            "model's order as classes=[…], or the file of ids that goes with it as wnids=…."
        )
    names = _labels(ordered)
    if classes is not None:
        _check_agreement(ordered, classes)
        names = list(classes)
    return {leaf.id: name for leaf, name in zip(ordered, names, strict=True)}, names


def check_order(found: Sequence[str], classes: Sequence[str] | None) -> None:
    """Refuse `classes` that contradict the order `found` in a file. Raises FormatError."""
    if classes is None or list(found) == list(classes):
        return
    _check_same(found, classes, "class")
    place = next(i for i, (one, two) in enumerate(zip(found, classes, strict=True)) if one != two)
    raise _contradiction(place, short(found[place]), short(classes[place]))


def _contradiction(place: int, found: str, given: str) -> FormatError:
    return FormatError(
        f"The class order contradicts the given classes: class {place} is {found} by the file and "
        f"{given} by the classes given. With either order the other's answers would be mislabelled: "
        "find out which is the model's, and pass only that."
    )


def _check_same(found: Sequence[str], given: Sequence[str], what: str) -> None:
    """Both lists hold the same items, each once. Raises FormatError."""
    twice = [item for item, times in Counter(given).items() if times > 1]
    if twice:
        raise FormatError(f"The {what} {listed(twice)} is given more than once.")
    missing = [item for item in given if item not in set(found)]
    extra = sorted(set(found) - set(given))
    if missing or extra:
        hint = nearest(str(missing[0]), found) if missing else ""
        raise FormatError(
            f"The file has {len(found)} leaves, and {len(given)} are given; not among the leaves: "
            f"{what} {listed(missing) or 'none'}; not given: {listed(extra) or 'none'}.{hint}"
        )


def _by_ids(leaves: Sequence[Leaf], wnids: Sequence[str]) -> list[Leaf]:
    by_id = {leaf.id: leaf for leaf in leaves}
    _check_same([*by_id], wnids, "id")
    ordered = [by_id[wnid] for wnid in wnids]
    indices = [leaf.class_index for leaf in ordered]
    if any(index is not None for index in indices) and indices != [*range(len(indices))]:
        raise FormatError("The file's class indices contradict the order of the ids given.")
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
    """Each class by the id, the label or the WordNet id of exactly one leaf, or by its words."""
    for key in (_id, _label, _wnid, _plain_label):
        found = {key(leaf): leaf for leaf in leaves}
        wanted = [plain(name) for name in classes] if key is _plain_label else list(classes)
        if len(found) == len(leaves) == len({*wanted}) and {*found} == {*wanted}:
            return [found[name] for name in wanted]
    ordered = _by_words(leaves, classes)
    if ordered is None:
        _check_same([leaf.label or leaf.id for leaf in leaves], classes, "class")
        raise FormatError(
            "Several leaves have the same label, so the classes cannot be told apart by name; pass "
            "the file of ids that goes with this file as wnids=…."
        )
    return ordered


def _by_words(leaves: Sequence[Leaf], classes: Sequence[str]) -> list[Leaf] | None:
    """Each class by a word that is one leaf's alone, WordNet's words for its synset included."""
    owners: dict[str, set[int]] = {}
    for place, leaf in enumerate(leaves):
        for word in _own_words(leaf) | _lemmas(leaf):
            owners.setdefault(word, set()).add(place)
    found = [set().union(*(owners.get(word, set()) for word in _spelt(name))) for name in classes]
    places = [next(iter(each)) for each in found if len(each) == 1]
    if len(places) == len(classes) == len(leaves) == len({*places}):
        return [leaves[place] for place in places]
    return None


def _id(leaf: Leaf) -> str | None:
    return leaf.id


def _label(leaf: Leaf) -> str | None:
    return leaf.label


def _wnid(leaf: Leaf) -> str | None:
    return leaf.wnid


def _plain_label(leaf: Leaf) -> str | None:
    return plain(leaf.label or leaf.id)


def plain(name: str) -> str:
    """Without what people write differently: ``"Egyptian_cat"`` is ``"egyptian cat"``."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _labels(ordered: Sequence[Leaf]) -> list[str]:
    """Labels as class names; with the id where two leaves have the same one."""
    names = [leaf.label or leaf.id for leaf in ordered]
    times = Counter(names)
    return [
        f"{name} ({leaf.id})" if times[name] > 1 else name
        for name, leaf in zip(names, ordered, strict=True)
    ]


# ---- does an order of ids agree with a list of names? -----------------------------------------


def _check_agreement(ordered: Sequence[Leaf], classes: Sequence[str]) -> None:
    """Refuse class names of which one belongs to another leaf, or most belong to none.

    Names that are no leaf's label ("automobile" where the file says "car") are looked up in
    WordNet; those that it does not know either are accepted while they are the lesser part.
    """
    if len(classes) != len(ordered):
        raise FormatError(
            f"The file has {len(ordered)} leaves, but {len(classes)} classes are given."
        )
    unsettled = _unsettled(ordered, classes, [_own_words(leaf) for leaf in ordered])
    if unsettled and any(leaf.wnid for leaf in ordered):
        words = [
            own | _lemmas(leaf) for own, leaf in zip(map(_own_words, ordered), ordered, strict=True)
        ]
        unsettled = _unsettled(ordered, classes, words)
    if 2 * len(unsettled) > len(classes):
        raise FormatError(
            f"Most of the given classes ({listed(unsettled)}) are not known under the names of the "
            "file's leaves, so it cannot be told whether the orders agree. Leave out classes to "
            "take the file's names."
        )


def _unsettled(
    ordered: Sequence[Leaf], classes: Sequence[str], words: Sequence[set[str]]
) -> list[str]:
    """Classes that are no leaf's word. Raises FormatError for one that is another leaf's alone."""
    owners: dict[str, int] = {}
    for place, own in enumerate(words):
        owners.update(dict.fromkeys(own, place))
    unsettled = []
    for place, name in enumerate(classes):
        spelt = _spelt(name)
        if spelt & words[place]:
            continue
        if spelt & owners.keys():
            raise _contradiction(place, _shown(ordered[place]), short(name))
        unsettled.append(name)
    return unsettled


def _spelt(name: str) -> set[str]:
    """What a class name says: "tench, Tinca tinca" two words, "crane (bird)" also "crane"."""
    unqualified = re.sub(r" *\([^()]*\)$", "", name)
    return {plain(piece) for piece in (name, unqualified, *name.split(","))} - {""}


def _shown(leaf: Leaf) -> str:
    return f"{short(leaf.label)} ({short(leaf.id)})" if leaf.label else short(leaf.id)


def _own_words(leaf: Leaf) -> set[str]:
    return {plain(word) for word in (leaf.id, leaf.label, leaf.wnid) if word}


def _lemmas(leaf: Leaf) -> set[str]:
    from ..wordnet.database import UnknownSynsetError, wordnet

    if leaf.wnid is None:
        return set()
    try:
        words: Iterable[str] = wordnet().lemmas(wordnet().index(leaf.wnid))
    except UnknownSynsetError:
        return set()
    return {plain(word) for word in words}
