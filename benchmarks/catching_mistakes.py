"""Does an explanation help to catch the model being wrong?

    python benchmarks/catching_mistakes.py MODEL --train TRAIN --test TEST --indexes FOLDER

For every test image: what a reader is shown, and whether the answer was right. The first table says
how well each of the facts shown tells right answers from wrong ones (area under the ROC curve, 50 % is
chance; 95 % intervals by the bootstrap over images). The second says whether a wrong answer's path
shows *where* it went wrong, which no flat classifier does. MODEL is a bundled name or a saved folder;
its index of TRAIN is kept in FOLDER and used again if it is there. One thread.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evidence import opened, queries
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from torch import Tensor

from nbdt import NBDT, Hierarchy
from nbdt.decide.paths import Path as DecisionPath
from nbdt.explain import Evidence
from nbdt.images.sources import ImageSource
from nbdt.tree.class_names import class_of_name, normalised_name

BATCH, DRAWS = 250, 1000


def true_ids(tree: Hierarchy, label: int) -> set[str]:
    """The nodes on the way to a class."""
    return {tree.ids[node] for node in tree.path_of_class(label)}


def seen(model: NBDT, sources: list[ImageSource]) -> tuple[Tensor, Tensor]:
    """(count, features) and (count,) labels."""
    places, parts = class_of_name(model.hierarchy), []
    for start in range(0, len(sources), BATCH):
        images = [model.preprocess(source.open()) for source in sources[start : start + BATCH]]
        with torch.inference_mode():
            parts.append(model.features(torch.stack(images).to(model.device)).clone())
    labels = [places[normalised_name(source.class_label)] for source in sources]
    return torch.cat(parts), torch.tensor(labels)


def facts(path: DecisionPath, flat: float, evidence: tuple) -> dict[str, float]:
    """What the explanation of one image says; more is surer."""
    weakest = int(np.argmin([d.margin for d in path]))
    near = evidence[weakest]
    apart = near.chosen[0].similarity - near.rejected[0].similarity
    return {
        "probability of the likeliest class, flat": flat,
        "probability of the path": path.probability,
        "margin of its weakest decision": path.decisions[weakest].margin,
        "evidence: least vote on the path": min(one.vote for one in evidence),
        "evidence: nearest image of either side, weakest decision": apart,
    }


def located(tree: Hierarchy, wrong: list[tuple[DecisionPath, int, tuple]]) -> list[tuple]:
    """Share of the wrong answers whose path shows where, beside chance."""
    rows = []
    for path, label, evidence in wrong:
        true = true_ids(tree, label)
        step = next(i for i, d in enumerate(path) if d.child_ids[d.chosen] not in true)
        decision = path.decisions[step]
        rows.append((
            np.argmin([d.margin for d in path]) == step, 1 / len(path),
            decision.child_ids[decision.runner_up] in true, 1 / (len(decision.children) - 1),
            np.argmin([one.vote for one in evidence]) == step, 1 / len(path),
            evidence[step].vote < 0.5, float("nan"),
        ))  # fmt: skip
    shares = 100 * np.array(rows, dtype=float).mean(0)
    names = ("its weakest decision is the wrong one", "the runner-up there was right",
             "the least vote is at the wrong one", "most evidence there argues against it")  # fmt: skip
    return list(zip(names, shares[::2], shares[1::2], strict=True))


def area(right: np.ndarray, value: np.ndarray) -> str:
    """The area under the ROC curve, with its interval."""
    draw, found = np.random.default_rng(0), []
    for _ in range(DRAWS):
        rows = draw.integers(0, len(right), len(right))
        found.append(roc_auc_score(right[rows], value[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return f"{100 * roc_auc_score(right, value):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def together(right: np.ndarray, columns: list[np.ndarray]) -> np.ndarray:
    """Logistic regression on several facts, each image judged by a fit without it."""
    values = np.stack(columns, 1)
    values = (values - values.mean(0)) / values.std(0)
    fit = LogisticRegression()
    return cross_val_predict(fit, values, right, cv=10, method="decision_function")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--split", default=None)
    parser.add_argument("--memories", type=Path, default=Path("memories"))
    parser.add_argument("--queries", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = NBDT.load(options.model)
    near = Evidence(opened(model, options.model, options)).for_model(model)
    features, labels = seen(model, queries(options.test, options.queries))
    paths = model.head.paths(features)
    flat = model.head.linear(features).softmax(1).amax(1).tolist()
    evidence = [near.for_path(one, path) for one, path in zip(features, paths, strict=True)]
    right = np.array([p.class_index == y for p, y in zip(paths, labels.tolist(), strict=True)])
    rows = [facts(*row) for row in zip(paths, flat, evidence, strict=True)]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    _, path, margin, vote, apart = columns.values()
    columns["path and weakest margin, together"] = together(right, [path, margin])
    columns["these and the evidence, together"] = together(right, [path, margin, vote, apart])
    print(f"{options.model}: {len(right):,} images, {(~right).sum():,} answered wrongly\n")
    print("| fact shown | right from wrong, % |\n|---|---|")
    for name, values in columns.items():
        print(f"| {name} | {area(right, values)} |", flush=True)
    answered = zip(paths, labels.tolist(), evidence, strict=True)
    wrong = [row for row, fine in zip(answered, right, strict=True) if not fine]
    print("\n| of the wrong answers | % | by chance, % |\n|---|---|---|")
    for name, share, chance in located(model.hierarchy, wrong):
        print(f"| {name} | {share:.0f} | {'–' if np.isnan(chance) else f'{chance:.0f}'} |")


if __name__ == "__main__":
    main()
