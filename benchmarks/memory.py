"""A last layer fitted from its memory: first, after changes, attribution and the effect of a strike.

    python benchmarks/memory.py [--classes 33] [--a-class 30] [--features 1280] [--threads 2]
    python benchmarks/memory.py --features-file F

Features are drawn around a middle for each class, or read: a file of torch.save with "x" (images,
features), "labels" and "names" (those under train/ are fitted on, the others asked about). With such
a file it also prints the rank correlation of contributions and effects. Times are the best of five, in
seconds and as shares of the first fit, on one machine in one run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nbdt import DecisionRules, Hierarchy
from nbdt.images.sources import ImageSource
from nbdt.memory.attribution import Attribution
from nbdt.memory.effect import effect_of
from nbdt.memory.memory import Memory
from nbdt.memory.preview import Change, preview
from nbdt.memory.refit import fit_head
from nbdt.memory.table import Table
from nbdt.model.features import Features

REPEATS = 5
PAIRS = 60  # strikes whose effect is compared with the contribution


def drawn(classes: int, a_class: int, width: int) -> tuple[torch.Tensor, list[str]]:
    """Return unit-length features (images, width) and their labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(a_class)
    middles = torch.randn(classes, width, generator=draw)
    values = middles[labels] + 2.5 * torch.randn(len(labels), width, generator=draw)
    return torch.nn.functional.normalize(values, dim=1), [f"class {n}" for n in labels.tolist()]


def read(path: str) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Return features and labels of the training photographs, and features of the others."""
    found = torch.load(path, weights_only=True)
    training = torch.tensor([name.startswith("train/") for name in found["names"]])
    values = found["x"].float()
    labels = [one for one, own in zip(found["labels"], training.tolist(), strict=True) if own]
    return values[training], labels, values[~training]


def memory_of(values: torch.Tensor, labels: list[str], tree: Hierarchy, place: str) -> Memory:
    """Return a memory of features that are known."""
    count = len(labels)
    sources = [ImageSource(f"{n}.jpg", label, lambda: None) for n, label in enumerate(labels)]  # type: ignore[arg-type, return-value]
    keys = [n.to_bytes(32, "big") for n in range(count)]
    found = Features(values, sources, range(count), keys, [None] * count, ())
    memory = Memory(Table.create(place, values.shape[1], {}), tree, None, None)  # type: ignore[arg-type]
    memory.insert(found, labels)
    return memory


def best(act: Callable[[], Any]) -> float:
    """Return the shortest of `REPEATS` times, in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)


def correlation(memory: Memory, rules: DecisionRules, fitted: Any, asked: torch.Tensor) -> float:
    """Return Spearman's correlation of contributions with what a fit without the photograph changes.

    Each of `PAIRS` strikes is of a random photograph among the 30 that contribute most to the last
    decision of a random photograph; the effect is how much the decision's log-odds fall.
    """
    from scipy.stats import spearmanr

    attribution, draw = memory.attribution(fitted, rules), np.random.default_rng(0)
    tree, pairs = rules.hierarchy, []
    for number in draw.choice(len(asked), PAIRS, replace=False):
        query = asked[int(number)]
        path = rules.paths((fitted.weight @ query + fitted.bias)[None])[0]
        last = path.decisions[-1]
        pair = tree.index(last.child_ids[last.chosen]), tree.index(last.child_ids[last.runner_up])
        parts = attribution.contributions(query, [pair])
        row = int(draw.choice(parts.rows[0].abs().argsort(descending=True)[:30].numpy()))
        key = memory.rows.ids[int(attribution.examples.places[row])]
        done = effect_of(memory, rules, fitted, [key])
        after = rules.log_probs((done.after.weight @ query + done.after.bias)[None])[0]
        pairs.append(
            (float(parts.rows[0, row]), last.margin - float(after[pair[0]] - after[pair[1]]))
        )
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def main() -> None:
    """Print the times, as seconds and shares of the first fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("classes", 33), ("a-class", 30), ("features", 1280), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--features-file")
    parser.add_argument("--rule", default="marginal")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    asked = None
    if given.features_file:
        values, labels, asked = read(given.features_file)
    else:
        values, labels = drawn(given.classes, given.a_class, given.features)
    names = sorted(set(labels))
    tree = Hierarchy.from_paths([[f"g{n % 6}", f"p{n % 12}", name] for n, name in enumerate(names)])
    rules = DecisionRules(tree, rule=given.rule)
    with tempfile.TemporaryDirectory() as place:
        memory = memory_of(values, labels, tree, f"{place}/memory")
        examples = memory.examples(rules)
        fitted = fit_head(examples, rules)
        ids = memory.rows.ids
        print(f"{len(ids):,} photographs, {len(names)} classes, {values.shape[1]:,} features")
        changed = {
            many: preview(
                memory, [Change(key) for key in ids[:: len(ids) // many][:many]]
            ).examples(rules)
            for many in (1, 10)
        }
        query = values[0]
        path = rules.paths((fitted.weight @ query + fitted.bias)[None])[0]
        pairs = [
            (tree.index(d.child_ids[d.chosen]), tree.index(d.child_ids[d.runner_up])) for d in path
        ]
        attribution = memory.attribution(fitted, rules)
        times = {
            "first fit, penalty chosen": best(lambda: fit_head(examples, rules)),
            "after one strike": best(lambda: fit_head(changed[1], rules, fitted, choose=False)),
            "after ten": best(lambda: fit_head(changed[10], rules, fitted, choose=False)),
            "attribution, once for a fit": best(lambda: Attribution(fitted, examples, rules)),
            "attribution, of a photograph": best(lambda: attribution.contributions(query, pairs)),
            "effect of striking one out": best(lambda: effect_of(memory, rules, fitted, [ids[3]])),
        }
        first = times["first fit, penalty chosen"]
        for name, seconds in times.items():
            print(f"{name:30} {seconds:8.4f} s {seconds / first:8.4f} of the first fit")
        if asked is not None:
            found = correlation(memory, rules, fitted, asked)
            print(f"Spearman, contribution and effect of {PAIRS} strikes: {found:.2f}")


if __name__ == "__main__":
    main()
