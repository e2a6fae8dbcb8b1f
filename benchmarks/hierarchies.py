"""Induced trees of ImageNet compared: linkage, branching and semantics.

    python benchmarks/hierarchies.py --logits /tmp/logits.npz     # two minutes, the first time four
    python benchmarks/hierarchies.py --logits /tmp/logits.npz --speed

The model is MobileNetV2 with the weights of the shared data, the images its 1,000 photographs, one
a class; nothing is fine-tuned. Prints the table of docs/hierarchies-table.md and draws its picture.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbdt import DecisionRules, Hierarchy
from nbdt.hierarchies import induce
from nbdt.hierarchies.naming import names
from nbdt.hierarchies.wordnet import wordnet
from nbdt.image_sources import iter_tar
from nbdt.metrics import accuracy
from nbdt.model import import_timm

DATA = Path(os.environ.get("NBDT_DATA", Path(__file__).parents[2] / "shared" / "data"))
PICTURE = Path(__file__).parents[1] / "docs" / "img" / "induced.png"
LINKAGES = ("average", "ward", "complete")
BRANCHING = (2, 4, 8)
SEMANTICS = (0.0, 0.25, 0.5, 0.75, 1.0)
COLUMNS = {  # of a Row, as the table heads them
    "linkage": "linkage",
    "branching": "branching",
    "semantics": "semantics",
    "inner": "inner nodes",
    "depth": "depth",
    "named": "named %",
    "precise": "precise %",
    "marginal_soft": "marginal soft",
    "marginal_hard": "hard",
    "representative_soft": "representative soft",
    "representative_hard": "hard",
}


@dataclass(frozen=True)
class Photographs:
    """What the model says about them, and the last layer that says it."""

    logits: torch.Tensor  # (images, classes)
    labels: torch.Tensor  # (images,)
    weight: np.ndarray[Any, Any]  # (classes, features)
    wnids: list[str]
    classes: list[str]


@dataclass(frozen=True)
class Row:
    """One tree; accuracies and shares in per cent."""

    linkage: str
    branching: int
    semantics: float
    inner: int
    depth: int
    named: float
    precise: float
    marginal_soft: float
    marginal_hard: float
    representative_soft: float
    representative_hard: float

    def __str__(self) -> str:
        cells = [getattr(self, column) for column in COLUMNS]
        shown = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
        shown[2] = f"{self.semantics:g}"
        return "| " + " | ".join(shown) + " |"


def measure(photographs: Photographs, **settings: Any) -> Row:
    tree = induce(photographs.weight, photographs.classes, wnids=photographs.wnids, **settings)
    report = names(tree)
    scores = {}
    for rule in ("marginal", "representative"):
        rules = DecisionRules(tree, rule=rule)
        soft = rules(photographs.logits).argmax(dim=1)
        scores[f"{rule}_soft"] = 100 * accuracy(soft, photographs.labels)
        scores[f"{rule}_hard"] = 100 * accuracy(rules.hard(photographs.logits), photographs.labels)
    return Row(
        **settings,
        inner=len(tree.inner_nodes),
        depth=tree.depth,
        named=100 * report.share_named,
        precise=100 * report.share_precise,
        **scores,
    )


def rows(photographs: Photographs) -> Iterator[Row]:
    for linkage, branching, semantics in itertools.product(LINKAGES, BRANCHING, SEMANTICS):
        yield measure(photographs, linkage=linkage, branching=branching, semantics=semantics)


def read(path: Path) -> Photographs:
    with np.load(path) as stored:
        wnids = stored["wnids"].tolist()
        return Photographs(
            torch.from_numpy(stored["logits"]),
            torch.from_numpy(stored["labels"]),
            stored["weight"],
            wnids,
            distinct_names(wnids),
        )


def distinct_names(wnids: list[str]) -> list[str]:
    """Each synset's first word, with the id where that is another's too ("crane", "maillot")."""
    net = wordnet()
    words = [net.name(net.index(wnid)) for wnid in wnids]
    return [
        word if words.count(word) == 1 else f"{word} ({wnid})"
        for word, wnid in zip(words, wnids, strict=True)
    ]


def compute(path: Path) -> None:
    """The model on the centre 224 pixels of each photograph; kept, since nothing else changes."""
    timm = import_timm()
    model = timm.create_model("mobilenetv2_100", pad_type="same")
    weights = DATA / "weights" / "imagenet_mobilenetv2_100_tf2ptq_fp16.pth"
    state = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    model.eval()
    wnids = timm.data.ImageNetInfo().label_names()
    logits, labels = [], []
    with torch.inference_mode():
        for source in iter_tar(DATA / "imagenet1000_s256_q90.tar"):
            logits.append(model(centre(source.open())[None])[0])
            labels.append(wnids.index(source.reference.rpartition("!")[2].partition("_")[0]))
    weight = model.classifier.weight.detach().numpy()
    np.savez(path, logits=torch.stack(logits), labels=labels, weight=weight, wnids=wnids)


def centre(image: Any, side: int = 224) -> torch.Tensor:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1


def draw(table: list[Row], flat: float) -> None:
    """Two panels over semantics: nodes that have a name, and hard accuracy."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    colours = dict(zip(LINKAGES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    styles = dict(zip(BRANCHING, (":", "--", "-"), strict=True))
    for linkage, branching in itertools.product(LINKAGES, BRANCHING):
        line = [row for row in table if (row.linkage, row.branching) == (linkage, branching)]
        look = {"color": colours[linkage], "linestyle": styles[branching], "marker": "."}
        label = f"{linkage}, {branching}"
        left.plot(SEMANTICS, [row.named for row in line], label=label, **look)
        right.plot(SEMANTICS, [row.marginal_hard for row in line], **look)
        right.plot(SEMANTICS, [row.representative_soft for row in line], alpha=0.45, **look)
    left.set(title="Named inner nodes (%)", xlabel="semantics", ylim=(0, 100))
    left.legend(title="linkage, branching", fontsize=8, ncols=3)
    right.axhline(flat, color="black", linewidth=0.8)
    right.set(title="Accuracy (%), not fine-tuned", xlabel="semantics", ylim=(0, 100))
    right.text(0, flat + 1.5, "flat; just below: hard, marginal", fontsize=8)
    right.text(0.45, 66, "pale: soft, representative", fontsize=8)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def speed(photographs: Photographs) -> None:
    """Seconds of processor time, the least of five runs, and peak memory at 10,000 classes."""
    known = {"wnids": photographs.wnids}
    jobs: dict[str, dict[str, Any]] = {
        "weights alone, without names": {"names": False},
        "weights alone": known,
        "marginal's default": {"rule": "marginal", **known},
        "marginal's default, senses guessed": {"rule": "marginal"},
    }
    for job, arguments in jobs.items():
        print(f"1,000 classes, {job}: {least(photographs, arguments):.2f} s")
    net = wordnet()
    rng = np.random.default_rng(0)
    ids = [net.wnid(i) for i in rng.choice(np.flatnonzero(net.hyponym_counts == 0), 10_000, False)]
    start = time.process_time()
    tree = induce(rng.normal(size=(10_000, 2048)), ids, wnids=ids, rule="marginal")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"10,000 classes: {time.process_time() - start:.0f} s, {peak:.2f} GiB, {tree!r}")


def least(photographs: Photographs, arguments: dict[str, Any]) -> float:
    times = []
    for _ in range(5):
        start = time.process_time()
        induce(photographs.weight, photographs.classes, **arguments)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logits", type=Path, required=True, help="read, or computed and written")
    parser.add_argument("--speed", action="store_true", help="time and memory instead of the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.logits.exists():
        compute(options.logits)
    photographs = read(options.logits)
    if options.speed:
        return speed(photographs)
    flat = 100 * accuracy(photographs.logits.argmax(dim=1), photographs.labels)
    print(f"Flat: {flat:.1f} % of {len(photographs.labels):,} photographs.\n")
    print("| " + " | ".join(COLUMNS.values()) + " |\n" + "|---" * len(COLUMNS) + "|")
    table = []
    for row in rows(photographs):
        table.append(row)
        print(row, flush=True)
    draw(table, flat)
    defaults: list[Hierarchy] = []
    for rule in ("marginal", "representative"):
        defaults.append(
            induce(photographs.weight, photographs.classes, wnids=photographs.wnids, rule=rule)
        )
        print(f"\n{rule}: {defaults[-1]!r}")
    return None


if __name__ == "__main__":
    main()
