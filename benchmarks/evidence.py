"""How well nearest images agree with the class of a photograph, how fast, and how large.

    python benchmarks/evidence.py MODEL… --train TRAIN --test TEST --memories FOLDER
    python benchmarks/evidence.py --scale          # synthetic: wider features, a million images

Each MODEL (a bundled name or a saved folder) gets a memory of TRAIN in FOLDER, which is reused. Queries
are images of TEST, evenly spaced. An image is relevant if it is of the query's class. Images are ranked
by the cosine of pooled features. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from nbdt import NBDT
from nbdt.explain import Evidence
from nbdt.explain.evidence.search import ExactSearch, RowOrder, units
from nbdt.images.dataset import iter_images
from nbdt.images.sources import ImageSource
from nbdt.memory.memory import Memory
from nbdt.model.remember import make_memory, open_memory
from nbdt.tree.class_names import class_of_name, normalised_name

METRICS = ("success@1", "success@5", "MRR", "precision@10", "mAP")


def scores(relevant: np.ndarray) -> dict[str, float]:
    """Metrics of one ranking: (images,) booleans, nearest first."""
    places = np.flatnonzero(relevant)
    precisions = np.arange(1, len(places) + 1) / (places + 1)
    return {
        "success@1": float(relevant[0]),
        "success@5": float(relevant[:5].any()),
        "MRR": float(1 / (places[0] + 1)) if len(places) else 0.0,
        "precision@10": float(relevant[:10].mean()),
        "mAP": float(precisions.mean()) if len(places) else 0.0,
    }


def timed(job: Callable[[], object]) -> tuple[object, float]:
    start = time.perf_counter()
    result = job()
    return result, 1e3 * (time.perf_counter() - start)


def opened(model: NBDT, name: str, options: argparse.Namespace) -> Memory:
    place = options.memories / Path(name).name
    if place.exists():
        return open_memory(model, place)
    start, memory = time.perf_counter(), make_memory(model, place)
    memory.add(list(iter_images(options.train, options.split)))
    print(f"{place}: built in {time.perf_counter() - start:.0f} s", flush=True)
    return memory


def queries(test: Path, count: int) -> list[ImageSource]:
    total = sum(1 for _ in iter_images(test))
    wanted = set(np.linspace(0, total - 1, min(count, total)).astype(int).tolist())
    return [source for place, source in enumerate(iter_images(test)) if place in wanted]


def measure(name: str, sources: list[ImageSource], options: argparse.Namespace) -> dict:
    """One row of the table."""
    model = NBDT.load(name)
    memory = opened(model, name, options)
    near, places = Evidence(memory).for_model(model), class_of_name(model.hierarchy)
    labels = np.array(near.rows.labels)
    rows, depths = [], []
    near.for_path(*query(model, sources[0]))  # reads the embeddings
    for source in sources:
        features, path = query(model, source)
        number = places[normalised_name(source.class_label)]
        label = model.hierarchy.ids[model.hierarchy.leaf_nodes[number]]
        _, ms = timed(lambda f=features, p=path: near.for_path(f, p))
        similarities = near.search.similarities(units(features[None].numpy())[0])
        ranking = np.argsort(-similarities, kind="stable")
        rows.append({**scores(labels[ranking] == label), "ms": ms})
        depths.append(len(path))
    return {
        "model": name,
        "photographs": len(labels),
        "features": near.rows.features.shape[1],
        **{key: float(np.mean([row[key] for row in rows])) for key in METRICS},
        "median ms": float(np.median([row["ms"] for row in rows])),
        "fastest ms": float(np.min([row["ms"] for row in rows])),
        "MB": near.rows.features.nbytes / 1e6,
        "decisions": float(np.mean(depths)),
    }


def query(model: NBDT, source: ImageSource):
    with torch.inference_mode():
        pooled = model.features(model.preprocess(source.open())[None].to(model.device))
        return pooled[0], model.head.paths(pooled)[0]


def table(rows: list[dict]) -> None:
    names = ["model", *METRICS, "median ms", "fastest ms", "MB"]
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for row in rows:
        cells = [
            f"{row[name]:.3f}" if name in METRICS
            else f"{row[name]:.1f}" if isinstance(row[name], float) else str(row[name])
            for name in names
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    first = rows[0]
    print(f"\n{first['photographs']:,} photographs, {first['features']} features, {first['decisions']:.1f} "
          "decisions a path; ms: evidence of a whole path")  # fmt: skip


# ---- synthetic: larger than what is at hand ------------------------------------------------------


def scale(rounds: int) -> None:
    """A path of ten decisions over 100 classes; random embeddings in clusters of a class."""
    from rules import random_tree

    tree = random_tree(100, 2)
    draw = np.random.default_rng(0)
    deepest = max(range(100), key=lambda c: tree.depths[tree.leaf_nodes[c]])
    print("| images | features | median ms | fastest ms |\n|---|---|---|---|")
    for count, features in ((50_000, 192), (50_000, 512), (50_000, 2048), (1_000_000, 192)):
        labels = draw.integers(0, 100, count)
        names = [tree.ids[tree.leaf_nodes[n]] for n in labels]
        centres = draw.standard_normal((100, features)).astype(np.float32)
        embeddings = np.empty((count, features), np.float16)
        for at in range(0, count, 50_000):
            rows = slice(at, at + 50_000)
            noise = draw.standard_normal((len(labels[rows]), features), dtype=np.float32)
            values = centres[labels[rows]] + 2 * noise
            embeddings[rows] = values / np.linalg.norm(values, axis=1, keepdims=True)
        order = RowOrder.of(names, np.ones(count, bool), tree)
        spans = path_spans(tree, deepest, order)
        query = embeddings[7].astype(np.float32)
        search, none = ExactSearch(embeddings), np.empty(0, np.int64)
        times = []
        for _ in range(rounds + 1):
            arguments = (query, order.order, spans, 5, none)
            _, ms = timed(lambda s=search, a=arguments: s.nearest(*a))
            times.append(ms)
        print(
            f"| {count:,} | {features} | {np.median(times[1:]):.1f} | {min(times[1:]):.1f} |",
            flush=True,
        )


def path_spans(tree, leaf: int, order: RowOrder) -> list:
    """Both sides of the first ten decisions to a leaf."""
    nodes = tree.path_of_class(leaf)[:11]
    spans = []
    for parent, child in pairwise(nodes):
        other = next(c for c in tree.children[parent] if c != child)
        spans += [order.spans[child], order.spans[other]]
    return spans


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--memories", type=Path, default=Path("memories"))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.scale:
        scale(options.rounds)
    if options.models:
        chosen = queries(options.test, options.queries)
        measured = [measure(name, chosen, options) for name in options.models]
        table(measured)
        if options.json:
            options.json.write_text(json.dumps(measured, indent=1))
