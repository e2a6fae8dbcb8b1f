"""A last layer fitted from its memory: first, after changes, attribution and the effect of a strike.

    python benchmarks/memory.py [--classes 33] [--a-class 30] [--features 1280] [--threads 2]
    python benchmarks/memory.py --features-file F
    python benchmarks/memory.py --rows 1000000 [--classes 100]

Features are drawn around a middle for each class, or read: a file of torch.save with "x" (images,
features), "labels" and "names" (those under train/ are fitted on, the others asked about). With such
a file it also prints the rank correlation of contributions and effects. Times are the best of five, in
seconds and as shares of the first fit, on one machine in one run. With --rows it makes a memory of so
many random embeddings (2.6 GB for a million), and prints seconds and peak memory of changes and of an
attribution, each in a process of its own, above what it has after imports.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nbdt import DecisionRules, Hierarchy
from nbdt.images.sources import ImageSource
from nbdt.memory.attribution import Attribution
from nbdt.memory.fit import LinearFit
from nbdt.memory.memory import Memory
from nbdt.memory.preview import Change, effect_of, preview
from nbdt.memory.refit import FittedHead, fit_head
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
        done = effect_of(memory, rules, fitted, [Change(key)])
        after = rules.log_probs((done.after.weight @ query + done.after.bias)[None])[0]
        pairs.append(
            (float(parts.rows[0, row]), last.margin - float(after[pair[0]] - after[pair[1]]))
        )
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


# ---- a memory of many rows --------------------------------------------------------------


def fill(place: str, tree: Hierarchy, rows: int, width: int) -> None:
    """Make a memory of random embeddings of unit length, 20,000 rows at a time."""
    table, draw = Table.create(place, width, {}), np.random.default_rng(0)
    for start in range(0, rows, 20_000):
        count = min(20_000, rows - start)
        values = draw.standard_normal((count, width), dtype=np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        labels = draw.integers(tree.num_classes, size=count).tolist()
        records = [
            {"id": draw.bytes(32).hex(), "label": tree.classes[n], "active": True,
             "reference": f"/photographs/{tree.classes[n]}/{start + at}.jpg"}
            for at, n in enumerate(labels)
        ]  # fmt: skip
        table.add(records, values.astype(np.float16))


def five(memory: Memory) -> None:
    """Add five photographs, and five that are there."""
    table = memory.table
    known = [table.find([f"{n}.jpg"])[0] for n in range(5000, 5005)]
    width = table.columns(["features"], f"id = '{known[0]}'")["features"].type.list_size
    keys = [*map(bytes.fromhex, known), *(np.random.default_rng().bytes(32) for _ in range(5))]
    values = torch.nn.functional.normalize(torch.randn(10, width), dim=1)
    source = ImageSource("new.jpg", None, lambda: None)  # type: ignore[arg-type, return-value]
    found = Features(values, [source] * 10, range(10), keys, [None] * 10, ())
    added = memory.insert(found, [memory.hierarchy.classes[0]] * 10)
    assert (len(added.ids), len(added.failed)) == (5, 5)


def attribute(memory: Memory) -> None:
    """Divide a decision among the photographs of a fit, and name the ten largest parts.

    The fit has random weights: the time does not depend on them.
    """
    rules = DecisionRules(memory.hierarchy, rule="marginal")
    examples = memory.examples(rules)
    classes, width = memory.hierarchy.num_classes, examples.features.shape[1]
    fit = LinearFit(torch.randn(classes, width), torch.zeros(classes), torch.zeros(width), 1.0, 0.0)
    fitted = FittedHead(examples.key, fit, 1.0, torch.zeros(0, classes), examples.labels)
    pair = memory.hierarchy.leaf_nodes[0], memory.hierarchy.leaf_nodes[1]
    made = memory.attribution(fitted, rules)
    start = time.perf_counter()
    parts = made.contributions(examples.features[0], [pair]).rows[0]
    print(f"{'attribution, once prepared':30} {time.perf_counter() - start:8.2f} s")
    names = [memory.fit_rows.names[n] for n in examples.places[parts.abs().topk(10).indices]]
    assert len(names) == 10


OPERATIONS: dict[str, Callable[[Memory], Any]] = {
    "list versions": lambda memory: memory.versions(),
    "add five, refuse five": five,
    "strike one out": lambda memory: memory.strike("1234.jpg", "to see"),
    "take it back": lambda memory: memory.take_back("1234.jpg"),
    "relabel one": lambda memory: memory.relabel("4321.jpg", memory.hierarchy.classes[0]),
    "attribution, the first": attribute,
}


def measure(name: str, place: str, tree: Hierarchy) -> None:
    """Print how long an operation takes in this process, and the memory it adds at its peak."""
    import lancedb  # noqa: F401 - is no part of the time

    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    OPERATIONS[name](Memory(Table.open(place), tree, None, None))  # type: ignore[arg-type]
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = (after.ru_maxrss - before.ru_maxrss) / 1024
    print(f"{name:30} {seconds:8.2f} s, {busy:8.2f} of a core {peak:8,.0f} MB", flush=True)


def at_scale(rows: int, classes: int, width: int) -> None:
    """Measure every operation on a memory of many rows."""
    names = [f"class {n}" for n in range(classes)]
    tree = Hierarchy.from_paths([[f"g{n % 10}", name] for n, name in enumerate(names)])
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/memory"
        fill(place, tree, rows, width)
        for name in OPERATIONS:
            process = spawn.Process(target=measure, args=(name, place, tree))
            process.start()
            process.join()


def main() -> None:
    """Print the times, as seconds and shares of the first fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("classes", 33), ("a-class", 30), ("features", 1280), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--features-file")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rule", default="marginal")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.rows:
        at_scale(given.rows, given.classes, given.features)
        return
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
            "effect of striking one out": best(
                lambda: effect_of(memory, rules, fitted, [Change(ids[3])])
            ),
        }
        first = times["first fit, penalty chosen"]
        for name, seconds in times.items():
            print(f"{name:30} {seconds:8.4f} s {seconds / first:8.4f} of the first fit")
        if asked is not None:
            found = correlation(memory, rules, fitted, asked)
            print(f"Spearman, contribution and effect of {PAIRS} strikes: {found:.2f}")


if __name__ == "__main__":
    main()
