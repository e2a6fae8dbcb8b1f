"""Builds the shipped hierarchies: ``python tools/build_library.py [NAME…] [--data DIR]``.

Each is written as hierarchies/data/NAME.json, compressed if it is large; trees.json there records
the sources. Without names, all are built. Some need the shared data (``--data`` or ``NBDT_DATA``).
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from nbdt.errors import NBDTError
from nbdt.files import write_atomic
from nbdt.hierarchies.shipped import INDEX, ShippedTree
from nbdt.tree.hierarchy import Hierarchy

DATA = Path(__file__).parents[1] / "hierarchies" / "data"
NAMES = Path(__file__).with_name("imagenet_names.txt")
LARGE = 100_000  # bytes
MOBILENET = "weights/imagenet_mobilenetv2_100_tf2ptq_fp16.pth"
WORDNET_LICENCE = "WordNet 3.0 licence"


class Recipe(NamedTuple):
    """How one hierarchy is made, and its provenance."""

    title: str
    source: str
    licence: str
    build: Callable[[Path], Hierarchy]


def cifar10_wordnet(_data: Path) -> Hierarchy:
    """WordNet over torchvision's names of the CIFAR-10 classes."""
    from nbdt.hierarchies import from_wordnet

    return from_wordnet(CIFAR10)


def cifar10_induced(_data: Path) -> Hierarchy:
    """From the last layer of the bundled model, for the rule that it answers by."""
    from nbdt import NBDT
    from nbdt.hierarchies import induce

    model = NBDT.load("cifar10")
    return induce(model, rule=model.rule)


def imagenet1k_wordnet(_data: Path) -> Hierarchy:
    """WordNet over timm's ids and torchvision's names."""
    from nbdt.hierarchies import from_wnids

    return from_wnids(*imagenet_classes())


def imagenet1k_induced(data: Path) -> Hierarchy:
    """From the last layer of timm's MobileNetV2, for the rule "marginal"."""
    from nbdt.hierarchies import induce
    from nbdt.network.weights import read_weights

    wnids, names = imagenet_classes()
    weights = read_weights(data / MOBILENET)["classifier.weight"]
    return induce(weights, names, rule="marginal", wnids=wnids)


def imagenet1k_readable(_data: Path) -> Hierarchy:
    """Everyday groups over timm's ids and torchvision's names."""
    from nbdt.hierarchies import readable

    wnids, names = imagenet_classes()
    return readable(names, wnids)


def imagenet_classes() -> tuple[list[str], list[str]]:
    """WordNet ids and everyday names of the 1,000 classes, in the order that every model has them."""
    from nbdt.torchvision_cpu import import_torchvision

    import_torchvision()
    from timm.data import ImageNetInfo
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    lines = [line for line in NAMES.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    everyday = dict(line.split(": ") for line in lines)
    if unknown := everyday.keys() - set(names):
        raise NBDTError(f"{NAMES.name} renames classes that torchvision lacks: {sorted(unknown)}.")
    return ImageNetInfo().label_names(), [everyday.get(name, name) for name in names]


CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGENET_NAMES = "class names of torchvision, a quarter replaced by everyday ones; ids of timm"
RECIPES = {
    "cifar10-wordnet": Recipe(
        "CIFAR-10 in WordNet", "WordNet 3.0 nouns", WORDNET_LICENCE, cifar10_wordnet
    ),
    "cifar10-induced": Recipe(
        "CIFAR-10, induced from the bundled model",
        "last layer of the bundled model cifar10; names of groups from WordNet 3.0",
        f"MIT; {WORDNET_LICENCE}",
        cifar10_induced,
    ),
    "imagenet1k-wordnet": Recipe(
        "ImageNet-1k in WordNet",
        f"WordNet 3.0 nouns; {IMAGENET_NAMES}",
        f"{WORDNET_LICENCE}; names BSD-3-Clause",
        imagenet1k_wordnet,
    ),
    "imagenet1k-readable": Recipe(
        "ImageNet-1k in everyday groups",
        f"groups written for this project over WordNet 3.0; {IMAGENET_NAMES}",
        f"MIT; {WORDNET_LICENCE}; names BSD-3-Clause",
        imagenet1k_readable,
    ),
    "imagenet1k-induced": Recipe(
        "ImageNet-1k, induced from MobileNetV2",
        f"last layer of timm's mobilenetv2_100; names of groups from WordNet 3.0; {IMAGENET_NAMES}",
        f"weights Apache-2.0; {WORDNET_LICENCE}; names BSD-3-Clause",
        imagenet1k_induced,
    ),
}


def entry(name: str, tree: Hierarchy) -> ShippedTree:
    """Return the record of a hierarchy in trees.json."""
    recipe = RECIPES[name]
    command = f"python tools/build_library.py {name}"
    return ShippedTree(
        name, recipe.title, tree.num_classes, recipe.source, recipe.licence, command, tree.hash
    )


def save(name: str, tree: Hierarchy, folder: Path) -> None:
    """Write the hierarchy, and remove its file in the other form."""
    text = tree.to_json().encode()
    plain, packed = folder / f"{name}.json", folder / f"{name}.json.xz"
    large = len(text) > LARGE
    write_atomic(packed if large else plain, lzma.compress(text, preset=9) if large else text)
    (plain if large else packed).unlink(missing_ok=True)


def build(names: Sequence[str], data: Path, folder: Path) -> None:
    """Build these hierarchies into a folder; its index keeps the records of others."""
    index = folder / INDEX
    records = json.loads(index.read_text(encoding="utf-8")) if index.exists() else []
    known = {record["name"]: record for record in records}
    for name in names:
        tree = RECIPES[name].build(data)
        save(name, tree, folder)
        known[name] = vars(entry(name, tree))
        typer.echo(f"{name}: {tree!r}, hash {tree.hash[:12]}")
    ordered = [known[name] for name in RECIPES if name in known]
    write_atomic(index, json.dumps(ordered, indent=1) + "\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--data", type=Path, default=os.environ.get("NBDT_DATA", "../shared/data"))
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args()
    unknown = sorted({*options.names} - {*RECIPES})
    if unknown:
        parser.error(f"no tree {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    build(options.names or [*RECIPES], options.data, options.out)


if __name__ == "__main__":
    main()
