"""New classes by five photographs each: how many are right, and what the old classes lose.

    python benchmarks/memory_growth.py MODEL --data caltech33.tar

The data has the splits "train" and "test". Half of the classes, at random, are known by all their
training photographs; the others are added one by one where `nbdt memory new-class` proposes, with
five photographs each; then the last layer is fitted once. Features are kept.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from memory_data import Data, opened, right, rows_of, tree_over

from nbdt import DecisionRules, Hierarchy
from nbdt.explain.memory.grow import propose_place
from nbdt.memory.grow import add_class
from nbdt.memory.refit import examples_of, fit_head
from nbdt.model.features import Features

FIVE = 5


def fitted(
    data: Data, hierarchy: Hierarchy, rule: str, kept: np.ndarray
) -> tuple[np.ndarray, float]:
    """Whether test photographs are right after a fit on `kept`, and seconds of the fit."""
    rules = DecisionRules(hierarchy, rule=rule)
    start = time.perf_counter()
    head = fit_head(examples_of(rows_of(data.train, data.true, kept), rules), rules)
    seconds = time.perf_counter() - start
    return right(head, rules, data.test.values, data.answers), seconds


def placed(
    tree: Hierarchy,
    new: Sequence[str],
    found: Features,
    true: np.ndarray,
    five: dict[str, np.ndarray],
) -> Hierarchy:
    """The tree with new classes, each where it is proposed."""
    there = np.concatenate([np.flatnonzero(np.isin(true, tree.classes))])
    for name in new:
        memory = cast(Any, SimpleNamespace(rows=rows_of(found, true, there), hierarchy=tree))
        place = propose_place(memory, name, found.values[five[name]])
        tree = add_class(tree, name, place.parent, place.wnid).hierarchy
        there = np.concatenate([there, five[name]])
    return tree


def main() -> None:
    options, data = opened(__doc__)
    print("rule | old classes before, after | new classes | seconds of the fit")
    for rule in ("marginal", "representative"):
        for seed in range(options.seeds):
            draw = np.random.default_rng(seed)
            order = draw.permutation(data.classes).tolist()
            old, new = sorted(order[: len(order) // 2]), order[len(order) // 2 :]
            tree = tree_over(old)
            five = {
                name: draw.choice(np.flatnonzero(data.true == name), FIVE, replace=False)
                for name in new
            }
            known = np.flatnonzero(np.isin(data.true, old))
            is_old = np.isin(data.answers, old)
            before, _ = fitted(data, tree, rule, known)
            tree = placed(tree, new, data.train, data.true, five)
            after, seconds = fitted(data, tree, rule, np.concatenate([known, *five.values()]))
            shares = (before[is_old].mean(), after[is_old].mean(), after[~is_old].mean())
            print(f"{rule} | " + " | ".join(f"{100 * share:.1f}" for share in shares)
                  + f" | {seconds:.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
