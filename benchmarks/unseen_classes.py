"""Where does a tree put what it has never seen? CIFAR-10's tree on the CIFAR-100 classes it lacks.

    python benchmarks/unseen_classes.py --data ../shared/data

A bear is none of the ten classes, but it is an animal: is the first decision right? 53 classes of
CIFAR-100 that CIFAR-10 lacks, all their test images. The tree's first decision stands beside two ways
to get the same from a flat classifier: the group of its likeliest class, and the likelier sum of
class probabilities. The paper reports the like for its own classes (Wan et al., 2021).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from nbdt import NBDT
from nbdt.images.dataset import iter_images
from nbdt.tree.hierarchy import Hierarchy

BATCH = 250


def photographs(data: Path, wanted: dict[str, str]) -> Iterator[tuple[str, object]]:
    """Group and opener of each test image of these classes."""
    for source in iter_images(data / "cifar100_test_lossless.tar.xz"):
        if source.label in wanted:
            yield wanted[source.label], source.open()


def logits(model: NBDT, images: list[Tensor]) -> Tensor:
    """(count, classes) class logits."""
    with torch.inference_mode():
        parts = [
            model.head.linear(model.features(torch.stack(images[i : i + BATCH])))
            for i in range(0, len(images), BATCH)
        ]
    return torch.cat(parts).clone()


def answers(model: NBDT, values: Tensor, groups: list[str]) -> dict[str, Tensor]:
    """(count,) index into `groups` that each way of answering gives."""
    tree = model.hierarchy
    nodes = [tree.index(group) for group in groups]
    group_of = _group_of_class(tree, nodes)
    members = torch.nn.functional.one_hot(group_of, len(groups)).float()
    return {
        "tree, first decision": model.head.rules.log_probs(values)[:, nodes].argmax(1),
        "flat, likeliest class": group_of[values.argmax(1)],
        "flat, sum of probabilities": (values.softmax(1) @ members).argmax(1),
    }


def _group_of_class(tree: Hierarchy, nodes: list[int]) -> Tensor:
    found = torch.full((tree.num_classes,), -1)
    for place, node in enumerate(nodes):
        found[tree.classes_under(node)] = place
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("NBDT_DATA", "../shared/data"))
    parser.add_argument("--model", default="cifar10")
    options = parser.parse_args()
    rows = json.loads((options.data / "unseen_superclass_cifar100.json").read_text())
    wanted = {row["class"]: row["superclass"] for row in rows}
    groups = sorted({*wanted.values()})
    model = NBDT.load(options.model)
    found = [
        (groups.index(group), model.preprocess(image))
        for group, image in photographs(options.data, wanted)
    ]
    target = torch.tensor([group for group, _ in found])
    given = answers(model, logits(model, [image for _, image in found]), groups)
    print(f"{len(wanted)} unseen classes, {len(found):,} images\n")
    print(f"| answer | all | {' | '.join(groups)} |\n|---|---|{'---|' * len(groups)}")
    for name, answer in given.items():
        right = (answer == target).double()
        each = [right[target == place].mean() for place in range(len(groups))]
        print(f"| {name} | {' | '.join(f'{share:.1%}' for share in [right.mean(), *each])} |")


if __name__ == "__main__":
    main()
