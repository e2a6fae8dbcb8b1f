"""How well `nbdt memory review` finds wrong labels, and what a review of the first tenth is worth.

    python benchmarks/memory_review.py MODEL --data caltech33.tar

The data has the splits "train" and "test". A tenth of the training labels is made wrong at random. A
perfect reviewer goes through the first tenth of the list; then the last layer is fitted again.
cleanlab, if it is installed (`pip install cleanlab`), ranks by the same cross-validated probabilities
with its best setting for images. Features are kept; a run takes a minute after the first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from memory_data import opened, rows_of
from sklearn.metrics import roc_auc_score

from nbdt import DecisionRules, Hierarchy
from nbdt.memory.attribution import Attribution
from nbdt.memory.refit import FittedHead, examples_of, fit_head
from nbdt.memory.review import suspects
from nbdt.memory.table import Rows


def cleanlab_order(head: FittedHead) -> np.ndarray | None:
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return None
    chances = head.logits.double().softmax(dim=1).numpy()
    scores = get_label_quality_scores(
        head.labels.numpy(), chances, method="normalized_margin", adjust_pred_probs=True
    )
    return np.argsort(scores, kind="stable")


def main() -> None:
    options, data = opened(__doc__, wrong=0.1)
    train, true, test, classes = data.train, data.true, data.test, data.classes
    rules = DecisionRules(Hierarchy.from_paths([[name] for name in classes]), rule="marginal")
    expected = torch.tensor([classes.index(name) for name in data.answers])

    def fitted(rows: Rows, start: FittedHead | None = None) -> tuple[FittedHead, float]:
        head = fit_head(examples_of(rows, rules), rules, start)
        right = (test.values @ head.weight.T + head.bias).argmax(dim=1) == expected
        return head, 100 * float(right.float().mean())

    print(
        "a class | AUROC, wrong of first: ours; cleanlab | clean, wrong, reviewed: ours; cleanlab"
    )
    for count in (30, 10):
        for seed in range(options.seeds):
            draw = np.random.default_rng(seed)
            kept = np.concatenate([np.flatnonzero(true == name)[:count] for name in classes])
            wrong = draw.choice(kept, round(options.wrong * len(kept)), replace=False)
            given = true.copy()
            for n in wrong:
                given[n] = draw.choice([name for name in classes if name != true[n]])
            rows, clean = rows_of(train, given, kept), rows_of(train, true, kept)
            is_wrong = np.array(rows.labels) != np.array(clean.labels)
            head, with_wrong = fitted(rows)
            divided = Attribution(head, examples_of(rows, rules), rules)
            ours = [rows.places[one.id] for one in suspects(rows, divided)]
            found, after = [], []
            for order in (np.array(ours), cleanlab_order(head)):
                if order is None:
                    continue
                first = order[: len(wrong)]
                found += [roc_auc_score(is_wrong[order], -np.arange(len(order)))]
                found += [is_wrong[first].mean()]
                labels = np.array(rows.labels)
                labels[first] = np.array(clean.labels)[first]
                after.append(fitted(replace(rows, labels=tuple(labels.tolist())), head)[1])
            figures = " ".join(f"{value:.4f}" for value in found)
            shares = " ".join(f"{value:.2f}" for value in (fitted(clean)[1], with_wrong, *after))
            print(f"{count:3} | {figures} | {shares}", flush=True)


if __name__ == "__main__":
    main()
