"""What each training photograph contributed to the decisions of a model fitted on its memory."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from nbdt.decide.paths import Path
from nbdt.errors import NBDTError
from nbdt.memory.attribution import Contributions
from nbdt.memory.memory import Memory
from nbdt.model.model import NBDT

from ..result.contributions import Contribution, DecisionContributions
from ..result.explanation import Explanation
from .pictures import Pictures

FOR, AGAINST = 5, 2  # photographs that are shown of each side


def with_contributions(
    model: NBDT, features: Tensor, explanations: Sequence[Explanation]
) -> list[Explanation]:
    """Return explanations with the sum of each decision, or with the reason why there is none."""
    try:
        return [
            replace(found, contributions=contributions(model, own, found.path))
            for found, own in zip(explanations, features, strict=True)
        ]
    except NBDTError as error:
        said = {"no_contributions": str(error)}
        return [replace(found, made={**found.made, **said}) for found in explanations]


def contributions(model: NBDT, features: Tensor, path: Path) -> tuple[DecisionContributions, ...]:
    """Return the sum of each decision of a model whose last layer was fitted on its memory.

    Raises NBDTError: the memory has changed since, or cannot be opened, or the tree lacks a label.
    """
    memory, fitted = model.memory, model.fitted
    if memory is None or fitted is None:
        raise NBDTError(
            "The memory no longer has the fit that the last layer comes from, so no contributions are "
            "shown until it is fitted again: nbdt memory refit MODEL, or model.refit()."
        )
    attribution, tree = memory.attribution(fitted, model.head.rules), model.hierarchy
    pairs = [
        (tree.index(d.child_ids[d.chosen]), tree.index(d.child_ids[d.runner_up])) for d in path
    ]
    found = attribution.contributions(features, pairs)
    return tuple(
        _shown(model, memory, found.row(n), attribution.examples.places) for n in range(len(path))
    )


def _shown(
    model: NBDT, memory: Memory, found: Contributions, places: Tensor
) -> DecisionContributions:
    """Return one decision with the photographs that contributed most; `places` are of the fit's rows."""
    rows, values = memory.fit_rows, found.rows
    pictures = Pictures(memory.table, model.preprocess.frame, None)
    order = values.argsort(descending=True)
    supporting, opposing = (
        [n for n in some.tolist() if float(values[n]) * sign > 0]
        for some, sign in ((order[:FOR], 1), (order.flip(0)[:AGAINST], -1))
    )

    def one(n: int) -> Contribution:
        place = int(places[n])
        key, reference = rows.ids[place], rows.references[place]
        opener = partial(pictures.open, key, reference)
        label = memory.name_of(rows.labels[place])
        return Contribution(rows.names[place], label, float(values[n]), key, opener)

    shown = [*supporting, *opposing]
    rest = values.double().sum() - values[shown].double().sum()
    return DecisionContributions(
        tuple(map(one, supporting)), tuple(map(one, opposing)),
        len(values) - len(shown), float(rest), float(found.bias), float(found.entropy),
    )  # fmt: skip
