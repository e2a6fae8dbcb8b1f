"""What the benchmarks of memories share: photographs of a data set, and the rows that a fit takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from nbdt import NBDT, DecisionRules, Hierarchy
from nbdt.hierarchies import readable
from nbdt.images.dataset import iter_images
from nbdt.memory.refit import FittedHead
from nbdt.memory.table import Rows
from nbdt.model.features import Features, embed


class Data:
    """Features and classes of training and test photographs."""

    def __init__(self, model: NBDT, place: str) -> None:
        self.train, self.true = features(model, place, "train")
        self.test, self.answers = features(model, place, "test")
        self.classes = sorted({*self.true.tolist()})


def features(model: NBDT, data: str, split: str) -> tuple[Features, np.ndarray]:
    found = embed(model, list(iter_images(data, split)))
    return found, np.array([source.class_label for source in found.sources])


def rows_of(found: Features, labels: np.ndarray, kept: np.ndarray) -> Rows:
    ids = np.array([key.hex() for key in found.keys])
    kept = kept[ids[kept].argsort()]
    text = ("",) * len(kept)
    names = tuple(found.sources[n].reference for n in kept)
    return Rows(
        tuple(ids[kept].tolist()), found.values[kept].half().numpy(), tuple(labels[kept].tolist()),
        names, text, text, np.ones(len(kept), bool), text, 1,
    )  # fmt: skip


def right(
    head: FittedHead, rules: DecisionRules, values: torch.Tensor, true: np.ndarray
) -> np.ndarray:
    """Return whether a head's answers to photographs are right."""
    answers = rules(values.float() @ head.weight.T + head.bias).argmax(dim=1).tolist()
    return np.array([rules.hierarchy.classes[n] for n in answers]) == true


def tree_over(classes: Sequence[str]) -> Hierarchy:
    """Return a readable tree of these classes."""
    made = readable(classes)
    return made[0] if isinstance(made, tuple) else made


def opened(description: str, **more: float) -> tuple[argparse.Namespace, Data]:
    """Return what the command line says, and its data; `more` are other options' defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    for name, value in ({"seeds": 5} | more).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args()
    torch.set_num_threads(1)
    return options, Data(NBDT.load(options.model), options.data)
