"""What answers promise, keep and cost; how well unknown things are found.

    python benchmarks/answers.py --data ../shared/data --cache answers

For `imagenet` on 650 ImageNet validation photographs and `cifar10` on CIFAR-10's test images: 200
random halves that calibrate each other, with the temperature as it is and fitted on the same half;
five stopping rules, with paired bootstraps; lists of classes in two orders. For `imagenet`: the score
of unknown things on four kinds of them, and on known classes that someone else photographed. Last,
what an answer costs beside ResNet-18.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from nbdt import NBDT
from nbdt.decide.answer import answers
from nbdt.decide.selective import right_nodes, risk_coverage, stopping_rules
from nbdt.decide.unknown import FALSE_ALARMS, familiarity, rarity
from nbdt.explain.batch.writer import parts_of
from nbdt.hierarchies.measure.answers import TARGETS, Measurement, answer_record, halves
from nbdt.hierarchies.measure.calibrate import fitted_temperature
from nbdt.hierarchies.measure.comparison import measure
from nbdt.hierarchies.measure.logits import class_logits
from nbdt.images.dataset import iter_images
from nbdt.network.load import create_timm

REPEATS = 100  # each is two halves
SAMPLES = 1000  # of a bootstrap
BATCH = 32
EVERY = 33  # of CIFAR-100's test images
# Classes of Caltech-101 by what ImageNet has. Left out, since it has kinds of them or something very
# similar: butterfly, car_side, chair, ferry, hedgehog, ketch, stop_sign, watch, wild_cat.
FAR = ("Faces", "brain", "garfield")
NEAR = ("emu", "inline_skate", "mandolin", "metronome", "octopus", "rhino", "sea_horse", "stapler")
KNOWN = (
    *("accordion", "ant", "beaver", "cougar_face", "crocodile", "dalmatian", "dragonfly"),
    *("grand_piano", "llama", "panda", "platypus", "schooner", "tick"),
)


# ---- answers ----------------------------------------------------------------------------------------


def coverage(model: NBDT, logits: Tensor, labels: Tensor) -> None:
    """Print coverage over random halves, with the model's temperature and with one from the half."""
    rules = model.head.rules
    measurement = Measurement(rules, logits, labels)
    found: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(REPEATS):
        for (calibration, there), (_, here) in itertools.permutations(halves(measurement, seed), 2):
            temperature = fitted_temperature(rules, logits[here], labels[here])
            own = Measurement(rules, logits / temperature, labels)
            for target in TARGETS:
                for kind, source, given in (
                    ("temperature of the model", measurement, calibration),
                    ("temperature of the half", own, own.calibration(~there)),
                ):
                    stops = source.masses.stop(given.threshold(target))[there]
                    kept = source.masses.information[there].gather(1, stops[:, None])
                    right = stops <= source.depth[there]
                    nodes = source.masses.nodes[there]
                    leaf = nodes.gather(1, stops[:, None])[:, 0] == nodes[:, -1]
                    row = (
                        float(right.double().mean()),
                        float(kept.mean()),
                        float(leaf.double().mean()),
                    )
                    found.setdefault(f"{target:.0%}, {kind}", []).append(row)
    for name, rows in sorted(found.items()):
        right, kept, leaf = zip(*rows, strict=True)
        print(
            f"  {name}: right {np.mean(right):.2%} ± {np.std(right):.2%}, information "
            f"{np.mean(kept):.1%}, classes {np.mean(leaf):.1%} ({len(rows)} halves)"
        )


