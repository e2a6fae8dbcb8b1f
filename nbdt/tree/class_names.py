"""Names of classes: how they are compared, and whether data and hierarchies have the same ones."""

from collections import Counter
from collections.abc import Sequence

from ..errors import NBDTError, listed
from .hierarchy import Hierarchy
from .nodes import nfc


def normalised_name(name: str) -> str:
    """Return a name as it is compared: in NFC, without differences of case, space and underscore."""
    return str(nfc(name)).casefold().replace("_", " ").strip()


def class_of_name(hierarchy: Hierarchy) -> dict[str, int]:
    """Return the class index by normalised name and by WordNet id.

    A name counts before an id; what several classes share is left out.
    """
    indices: dict[str, int] = {}
    names = [normalised_name(name) for name in hierarchy.classes]
    wnids = [wnid or "" for wnid in hierarchy.class_wnids]
    for keys in (wnids, names):
        times = Counter(keys)
        indices.update({key: index for index, key in enumerate(keys) if times[key] == 1})
    indices.pop("", None)
    return indices


def labels_by_name(hierarchy: Hierarchy) -> dict[str, int]:
    """Return labels (see `nbdt.tree.labels`) by normalised name of a class or group, and by id.

    A group is also called "unknown" and its name. A name that several groups share is left out, and a
    class's name is never a group's.
    """
    names = Counter(normalised_name(hierarchy.names[node]) for node in hierarchy.inner_nodes)
    found: dict[str, int] = {}
    for node in hierarchy.inner_nodes:
        name, key = normalised_name(hierarchy.names[node]), normalised_name(hierarchy.ids[node])
        called = (name, f"unknown {name}", f"unknown-{name}") if names[name] == 1 else ()
        found |= dict.fromkeys((key, *called), -1 - node)
    return found | class_of_name(hierarchy)


def check_same_classes(
    expected: Sequence[str],
    given: Sequence[str],
    name: str = "the hierarchy",
    whose: str = "the model's",
    remedy: str = "Both need the same classes, in the same order.",
) -> None:
    """Refuse other classes than expected, or another order. Raises NBDTError."""
    if [*map(nfc, given)] == [*map(nfc, expected)]:
        return
    pairs = enumerate(zip(expected, given, strict=False))
    index, (old, new) = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    difference = f"in another order: class {index} is {new!r} instead of {old!r}"
    if {*given} != {*expected}:
        lacks = [name for name in expected if name not in {*given}]
        more = [name for name in given if name not in {*expected}]
        difference = f"it lacks {listed(lacks) or 'none'} and also has {listed(more) or 'none'}"
    raise NBDTError(f"The classes of {name} are not {whose}: {difference}. {remedy}")
