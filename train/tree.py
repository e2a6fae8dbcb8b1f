"""How a run's hierarchy is made: from the names of its classes, or from the fitted classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from nbdt.hierarchies.induced import check_known_words, induce
from nbdt.hierarchies.wordnet.concepts import class_synsets
from nbdt.hierarchies.wordnet.known import known_senses
from nbdt.hierarchies.wordnet.readable import readable
from nbdt.progress import Say, counted
from nbdt.tree.hierarchy import Hierarchy

from .data.class_order import ClassOrder
from .recipe import Recipe

DEEP = 8  # levels that a person can still follow


@dataclass(frozen=True)
class TreePlan:
    """How the hierarchy is made."""

    kind: str  # "readable" or "induced"
    names: tuple[str, ...]  # of the classes, in order
    # of the classes, None where WordNet has no noun; empty if they are not needed
    wnids: tuple[str | None, ...]
    recipe: Recipe  # settings of an induced hierarchy

    def make(self, weights: Tensor | None) -> Hierarchy | None:
        """Return the hierarchy; without weights (classes, features) None if it is induced."""
        rows = None if weights is None else weights.numpy()
        if self.kind == "readable":
            return readable(self.names, self.wnids, rows)
        return None if weights is None else induced(weights, self.names, self.recipe, self.wnids)


def plan_tree(
    asked: str | None,
    order: ClassOrder,
    recipe: Recipe,
    meanings: Mapping[str | int, str],
    say: Say,
) -> TreePlan:
    """Choose how the hierarchy is made, and say how WordNet reads the names.

    Args:
        asked: "readable" or "induced"; None: everyday groups for a frozen backbone under
            "marginal", if WordNet knows most of the names and the recipe has no settings of an
            induced one.
        meanings: of names, as for `nbdt.hierarchies.known_senses`.

    Raises NBDTError: the recipe asks for semantics, and WordNet knows fewer than two of the names.
    """
    shaped = (recipe.linkage, recipe.branching, recipe.semantics) != ("auto", 0, -1)
    # Under "representative" only a tree like the classifier's weights answers well.
    everyday = recipe.freeze_backbone and recipe.rule == "marginal" and not shaped
    kind = asked or ("readable" if everyday else "induced")
    wnids = order.wnids if any(order.wnids) else ()
    if kind == "induced" and not meanings:
        if recipe.semantics > 0:  # fail here, not in the middle of the run
            check_known_words(order.names, class_synsets(order.names, wnids or None))
        return TreePlan(kind, order.names, wnids, recipe)
    if not wnids or meanings:
        known = known_senses(order.names, meanings)
        say(str(known))
        wnids = known.wnids
    if asked is None and 2 * sum(wnid is not None for wnid in wnids) < len(wnids):
        kind = "induced"
    return TreePlan(kind, order.names, wnids, recipe)


def induced(
    weights: Tensor, names: Sequence[str], recipe: Recipe, wnids: Sequence[str | None]
) -> Hierarchy:
    """Return the hierarchy that a recipe induces from weights (classes, features)."""
    return induce(
        weights,
        names,
        rule=recipe.rule,
        linkage=None if recipe.linkage == "auto" else recipe.linkage,
        branching=recipe.branching or None,
        semantics=None if recipe.semantics < 0 else recipe.semantics,
        wnids=wnids if any(wnids) else None,
    )


def describe(hierarchy: Hierarchy, say: Say) -> None:
    """Say how large a hierarchy is, and what to do about a deep one."""
    groups = counted(len(hierarchy.inner_nodes), "group")
    deep = hierarchy.depth > DEEP
    remedy = (
        "; few people follow that many. --hierarchy readable makes a flatter one" if deep else ""
    )
    say(f"The tree has {groups} on {counted(hierarchy.depth, 'level')}{remedy}.")
