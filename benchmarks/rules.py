"""The decision rules and the loss against log_softmax and cross-entropy, in one run.

    python benchmarks/rules.py            # about five minutes on one core
    python benchmarks/rules.py --rounds 30 --quick

One thread, float32, interleaved; each figure is the ratio of the minima over all rounds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F

from nbdt import DecisionRules, Hierarchy
from nbdt.train import TreeSupervisionLoss


def random_tree(classes: int, most_children: int, seed: int = 0, skew: float = 0.36) -> Hierarchy:
    """A random tree over shuffled classes with 2 to `most_children` children a node."""
    rng = random.Random(seed)
    names = [f"class {i}" for i in range(classes)]
    order = rng.sample(names, classes)
    paths: dict[str, list[str]] = {}
    stack: list[tuple[list[str], list[str]]] = [(order, [])]
    while stack:
        members, prefix = stack.pop()
        for index, part in enumerate(_split(members, most_children, rng, skew)):
            if len(part) == 1:
                paths[part[0]] = [*prefix, part[0]]
            else:
                stack.append((part, [*prefix, str(index)]))
    return Hierarchy.from_paths([["root", *paths[name]] for name in names])


def _split(members: list[str], most: int, rng: random.Random, skew: float) -> list[list[str]]:
    count = min(len(members), rng.randint(2, most))
    if count == 2:
        cut = round(len(members) * rng.uniform(0.5 - skew, 0.5 + skew))
        cuts = [min(max(1, cut), len(members) - 1)]
    else:
        cuts = sorted(rng.sample(range(1, len(members)), count - 1))
    bounds = [0, *cuts, len(members)]
    return [members[a:b] for a, b in pairwise(bounds)]


def minima(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest run of each job, the jobs taking turns."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def rules_row(tree: Hierarchy, batch: int, rounds: int) -> dict[str, float]:
    logits = 5 * torch.randn(batch, tree.num_classes)
    mean = DecisionRules(tree, rule="representative")
    mass = DecisionRules(tree, rule="marginal")
    jobs: dict[str, Callable[[], object]] = {
        "log_softmax": lambda: logits.log_softmax(dim=1),
        "soft representative": lambda: mean(logits),
        "soft marginal": lambda: mass(logits),
        "hard representative": lambda: mean.hard(logits),
        "hard marginal": lambda: mass.hard(logits),
    }
    with torch.inference_mode():
        best = minima(jobs, rounds)
    return {name: best[name] / best["log_softmax"] for name in jobs} | {
        "log_softmax": 1e6 * best["log_softmax"],
        "soft microseconds": 1e6 * best["soft representative"],
    }


def loss_row(tree: Hierarchy, batch: int, rounds: int) -> dict[str, float]:
    logits = (5 * torch.randn(batch, tree.num_classes)).requires_grad_()
    target = torch.randint(0, tree.num_classes, (batch,))
    loss = TreeSupervisionLoss(tree, rule="representative")
    jobs: dict[str, Callable[[], object]] = {
        "cross-entropy": lambda: torch.autograd.grad(F.cross_entropy(logits, target), logits),
        "tree loss": lambda: torch.autograd.grad(loss(logits, target), logits),
    }
    best = minima(jobs, rounds)
    return {
        "cross-entropy": 1e6 * best["cross-entropy"],
        "tree loss": best["tree loss"] / best["cross-entropy"],
    }


def table(rounds: int, *, quick: bool) -> None:
    trees = {"binary": random_tree(1000, 2), "n-ary": random_tree(1000, 8)}
    print("| tree | batch | log_softmax µs | soft repr. | soft marg. | hard repr. | hard marg. | "
          "cross-entropy µs | loss |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for name, tree in trees.items():
        for batch in (1, 16, 128, 1024):
            count = rounds if batch < 1024 else max(10, rounds // 4)
            row = rules_row(tree, batch, count) | loss_row(tree, batch, count)
            print(
                f"| {name}, depth {tree.depth} | {batch} | {row['log_softmax']:.0f} | "
                f"{row['soft representative']:.1f} | {row['soft marginal']:.2f} | "
                f"{row['hard representative']:.1f} | {row['hard marginal']:.1f} | "
                f"{row['cross-entropy']:.0f} | {row['tree loss']:.1f} |",
                flush=True,
            )
    if not quick:
        large_tree(rounds)


def large_tree(rounds: int) -> None:
    """Batch 16: the ratio at 100,000 classes against that at 1,000, and the time to compile."""
    start = time.perf_counter()
    tree = random_tree(100_000, 2)
    built = time.perf_counter() - start
    start = time.perf_counter()
    DecisionRules(tree, rule="representative")
    compiled = time.perf_counter() - start
    small = rules_row(random_tree(1000, 2), 16, rounds)["soft representative"]
    large = rules_row(tree, 16, max(10, rounds // 10))["soft representative"]
    print(f"\n100,000 classes, depth {tree.depth}: hierarchy built in {built:.1f} s, compiled in "
          f"{compiled:.1f} s; batch 16 soft {large:.1f} x, at 1,000 classes {small:.1f} x: "
          f"{large / small:.2f} times as much")  # fmt: skip


def resnet_share(rounds: int) -> None:
    """Batch 1: soft as a share of a ResNet-18 forward pass at 224 pixels."""
    from nbdt.network.load import create_timm

    network = create_timm("resnet18", 1000).eval()
    image = torch.randn(1, 3, 224, 224)
    rules = DecisionRules(random_tree(1000, 2), rule="representative")
    logits = torch.randn(1, 1000)
    with torch.inference_mode():
        best = minima({"net": lambda: network(image), "soft": lambda: rules(logits)}, rounds)
    print(f"\nbatch 1: soft {1e6 * best['soft']:.0f} µs, ResNet-18 {1e3 * best['net']:.1f} ms: "
          f"{best['soft'] / best['net']:.2%}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    table(options.rounds, quick=options.quick)
    if not options.quick:
        resnet_share(max(10, options.rounds // 4))
