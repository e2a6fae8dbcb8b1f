"""Names of classes: how they are compared, and whether data and hierarchies have the same ones."""

from __future__ import annotations

from collections import Counter

from ..errors import NBDTError
from .hierarchy import Hierarchy


def normalised_name(name: str) -> str:
    """Return a name as it is compared: without differences of case, space and underscore."""
    return name.casefold().replace("_", " ").strip()


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


def check_same_classes(expected: Hierarchy, given: Hierarchy, name: str = "the hierarchy") -> None:
    """Refuse a hierarchy with other classes, or in another order. Raises NBDTError."""
    if given.classes == expected.classes:
        return
    pairs = enumerate(zip(expected.classes, given.classes, strict=False))
    index, (old, new) = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
    if set(given.classes) == set(expected.classes):
        difference = f"in another order: class {index} is {new!r} instead of {old!r}"
    else:
        difference = (
            f"other classes ({given.num_classes}, not {expected.num_classes}), the first that "
            f"differs: {new!r} instead of {old!r}"
        )
    raise NBDTError(
        f"The classes of {name} are not the model's: {difference}. A hierarchy fits a model only "
        "if it has the model's classes, in their order."
    )
