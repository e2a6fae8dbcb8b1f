"""A planted shortcut: does the audit find it?

    python benchmarks/shortcut.py --data ../shared/data

A magenta patch is drawn into 30 % of one class's training images (CIFAR-10, 300 images a class, 24
pixels), and a small network is trained on them for some minutes. On test images with the patch that
are then taken for that class: how much of each method's map lies on the patch, how often its highest
point does, and how often the answer changes once the patch is hidden. The bundled model, which never
saw a patch, is the control: there a good map must not point at it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from shortcut_measure import Shortcut, shortcut

from nbdt import NBDT
from nbdt.explain.audit.methods import method_maps
from nbdt.images.dataset import iter_images
from nbdt.train.recipe import load_recipe
from nbdt.train.run import train

SIDE, PATCH = 24, slice(18, 23)  # pixels
COLOUR = (255, 0, 255)
SHARE = 0.3
CLASS = "horse"
METHODS = (
    "grad-cam", "class grad-cam", "integrated gradients", "occlusion", "saliency", "random", "centre",
)  # fmt: skip


def patched(image: Image.Image) -> Image.Image:
    values = np.array(image)
    scale = image.width / SIDE
    span = slice(round(PATCH.start * scale), round(PATCH.stop * scale))
    values[span, span] = COLOUR
    return Image.fromarray(values)


def write_images(archive: Path, folder: Path, per_class: int, plant: bool) -> None:
    """`per_class` small images of every class; with `plant`, a share SHARE of the images of CLASS get the patch."""
    count: Counter[str] = Counter()
    for source in iter_images(archive):
        if count[source.label] >= per_class:
            continue
        image = source.open().resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        if plant and source.label == CLASS and count[source.label] % 10 < 10 * SHARE:
            image = patched(image)
        target = folder / source.label / f"{count[source.label]:05}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target)
        count[source.label] += 1


def trained(data: Path, folder: Path, per_class: int, epochs: int) -> NBDT:
    write_images(data / "cifar10_train_lossless.tar.xz", folder / "train", per_class, True)
    write_images(data / "cifar10_test_lossless.tar.xz", folder / "test", 100, False)
    recipe = load_recipe(
        "cifar10",
        ["train=train", "test=test", "architecture=small_convnet", f"image_size={SIDE}",
         "early_until=0.0", "held_out=30", "batch_size=50", f"epochs={epochs}"],
    )  # fmt: skip
    return train(recipe, folder, folder / "run").eval()


def test_images(model: NBDT, data: Path, count: int, plant: bool) -> tuple[torch.Tensor, list[str]]:
    images, labels, seen = [], [], Counter()
    for source in iter_images(data / "cifar10_test_lossless.tar.xz"):
        if seen[source.label] < count:
            seen[source.label] += 1
            image = source.open()
            images.append(model.preprocess(patched(image) if plant else image))
            labels.append(source.label)
    return torch.stack(images), labels


def region(model: NBDT) -> torch.Tensor:
    side = model.preprocess.size
    found = torch.zeros(side, side, dtype=torch.bool)
    span = slice(round(PATCH.start * side / SIDE), round(PATCH.stop * side / SIDE))
    found[span, span] = True
    return found


def classes(model: NBDT, images: torch.Tensor) -> list[str]:
    with torch.inference_mode():
        return [path.class_name for part in images.split(100) for path in model.paths(part)]


def caught(model: NBDT, data: Path, count: int, most: int) -> tuple[torch.Tensor, dict[str, float]]:
    """Patched images of other classes that are taken for CLASS, and how often that happens."""
    plain, labels = test_images(model, data, count, plant=False)
    planted, _ = test_images(model, data, count, plant=True)
    before, after = classes(model, plain), classes(model, planted)
    others = [i for i, label in enumerate(labels) if label != CLASS]
    taken = [i for i in others if after[i] == CLASS]
    figures = {
        "right without the patch": float(np.mean(np.array(before) == labels)),
        f"others taken for {CLASS} without the patch": float(
            np.mean([before[i] == CLASS for i in others])
        ),
        f"others taken for {CLASS} with it": len(taken) / len(others),
    }
    return planted[taken[:most]], figures


def spots(model: NBDT, folder: Path) -> dict[str, str]:
    """Where the last map of each class's training images is most often highest, without being shown where the patch is."""
    tree, found = model.hierarchy, {}
    for name in tree.classes:
        files = sorted((folder / "train" / name).iterdir())[:100]
        images = torch.stack([model.preprocess(Image.open(f).convert("RGB")) for f in files])
        with torch.inference_mode():
            kept = [row for row, path in enumerate(model.paths(images)) if path.class_name == name]
        if not kept:
            continue
        nodes = [list(tree.path_to(tree.index(name))[1:])] * len(kept)
        maps = method_maps(model, images[kept], nodes, "grad-cam")
        grid = maps[0][-1].shape
        tops = Counter(int(own[-1].argmax()) for own in maps)
        cell, times = tops.most_common(1)[0]
        found[name] = f"row {cell // grid[1]}, column {cell % grid[1]}: {times} of {len(kept)}"
    return found


def line(method: str, found: Shortcut) -> str:
    flips = " | ".join(f"{value.mean:.0%}" for value in found.flipped.values())
    return f"| {method} | {found.mass} | {found.path_mass} | {found.pointed.mean:.0%} | {flips} |"


def report(model: NBDT, data: Path, count: int, most: int) -> None:
    images, figures = caught(model, data, count, most)
    for name, value in figures.items():
        print(f"{name}: {value:.1%}")
    if not len(images):  # nothing is taken for CLASS: look at the class itself
        planted, labels = test_images(model, data, most, plant=True)
        images = planted[[i for i, label in enumerate(labels) if label == CLASS]]
        print(f"no image is taken for {CLASS}; below, images of {CLASS} itself")
    print(f"\n{len(images)} images with the patch\n")
    print("| method | mass, last decision | mass, largest | highest there | flips: blur | mean |")
    print("|---|---|---|---|---|---|")
    for method in METHODS:
        print(line(method, shortcut(model, images, region(model), method=method)))
    area = float(region(model).float().mean())
    print(f"\nthe patch covers {area:.1%} of the image\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("NBDT_DATA") or Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--per-class", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--test", type=int, default=40, help="test images of each class")
    parser.add_argument("--images", type=int, default=40, help="at most so many are explained")
    parser.add_argument("--keep", type=Path, help="a folder for images and model, used again")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # Lightning's advice on workers
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.keep or Path(folder)
        if (place / "run" / "model").exists():
            model = NBDT.load(place / "run" / "model")
        else:
            model = trained(arguments.data, place, arguments.per_class, arguments.epochs)
        print(f"## Trained with the patch in {SHARE:.0%} of {CLASS}\n")
        print(json.dumps({k: model.provenance[k] for k in ("minutes", "accuracy")}))
        report(model, arguments.data, arguments.test, arguments.images)
        print("where the last map of a class's training images is highest most often:")
        for name, spot in spots(model, place).items():
            print(f"- {name}: {spot}")
        print("\n## The bundled model, which never saw a patch\n")
        report(NBDT.load("cifar10"), arguments.data, arguments.test, arguments.images)


if __name__ == "__main__":
    main()
