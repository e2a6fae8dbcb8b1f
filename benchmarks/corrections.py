"""Do corrections repair planted wrong labels, and do they forget anything?

    python benchmarks/corrections.py --data ../shared/data --cache features

CIFAR-10 at 64 pixels, features of an ImageNet MobileNetV2 that never saw a CIFAR label, computed once
(about four minutes of one core). A last layer is trained on 30,000 images, with 5 % or 30 % of the cats
labelled as dogs; its tree is induced, rule `marginal`. The other 20,000 training images are a pool that
a person looks through: of N images where the model takes a cat for a dog or a dog for a cat, the person
corrects the first wrong step. Beside it, taught in the very same way:

- the labels of the same images;
- the labels of N images of the two classes, and of N images of all classes, drawn at random.

All arms replay the same training images, whose wrong labels are never looked at again, with the
settings that `fit_corrections` has by default; these were chosen on 5,000 images of the pool (30 %, seed
0), and the test images are looked at once. Intervals are of differences paired by image, 95 %.
"""

from __future__ import annotations

import argparse
import copy
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cifar_features import MOBILENET, Split, features
from torch import Tensor, nn

from nbdt import DecisionRules, Hierarchy
from nbdt.correction import Correction
from nbdt.hierarchies.induced import induce
from nbdt.train import TreeSupervisionLoss
from nbdt.train.corrections.examples import CorrectionBatch, Target, find_targets
from nbdt.train.corrections.fit import CorrectionSettings, fit_head

TRAINED, POOL = 30_000, 15_000
WRONG, INTO = "cat", "dog"
COUNTS, SHARES = (20, 100, 500), (0.05, 0.3)


def planted(labels: Tensor, names: list[str], share: float, seed: int) -> Tensor:
    """Labels with `share` of WRONG's replaced by INTO."""
    generator = torch.Generator().manual_seed(seed)
    members = (labels == names.index(WRONG)).nonzero().flatten()
    chosen = members[torch.randperm(len(members), generator=generator)]
    found = labels.clone()
    found[chosen[: round(share * len(members))]] = names.index(INTO)
    return found


def trained(
    train: Split, labels: Tensor, tree: Hierarchy | None, rule: str, seed: int
) -> nn.Linear:
    """A last layer by AdamW, flat or tree-supervised."""
    torch.manual_seed(seed)
    linear = nn.Linear(train.features.shape[1], 10)
    loss: Any = F.cross_entropy
    if tree is not None and rule == "representative":
        loss = TreeSupervisionLoss(tree, rule=rule)
    epochs, size = 12, 500
    optimizer = torch.optim.AdamW(linear.parameters(), 2e-3, weight_decay=0.05)
    steps = epochs * len(labels) // size
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps + 1)
    for _ in range(epochs):
        for index in torch.randperm(len(labels)).split(size):
            optimizer.zero_grad()
            loss(linear(train.features[index]), labels[index]).backward()
            optimizer.step()
            schedule.step()
    return linear


def steps_of(rules: DecisionRules, linear: nn.Linear, split: Split, index: Tensor) -> list[Target]:
    """What a person says of images: the first wrong step of the hard path, put right."""
    tree = rules.hierarchy
    with torch.no_grad():
        answers = rules.hard(linear(split.features[index])).tolist()
    records = []
    for image, label, answer in zip(
        index.tolist(), split.labels[index].tolist(), answers, strict=True
    ):
        right = tree.path_of_class(label)
        wrong = tree.path_of_class(answer)
        fork = next(i for i, (a, b) in enumerate(zip(right, wrong, strict=False)) if a != b)
        node, child = tree.ids[right[fork - 1]], tree.ids[right[fork]]
        records.append(Correction("step", f"{image:064x}", node=node, child=child))
    return find_targets(records, tree)[0]


def labels_of(rules: DecisionRules, split: Split, index: Tensor) -> list[Target]:
    names = rules.hierarchy.classes
    records = [
        Correction("label", f"{image:064x}", label=names[label])
        for image, label in zip(index.tolist(), split.labels[index].tolist(), strict=True)
    ]
    return find_targets(records, rules.hierarchy)[0]


