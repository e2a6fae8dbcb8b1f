"""Rule × tree × loss × ω on frozen features of CIFAR-10: which last layer makes the better tree?

    python benchmarks/frozen_heads.py --data ../shared/data --cache features

Two frozen networks (see `cifar_features`). A last layer is trained on 45,000 images for every
setting; the other 5,000 training images choose; the test images are looked at once, for the chosen
setting of each network and rule beside the flat layer with the same tree. ResNet-56 was trained on
all 50,000 training images itself, so its held-out figures are optimistic, for all settings alike.

"Random" is the induced tree with its classes exchanged at random. Intervals are of differences paired
by image and averaged over seeds, 95 %.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from cifar_features import MOBILENET, RESNET56, Network, Split, features
from torch import Tensor, nn

from nbdt import DecisionRules, Hierarchy
from nbdt.hierarchies import from_wordnet, induce
from nbdt.train import TreeSupervisionLoss

HELD_OUT, EPOCHS, BATCH = 5_000, 8, 500
TREES = ("induced", "wordnet", "random")
LOSSES = {"soft": 0.0, "hierarchical": 0.5}  # name: alpha
OMEGAS = (0.5, 2.0, 8.0)


@dataclass(frozen=True)
class Setting:
    rule: str
    tree: str
    loss: str = "flat"
    omega: float = 0.0


def settings() -> Iterator[Setting]:
    for rule, tree in itertools.product(("representative", "marginal"), TREES):
        yield Setting(rule, tree)
        for (loss, alpha), omega in itertools.product(LOSSES.items(), OMEGAS):
            if rule == "representative" or alpha:  # else it is the cross-entropy itself
                yield Setting(rule, tree, loss, omega)


def trained(train: Split, loss: Any, seed: int) -> nn.Linear:
    """A last layer by AdamW."""
    torch.manual_seed(seed)
    linear = nn.Linear(train.features.shape[1], 10)
    optimizer = torch.optim.AdamW(linear.parameters(), weight_decay=0.05)
    steps = EPOCHS * -(-len(train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train.labels)).split(BATCH):
            optimizer.zero_grad()
            loss(linear(train.features[rows]), train.labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return linear


def tree_of(kind: str, rule: str, flat: nn.Linear, names: list[str], seed: int) -> Hierarchy:
    if kind == "wordnet":
        return from_wordnet(names)
    weight = flat.weight.detach()
    if kind == "random":
        weight = weight[torch.randperm(10, generator=torch.Generator().manual_seed(seed))]
    return induce(weight, names, rule=rule)


def right(linear: nn.Linear, rules: DecisionRules, split: Split) -> Tensor:
    """(count, 3): whether the flat, soft and hard answers are right."""
    with torch.no_grad():
        logits = linear(split.features)
        answers = (logits.argmax(dim=1), rules(logits).argmax(dim=1), rules.hard(logits))
    return torch.stack([answer == split.labels for answer in answers], dim=1).double()


@dataclass(frozen=True)
class Result:
    held_out: Tensor  # (count, 3)
    test: Tensor


def results(network: Network, options: Any, seed: int) -> dict[Setting, Result]:
    whole, names = features(network, options.data, options.cache, "train")
    test, _ = features(network, options.data, options.cache, "test")
    order = torch.randperm(len(whole.labels), generator=torch.Generator().manual_seed(0))
    held_out, train = whole[order[:HELD_OUT]], whole[order[HELD_OUT:]]
    flat = trained(train, F.cross_entropy, seed)
    found = {}
    for setting in settings():
        tree = tree_of(setting.tree, setting.rule, flat, names, seed)
        linear = flat
        if setting.loss != "flat":
            loss = TreeSupervisionLoss(
                tree, rule=setting.rule, omega=setting.omega, alpha=LOSSES[setting.loss]
            )
            linear = trained(train, loss, seed)
        rules = DecisionRules(tree, rule=setting.rule)
        found[setting] = Result(right(linear, rules, held_out), right(linear, rules, test))
    return found


def percent(values: Tensor) -> str:
    return " | ".join(f"{100 * value:.2f}" for value in values.mean(dim=0).tolist())


def interval(differences: Tensor) -> str:
    """Paired by image, (count, seeds): the mean over seeds first, since the images are the same."""
    rows = differences.mean(dim=1)
    half = 196 * float(rows.std()) / math.sqrt(len(rows))
    mean = 100 * float(rows.mean())
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def report(title: str, runs: list[dict[Setting, Result]]) -> None:
    print(f"\n**{title}: 5,000 held-out images, mean of {len(runs)} seeds**\n")
    print("| rule | tree | loss | ω | flat | soft | hard |\n|---|---|---|---|---|---|---|")
    means = {s: torch.stack([run[s].held_out.mean(dim=0) for run in runs]) for s in runs[0]}
    for setting, values in means.items():
        omega = f"{setting.omega:g}" if setting.omega else ""
        print(f"| {setting.rule} | {setting.tree} | {setting.loss} | {omega} | {percent(values)} |")
    print(f"\n**{title}: 10,000 test images, the settings chosen above (soft + hard)**\n")
    print(
        "| rule | tree | loss | ω | flat | soft | hard | soft − flat layer | hard − flat layer |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for rule in ("representative", "marginal"):
        mine = [s for s in means if s.rule == rule and s.tree != "random"]
        best = max(mine, key=lambda s: float(means[s][:, 1:].sum()))
        for setting in dict.fromkeys((Setting(rule, best.tree), best)):
            tests = torch.stack([run[setting].test for run in runs], dim=1)  # count, seeds, 3
            base = torch.stack([run[Setting(rule, best.tree)].test[:, 0] for run in runs], dim=1)
            changes = " | ".join(interval(tests[:, :, kind] - base) for kind in (1, 2))
            omega = f"{setting.omega:g}" if setting.omega else ""
            print(
                f"| {rule} | {setting.tree} | {setting.loss} | {omega} | "
                f"{percent(tests.flatten(0, 1))} | {changes} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for title, network in (("MobileNetV2 of ImageNet", MOBILENET), ("ResNet-56", RESNET56)):
        started = time.perf_counter()
        report(title, [results(network, options, seed) for seed in range(options.seeds)])
        print(f"\n({(time.perf_counter() - started) / 60:.1f} minutes)", flush=True)


if __name__ == "__main__":
    main()
