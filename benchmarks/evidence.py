"""How well nearest images agree with the class of a photograph, how fast, and how large.

    python benchmarks/evidence.py MODEL… --train TRAIN --test TEST --indexes FOLDER
    python benchmarks/evidence.py --scale          # synthetic: wider features, a million images

Each MODEL (a bundled name or a saved folder) gets an index of TRAIN with patches in FOLDER, which is
used again if it is there. Queries are images of TEST, evenly spaced. An image is relevant if it is of
the query's class. "whole" ranks the index by the cosine of pooled features; "regions" ranks the
nearest RERANK of these again by late interaction. One thread.
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
from nbdt.explain import EvidenceIndex
from nbdt.explain.evidence.build import forward, unit_embeddings
from nbdt.explain.evidence.regions import (
    compressed,
    feature_grid,
    late_scores,
    max_similarities,
    principal_axes,
    projected,
    region_vectors,
    restored,
)
from nbdt.explain.evidence.per_decision import Layout
from nbdt.explain.evidence.search import ExactSearch, FaissSearch
from nbdt.images.sources import ImageSource, iter_images
from nbdt.tree.class_names import class_places, label_of, plain

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


def opened(model: NBDT, name: str, options: argparse.Namespace) -> EvidenceIndex:
    folder = options.indexes / Path(name).name
    if not folder.exists():
        start = time.perf_counter()
        EvidenceIndex.build(model, options.train, folder, split=options.split, patches=True)
        print(f"{folder}: built in {time.perf_counter() - start:.0f} s", flush=True)
    return EvidenceIndex.load(folder)


def queries(test: Path, count: int) -> list[ImageSource]:
    total = sum(1 for _ in iter_images(test))
    wanted = set(np.linspace(0, total - 1, min(count, total)).astype(int).tolist())
    return [source for place, source in enumerate(iter_images(test)) if place in wanted]


def measure(name: str, sources: list[ImageSource], options: argparse.Namespace) -> list[dict]:
    """Two rows of the table: whole images, and regions."""
    model = NBDT.load(name)
    index = opened(model, name, options)
    near, places = index.for_model(model), class_places(model.hierarchy)
    labels = np.asarray(index.column("labels"))
    patches, axes = index.column("patches"), index.column("projection")
    found: dict[str, list[dict[str, float]]] = {"whole": [], "regions": []}
    quick = EvidenceIndex.load(index.folder, search="faiss").for_model(model)
    for way in (near, quick):  # reads the embeddings
        way.for_path(*query(model, sources[0])[1:])
    shared, quick_ms = [], []
    for source in sources:
        feature_map, features, path = query(model, source)
        label = index.classes.index(model.hierarchy.classes[places[plain(label_of(source))]])
        exact, path_ms = timed(lambda f=features, p=path: near.for_path(f, p))
        other, ms = timed(lambda f=features, p=path: quick.for_path(f, p))
        shared.append(agreement(exact, other))
        quick_ms.append(ms)
        unit = unit_embeddings(features[None])[0]
        order, _ = timed(lambda u=unit: np.argsort(-index.exact.similarities(u), kind="stable"))
        regions = projected(region_vectors(feature_grid(model, feature_map[None]))[0], axes)
        top = order[: options.rerank]
        late, late_ms = timed(lambda r=regions, t=top: late_scores(r, restored(patches[t])))
        again = np.concatenate([top[np.argsort(-late, kind="stable")], order[len(top) :]])
        for kind, ranking, ms in (("whole", order, path_ms), ("regions", again, path_ms + late_ms)):
            found[kind].append({**scores(labels[ranking] == label), "ms": ms})
    sizes = {
        "whole": index.nbytes - patches.nbytes - axes.nbytes,
        "regions": index.nbytes,
    }
    depth = float(np.mean([len(query(model, source)[2]) for source in sources[:50]]))
    return [
        {
            "model": name,
            "index": len(index),
            "features": index.column("embeddings").shape[1],
            "compared": kind,
            **{key: float(np.mean([row[key] for row in rows])) for key in METRICS},
            "median ms": float(np.median([row["ms"] for row in rows])),
            "fastest ms": float(np.min([row["ms"] for row in rows])),
            "MB": sizes[kind] / 1e6,
            "decisions": depth,
            "faiss ms": float(np.median(quick_ms)),
            "faiss same": float(np.mean(shared)),
        }
        for kind, rows in found.items()
    ]


def agreement(exact, other) -> float:
    """The share of the exact neighbours of a path that the other search finds as well."""
    rows = [
        ({n.row for n in getattr(a, side)}, {n.row for n in getattr(b, side)})
        for a, b in zip(exact, other, strict=True)
        for side in ("chosen", "rejected")
    ]
    return sum(len(a & b) for a, b in rows) / max(1, sum(len(a) for a, _ in rows))


def query(model: NBDT, source: ImageSource):
    with torch.inference_mode():
        feature_map, pooled = forward(model, [source.open()])
        return feature_map[0], pooled[0], model.head.paths(pooled)[0]


def table(rows: list[dict]) -> None:
    names = ["model", "compared", *METRICS, "median ms", "fastest ms", "MB"]
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for row in rows:
        cells = [
            f"{row[name]:.3f}" if name in METRICS
            else f"{row[name]:.1f}" if isinstance(row[name], float) else str(row[name])
            for name in names
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    first = rows[0]
    print(f"\n{first['index']:,} images, {first['features']} features, {first['decisions']:.1f} "
          "decisions a path; ms: evidence of a whole path, regions: and reranking. FAISS: "
          f"{first['faiss ms']:.1f} ms, {first['faiss same']:.1%} of the same neighbours")  # fmt: skip


def fidelity(name: str, sources: list[ImageSource]) -> None:
    """How many best matches survive when regions are stored on fewer axes, one byte each."""
    model = NBDT.load(name)
    maps = [query(model, source)[0] for source in sources]
    vectors = np.concatenate([region_vectors(feature_grid(model, one[None])) for one in maps])
    half, features = len(vectors) // 2, vectors.shape[2]
    learnt, asked, images = vectors[:half], vectors[half : half + 20], vectors[half + 20 :]
    print(f"\n| axes of {features} | same best region | score differs by |\n|---|---|---|")
    for count in sorted({64, 128, features}):
        axes = principal_axes(learnt.reshape(-1, features), count)
        stored = restored(compressed(images, axes))
        same, apart = [], []
        for one in asked:
            exact, found = max_similarities(one, images), max_similarities(one @ axes, stored)
            same.append((exact[0] == found[0]).mean())
            apart.append(np.abs(exact[1].mean(axis=1) - found[1].mean(axis=1)).mean())
        print(f"| {count} | {np.mean(same):.0%} | {np.mean(apart):.3f} |")


# ---- synthetic: larger than what is at hand ------------------------------------------------------


def scale(rounds: int) -> None:
    """A path of ten decisions over 100 classes; random embeddings in clusters of a class."""
    from rules import random_tree

    tree = random_tree(100, 2)
    draw = np.random.default_rng(0)
    deepest = max(range(100), key=lambda c: tree.depths[tree.leaf_nodes[c]])
    print("| images | features | search | opening s | median ms | fastest ms | same nearest |")
    print("|---|---|---|---|---|---|---|")
    for count, features, kinds in (
        (50_000, 192, ("exact",)), (50_000, 512, ("exact",)), (50_000, 2048, ("exact",)),
        (1_000_000, 192, ("exact", "faiss")),
    ):  # fmt: skip
        labels = draw.integers(0, 100, count)
        centres = draw.standard_normal((100, features)).astype(np.float32)
        embeddings = np.empty((count, features), np.float16)
        for at in range(0, count, 50_000):
            rows = slice(at, at + 50_000)
            noise = draw.standard_normal((len(labels[rows]), features), dtype=np.float32)
            values = centres[labels[rows]] + 2 * noise
            embeddings[rows] = values / np.linalg.norm(values, axis=1, keepdims=True)
        layout = Layout.of(tree.classes, labels, tree)
        spans = path_spans(tree, deepest, layout)
        query = embeddings[7].astype(np.float32)
        none = np.empty(0, np.int64)
        exact: list = []
        for kind in kinds:
            make = {"exact": lambda e, _: ExactSearch(e), "faiss": FaissSearch}[kind]
            search, opening = timed(lambda m=make, e=embeddings, n=labels: m(e, n))
            times = []
            for _ in range(rounds + 1):
                arguments = (query, layout.order, spans, 5, none)
                found, ms = timed(lambda s=search, a=arguments: s.nearest(*a))
                times.append(ms)
            exact = exact or found
            pairs = zip(exact, found, strict=True)
            same = np.mean([np.isin(a, b).mean() for (a, _), (b, _) in pairs if len(a)])
            print(f"| {count:,} | {features} | {kind} | {opening / 1e3:.1f} | "
                  f"{np.median(times[1:]):.1f} | {min(times[1:]):.1f} | {same:.0%} |",
                  flush=True)  # fmt: skip


def path_spans(tree, leaf: int, layout: Layout) -> list:
    """Both sides of the first ten decisions to a leaf."""
    nodes = tree.path_of_class(leaf)[:11]
    spans = []
    for parent, child in pairwise(nodes):
        other = next(c for c in tree.children[parent] if c != child)
        spans += [layout.spans[child], layout.spans[other]]
    return spans


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--indexes", type=Path, default=Path("indexes"))
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rerank", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.scale:
        scale(options.rounds)
    if options.models:
        chosen = queries(options.test, options.queries)
        measured = [row for name in options.models for row in measure(name, chosen, options)]
        table(measured)
        fidelity(options.models[0], chosen[:500])
        if options.json:
            options.json.write_text(json.dumps(measured, indent=1))
