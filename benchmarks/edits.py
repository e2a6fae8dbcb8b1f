"""An edit of 1,000 classes until one image is decided again: no retraining, under 100 ms.

    OMP_NUM_THREADS=1 python benchmarks/edits.py

The time of everything between a person's edit and the changed explanation: the new tree validated
and hashed, its rules compiled, the image's path and both answers from its cached class logits.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from nbdt import DecisionRules, Hierarchy
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit.difference import diff
from nbdt.tree.nodes import Node

BAR = 100  # milliseconds


def tree(num_classes: int, branching: int, seed: int) -> Hierarchy:
    """Classes split from the root down into parts of random sizes."""
    rng = random.Random(seed)
    classes = [f"class {i}" for i in range(num_classes)]
    nodes, todo = [Node("root", None, "root")], [("root", rng.sample(classes, num_classes))]
    while todo:
        parent, group = todo.pop()
        cuts = sorted(rng.sample(range(1, len(group)), min(branching, len(group)) - 1))
        for low, high in zip([0, *cuts], [*cuts, len(group)], strict=True):
            name = group[low] if high - low == 1 else f"group {len(nodes)}"
            nodes.append(Node(name, parent, name))
            if high - low > 1:
                todo.append((name, group[low:high]))
    return Hierarchy(tuple(nodes), tuple(classes))


def one_of_each(h: Hierarchy, rng: random.Random) -> dict[str, Callable[[], object]]:
    """Each edit at a random place where it is possible."""
    groups = [node for node in h.inner_nodes if node and h.parents[node]]
    wide = next((node for node in groups if len(h.children[node]) > 2), None)
    one = rng.choice(groups)
    other = next(n for n in rng.sample(groups, len(groups)) if not nested(h, one, n))
    ids = h.ids
    edits = {
        "move": lambda: edit.move(h, ids[one], ids[other]),
        "ungroup": lambda: edit.ungroup(h, ids[one]),
        "rename": lambda: edit.rename(h, ids[one], "another name"),
        "swap": lambda: edit.swap(h, ids[one], ids[other]),
        "merge": lambda: edit.merge(h, ids[one], ids[other]),
    }
    if wide is not None:
        pair = [ids[child] for child in h.children[wide][:2]]
        edits["group"] = lambda: edit.group(h, pair, "a pair")
        edits["split"] = lambda: edit.split(h, ids[wide], pair, "a pair")
    return edits


def nested(h: Hierarchy, one: int, other: int) -> bool:
    """Whether no edit of two nodes is possible: one in the other, or siblings."""
    return one in h.path_to(other) or other in h.path_to(one) or h.parents[one] == h.parents[other]


def decide(result: tuple[Hierarchy, edit.Edit], logits: torch.Tensor, rule: str) -> None:
    """New rules, and one image from its cached logits: path, hard and soft answer."""
    rules = DecisionRules(result[0], rule=rule)
    rules.paths(logits)
    rules.hard(logits)
    rules(logits)


class Times(NamedTuple):
    """Milliseconds: the best, the median and the worst by the clock, and the best of the core."""

    best: float
    median: float
    worst: float
    core: float

    def __str__(self) -> str:
        return "".join(f"{value:9.1f}" for value in self)


def milliseconds(action: Callable[[], object], repeats: int) -> Times:
    clock, core = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        action()
        clock.append(1e3 * (time.perf_counter() - start))
        core.append(1e3 * (time.process_time() - busy))
    return Times(min(clock), statistics.median(clock), max(clock), min(core))


def measure(h: Hierarchy, repeats: int) -> dict[str, Times]:
    """Times of each edit until the image is decided under each rule, and of the comparison."""
    logits = torch.randn(1, h.num_classes, generator=torch.Generator().manual_seed(0)) * 5
    found = {}
    for kind, action in one_of_each(h, random.Random(0)).items():
        for rule in ("marginal", "representative"):
            found[f"{kind}, {rule}"] = milliseconds(
                lambda a=action, r=rule: decide(a(), logits, r), repeats
            )
    changed = edit.ungroup(h, h.ids[h.inner_nodes[1]])[0]
    found["(diff)"] = milliseconds(lambda: diff(h, changed), repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for branching in (2, 8):
        h = tree(options.classes, branching, seed=0)
        h.hash  # noqa: B018  a tree that is edited has been shown, and its hash is known
        times = measure(h, options.repeats)
        found |= {f"branching {branching}, {name}": row for name, row in times.items()}
    if options.json:
        print(json.dumps({name: row._asdict() for name, row in found.items()}, indent=1))
        return
    print(
        f"{options.classes} classes, one thread, milliseconds until decided, {options.repeats} runs"
    )
    print(f"{'':40}     best   median    worst     core")
    for name, row in found.items():
        print(f"{name:40}{row}")
    edits = [row for name, row in found.items() if "diff" not in name]
    print(
        f"slowest edit: {max(row.best for row in edits):.1f} ms by the clock, "
        f"{max(row.core for row in edits):.1f} ms of one core; bar {BAR} ms"
    )


if __name__ == "__main__":
    main()
