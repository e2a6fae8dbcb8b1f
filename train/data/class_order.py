"""The order of the classes, and the class of each label of the data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nbdt.errors import NBDTError, listed
from nbdt.tree.class_names import check_same_classes, class_of_name, labels_by_name, normalised_name
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import Node, nfc


@dataclass(frozen=True)
class ClassOrder:
    """The classes in output order."""

    names: tuple[str, ...]  # of the classes
    wnids: tuple[str | None, ...]  # WordNet ids, where known
    origin: str  # the source of the order, for messages
    # of these classes, if it is known: its groups may be labels, too
    hierarchy: Hierarchy | None = None


def class_order(
    labels: Iterable[str], given: Sequence[str] = (), hierarchy: Hierarchy | None = None
) -> ClassOrder:
    """Return the hierarchy's classes, else those given by a recipe, else the labels, sorted.

    Labels get WordNet's names if all of them are WordNet ids, as ImageNet's folders are.

    Raises NBDTError: the hierarchy's classes are not those given, or there are fewer than two.
    """
    if hierarchy is not None:
        remedy = "Leave the recipe's classes out (--set classes=[]) to take the hierarchy's."
        check_same_classes(
            given or hierarchy.classes, hierarchy.classes, whose="the recipe's", remedy=remedy
        )
        wnids = hierarchy.class_wnids
        return ClassOrder(hierarchy.classes, wnids, "the hierarchy", hierarchy)
    if given:
        return ClassOrder(tuple(map(nfc, given)), (None,) * len(given), "the recipe")
    distinct = sorted({nfc(label) for label in labels})
    spellings: dict[str, str] = {}
    for label in distinct:
        other = spellings.setdefault(normalised_name(label), label)
        if other != label:
            raise NBDTError(
                f"The labels {other!r} and {label!r} are the same class, because case, spaces and "
                "underscores do not count. Give them one name."
            )
    if len(distinct) < 2:
        raise NBDTError(
            f"The data has {len(distinct)} class{'' if len(distinct) == 1 else 'es'} "
            f"({listed(distinct) or 'none'}); a classifier needs two or more, one folder each."
        )
    return _named(distinct)


def _named(labels: Sequence[str]) -> ClassOrder:
    from nbdt.hierarchies.classifier import class_labels
    from nbdt.tree.nodes import WNID

    if all(WNID.fullmatch(label) for label in labels):
        known = class_labels(len(labels), {"label_names": list(labels)})
        return ClassOrder(tuple(known.names), tuple(known.wnids), "the data's WordNet ids, sorted")
    return ClassOrder(tuple(labels), (None,) * len(labels), "the data's labels, sorted")


def class_indices(labels: Iterable[str], order: ClassOrder) -> list[int | None]:
    """Return each label as a number (see `nbdt.tree.labels`); None for what is no class or group.

    A plain name or WordNet id that several classes have means none of them.
    """
    if order.hierarchy:
        places = labels_by_name(order.hierarchy)
    else:
        nodes = [Node("/", None, "root")]
        nodes += [Node(n, "/", n, w) for n, w in zip(order.names, order.wnids, strict=True)]
        places = class_of_name(Hierarchy(tuple(nodes), order.names))
    return [places.get(normalised_name(label)) for label in labels]
