"""Induced trees of ImageNet compared: linkage, branching and semantics.

    python benchmarks/hierarchies.py --logits /tmp/logits.npz     # a minute, the first time six
    python benchmarks/hierarchies.py --logits /tmp/logits.npz --speed

The model is MobileNetV2 with the weights of the shared data, the images its 1,000 photographs, one
a class; nothing is fine-tuned. Each is seen as its centre and as its four corners, two of them
mirrored: five views tell small differences better than one. Prints the table of docs/hierarchies-table.md and draws its picture.
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
from nbdt.decide.metrics import accuracy
from nbdt.hierarchies import induce, names
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.images.dataset import iter_images
from nbdt.network.load import import_timm

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
    "marginal_hard_views": "hard, 5 views",
    "representative_soft": "representative soft",
    "representative_hard": "hard",
}


@dataclass(frozen=True)
class Photographs:
    """What the model says about them, and the last layer that says it."""

    logits: torch.Tensor  # (images, classes), of their centres
    views: torch.Tensor  # (views, images, classes), with the centres first
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
    marginal_hard_views: float
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
        named=100 * sum(row.named for row in report) / len(report),
        precise=100 * sum(row.wnid is not None for row in report) / len(report),
        marginal_hard_views=100 * seen_in_all(photographs, tree),
        **scores,
    )


def seen_in_all(photographs: Photographs, tree: Hierarchy) -> float:
    """Hard accuracy under `marginal` over all views."""
    rules = DecisionRules(tree, rule="marginal")
    hard = torch.stack([rules.hard(view) for view in photographs.views])
    return accuracy(hard.flatten(), photographs.labels.repeat(len(hard)))


def rows(photographs: Photographs) -> Iterator[Row]:
    for linkage, branching, semantics in itertools.product(LINKAGES, BRANCHING, SEMANTICS):
        yield measure(photographs, linkage=linkage, branching=branching, semantics=semantics)


def read(path: Path) -> Photographs:
    with np.load(path) as stored:
        wnids = stored["wnids"].tolist()
        return Photographs(
            torch.from_numpy(stored["views"][0].astype(np.float32)),
            torch.from_numpy(stored["views"].astype(np.float32)),
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
    """The model on the views of each photograph; kept, since nothing else changes."""
    timm = import_timm()
    model = timm.create_model("mobilenetv2_100", pad_type="same")
    weights = DATA / "weights" / "imagenet_mobilenetv2_100_tf2ptq_fp16.pth"
    state = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    model.eval()
    wnids = timm.data.ImageNetInfo().label_names()
    views, labels = [], []
    with torch.inference_mode():
        for source in iter_images(DATA / "imagenet1000_s256_q90.tar"):
            views.append(model(crops(source.open())))
            labels.append(wnids.index(source.reference.rpartition("!")[2].partition("_")[0]))
    weight = model.classifier.weight.detach().numpy()
    stacked = torch.stack(views, dim=1).numpy()
    np.savez(path, views=stacked, labels=labels, weight=weight, wnids=wnids)


def crops(image: Any, side: int = 224) -> torch.Tensor:
    """(views, 3, side, side): the centre, two corners, the other two mirrored."""
    right, low = image.width - side, image.height - side
    corners = ((right // 2, low // 2), (0, 0), (right, low), (0, low), (right, 0))
    parts = [np.asarray(image.crop((x, y, x + side, y + side))) for x, y in corners]
    pixels = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float() / 127.5 - 1
    pixels[3:] = pixels[3:].flip(3)
    return pixels


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
    seen = photographs.views.argmax(dim=2)
    everywhere = 100 * accuracy(seen.flatten(), photographs.labels.repeat(len(seen)))
    print(
        f"Flat: {flat:.1f} % of {len(photographs.labels):,} centres, {everywhere:.1f} % of views.\n"
    )
    print("| " + " | ".join(COLUMNS.values()) + " |\n" + "|---" * len(COLUMNS) + "|")
    table = []
    for row in rows(photographs):
        table.append(row)
        print(row, flush=True)
    draw(table, flat)
    for rule in ("marginal", "representative"):
        tree = induce(photographs.weight, photographs.classes, wnids=photographs.wnids, rule=rule)
        print(f"\n{rule}: {tree!r}")
    return None


if __name__ == "__main__":
    main()