def taught(  # noqa: PLR0917
    linear: nn.Linear, rules: DecisionRules, targets: list[Target], pool: Split, replay: Tensor,
    settings: CorrectionSettings,
) -> nn.Linear:  # fmt: skip
    index = torch.tensor([int(target.correction.image, 16) for target in targets])
    rows = pool.features[index]
    reported = CorrectionBatch(targets, rows, None, None)
    found = copy.deepcopy(linear)
    fit_head(found, rules, reported, replay, settings)
    return found


def right(linear: nn.Linear, rules: DecisionRules, split: Split) -> Tensor:
    """(count, 2): whether the soft and the hard answer are right."""
    with torch.no_grad():
        logits = linear(split.features)
        soft, hard = rules(logits).argmax(dim=1), rules.hard(logits)
    return torch.stack([soft == split.labels, hard == split.labels], dim=1).double()


def interval(difference: Tensor) -> str:
    """Mean of paired differences with its 95 % interval, in points."""
    mean, half = paired(difference)
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def paired(difference: Tensor) -> tuple[float, float]:
    half = 1.96 * float(difference.std()) / math.sqrt(len(difference))
    return 100 * float(difference.mean()), 100 * half


def arms(
    linear: nn.Linear, rules: DecisionRules, pool: Split, two: Tensor, count: int
) -> dict[str, list[Target]]:
    """What is taught in each arm."""
    with torch.no_grad():
        answers = rules.hard(linear(pool.features))
    of_two = torch.isin(pool.labels, two)
    mistakes = (of_two & torch.isin(answers, two) & (answers != pool.labels)).nonzero().flatten()
    chosen = mistakes[:count]
    return {
        "steps": steps_of(rules, linear, pool, chosen),
        "labels of the same": labels_of(rules, pool, chosen),
        "labels, the two classes": labels_of(rules, pool, of_two.nonzero().flatten()[:count]),
        "labels, all classes": labels_of(rules, pool, torch.arange(count)),
    }


def experiment(  # noqa: PLR0917
    train: Split, pool: Split, test: Split, names: list[str], share: float, seed: int,
    settings: CorrectionSettings,
) -> None:  # fmt: skip
    two = torch.tensor([names.index(WRONG), names.index(INTO)])
    linear = trained(train, planted(train.labels, names, share, seed), None, "marginal", seed)
    rules = DecisionRules(induce(linear.weight.detach(), names, rule="marginal"), rule="marginal")
    base, mine = right(linear, rules, test), torch.isin(test.labels, two)
    soft, hard = (100 * base[mine].mean(0)).tolist()
    others = 100 * float(base[~mine, 0].mean())
    print(f"\n{share:.0%} of {WRONG} labelled {INTO}, seed {seed}: before, soft {soft:.2f} and hard "
          f"{hard:.2f} on the two classes, soft {others:.2f} on the others")  # fmt: skip
    print(
        "| N | taught | two, soft | two, hard | others, soft | others, hard |\n|---|---|---|---|---|---|"
    )
    for count in COUNTS:
        for name, targets in arms(linear, rules, pool, two, count).items():
            new = taught(linear, rules, targets, pool, train.features, settings)
            change = right(new, rules, test) - base
            cells = [interval(change[rows, kind]) for rows in (mine, ~mine) for kind in (0, 1)]
            print(f"| {len(targets)} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    whole, names = features(MOBILENET, options.data, options.cache, "train")
    test, _ = features(MOBILENET, options.data, options.cache, "test")
    order = torch.randperm(len(whole.labels), generator=torch.Generator().manual_seed(0))
    first, rest = order[:TRAINED], order[TRAINED : TRAINED + POOL]
    train = whole[first]
    pool = whole[rest]
    for seed in range(options.seeds):
        for share in SHARES:
            experiment(train, pool, test, names, share, seed, CorrectionSettings(seed=seed))


if __name__ == "__main__":
    main()