def areas(model: NBDT, logits: Tensor, labels: Tensor) -> None:
    """Print the area of each stopping rule, and its difference to ours over bootstrap samples."""
    measurement = Measurement(model.head.rules, logits, labels)
    masses, images = measurement.masses, len(labels)
    right = right_nodes(measurement.depth, masses.nodes.shape[1])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, images, (SAMPLES, images), generator=generator)
    sampled, whole = {}, {}
    for rule, critical in stopping_rules(masses).items():
        areas = [
            risk_coverage(critical[rows], masses.information[rows], right[rows]).area
            for rows in drawn
        ]
        sampled[rule] = torch.stack(areas)
        whole[rule] = float(risk_coverage(critical, masses.information, right).area)
    for rule, area in whole.items():
        change = 100 * (sampled["information"] - sampled[rule])
        low, high = change.quantile(torch.tensor([0.025, 0.975], dtype=change.dtype)).tolist()
        difference = 100 * (whole["information"] - area)
        print(
            f"  {rule}: area {100 * area:.2f}, ours − this {difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        )


def record(model: NBDT, logits: Tensor, labels: Tensor) -> None:
    """Print what else `nbdt evaluate` measures."""
    result = measure(logits, labels, model.hierarchy, model.rule)
    facts = answer_record(result, model.reference, better_mistakes=True)
    for rule, values in facts["rules"].items():
        print(f"  {rule}: average precision {values['average_precision']:.4f}")
    print(f"  thresholds from {facts['calibration']['source']}:")
    for row in facts["targets"]:
        print(f"    {json.dumps(row)}")
    print(f"  lists: {json.dumps(facts['lists'])}")


# ---- unknown things ---------------------------------------------------------------------------------


def kept_logits(
    model: NBDT, cache: Path, name: str, images: Callable[[], Iterator[Image.Image]]
) -> Tensor:
    """Logits of images, from the cache if they are there."""
    file = cache / f"{name}.npy"
    if not file.exists():
        with torch.inference_mode():
            rows = [
                model.logits(torch.stack([model.preprocess(image) for image in part]))
                for part in parts_of(images(), BATCH)
            ]
        np.save(file, torch.cat(rows).numpy())
    return torch.from_numpy(np.load(file))


def photographs(file: Path, wanted: tuple[str, ...] | None) -> Iterator[Image.Image]:
    """Every image of some classes, or every `EVERY`th of all."""
    for index, source in enumerate(iter_images(file)):
        if source.label in wanted if wanted else index % EVERY == 0:
            yield source.open()


def noise() -> Iterator[Image.Image]:
    """Uniform noise of three grains."""
    generator = np.random.default_rng(0)
    for index in range(100):
        side = 256 // (1, 8, 32)[index % 3]
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        yield Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC)


def unknown(model: NBDT, known: Tensor, data: Path, cache: Path) -> None:
    """Print AUROC and the share flagged at 5 % false alarms, thresholds from the known images."""
    caltech = data / "caltech33_s256_q90.tar"
    kinds: dict[str, Callable[[], Iterator[Image.Image]]] = {
        "CIFAR-100 upscaled": lambda: photographs(data / "cifar100_test_lossless.tar.xz", None),
        "noise": noise,
        f"Caltech, far ({', '.join(FAR)})": lambda: photographs(caltech, FAR),
        f"Caltech, near ({', '.join(NEAR)})": lambda: photographs(caltech, NEAR),
        f"control: Caltech, known ({', '.join(KNOWN)})": lambda: photographs(caltech, KNOWN),
    }
    scores = familiarity(known)
    for place, (name, images) in enumerate(kinds.items()):
        found = familiarity(kept_logits(model, cache, f"unknown-{place}", images))
        flagged = rarity(found, scores.sort().values) <= FALSE_ALARMS
        share = float(flagged.double().mean())
        is_known = torch.arange(len(scores) + len(found)) < len(scores)
        area = roc_auc_score(is_known.numpy(), torch.cat([scores, found]).numpy())
        print(f"  {name}: {len(found)} images, AUROC {area:.3f}, flagged {share:.1%}")


# ---- cost -------------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], times: int) -> float:
    """Median processor time of a call."""
    spans = []
    for _ in range(times):
        start = time.process_time()
        work()
        spans.append(time.process_time() - start)
    return statistics.median(spans)


def cost(model: NBDT) -> None:
    """Print what an answer, the flag and a restriction cost beside ResNet-18 on 32 images."""
    network = create_timm("resnet18", 1000).eval()
    images = torch.randn(BATCH, 3, 224, 224)
    features = torch.randn(BATCH, model.head.in_features)
    few = model.restrict([model.hierarchy.names[node] for node in model.hierarchy.children[0]][:3])
    with torch.inference_mode():
        logits = model.head.logits(features)
        calibration, other = model.calibration, few.calibration
        whole = seconds(lambda: network(images), 15)
        rules = model.head.rules
        spans = {
            "logits of 1,000 classes": lambda: model.head.logits(features),
            "answers and flag": lambda: answers(rules, logits, calibration),
            "paths alone, as before": lambda: rules.paths(logits),
            "answers and flag of a restricted model": lambda: answers(
                few.head.rules, few.head.logits(features), other
            ),
        }
        print(f"  ResNet-18, {BATCH} images: {1000 * whole:.0f} ms")
        for name, work in spans.items():
            span = seconds(work, 60)
            print(f"  {name}: {1000 * span:.1f} ms, {span / whole:.2%}")


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="a folder for logits")
    parser.add_argument("--cost", action="store_true", help="measure only the cost")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    if not args.cost:
        sets = {"imagenet": "imagenet_val650_227.tar", "cifar10": "cifar10_test_lossless.tar.xz"}
        for name, file in sets.items():
            model = NBDT.load(name)
            split = "val" if name == "imagenet" else "test"
            found = class_logits(model, args.data / file, split=split)
            print(f"{name}, {len(found.labels):,} images")
            for part in (coverage, areas, record):
                part(model, found.logits, found.labels)
            if name == "imagenet":
                unknown(model, found.logits, args.data, args.cache)
    cost(NBDT.load("imagenet"))


if __name__ == "__main__":
    main()
