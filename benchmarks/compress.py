"""Train large, then compress: accuracy against size and time, in ONNX Runtime.

    OMP_NUM_THREADS=1 python benchmarks/compress.py --data ../shared/data --small-weights lite0.pth --picture P.svg

CIFAR-10's ResNet-20 and -56 (the published weights), calibrated on 32 training images and tested on all test
images; Lite0 and Lite2 of ImageNet, calibrated on 32 of the 1,000 photographs and tested on 650 validation
photographs; and heads that are fitted on Caltech-101's `train` with these backbones, and tested on its `test`.
Sizes are those of saved weights, times CPU time of an image in batches of 8, one thread, in turn. Unchanged
are whole paths, against the same network in float32.
"""

import argparse
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path

import torch
from lite0 import lite0

from nbdt import NBDT, Hierarchy, NBDTHead
from nbdt.decide.stopping import weakest_decision
from nbdt.hierarchies import load
from nbdt.hierarchies.measure.comparison import measure
from nbdt.hierarchies.measure.compress import STORED, compress
from nbdt.hierarchies.measure.compressed import SURE
from nbdt.hierarchies.measure.cost import file_bytes
from nbdt.hierarchies.measure.logits import class_logits
from nbdt.images.dataset import DataSet
from nbdt.images.labelled import LabelledImages
from nbdt.model.features import embed
from nbdt.model.remember import make_memory
from nbdt.tree.labels import label_nodes

SEEN, ROUNDS = 128, 15  # `compress` calibrates with 32 of 128
AXES = {2: "size, MB", 3: "CPU time, ms an image"}  # columns of a row
SMALL = "ResNet-20", "Lite0"


def cifar(data):
    """Float32 and int8 of both networks, by name."""
    import_module("cifar_resnet")  # registers the networks with timm
    images = LabelledImages(data / "cifar10_train_lossless.tar.xz", load("cifar10-wordnet"))
    sources, found = [*images][:: len(images) // SEEN], {}  # in the order of the classes
    for depth, file in {20: "resnet20-12fca82f", 56: "resnet56-4bfd9763"}.items():
        model = NBDT.from_timm(
            f"resnet{depth}_cifar",
            load("cifar10-wordnet"),
            rule="marginal",
            weights=data / "weights" / f"cifar10_{file}.th",
        ).eval()
        found |= both(f"ResNet-{depth}", model, sources)
    return found


def imagenet(data, small_weights):
    """Float32 and int8 of Lite0 and of Lite2."""
    small = lite0(small_weights)
    large = NBDT.load("imagenet", runtime="torch")
    sources = [*LabelledImages(data / "imagenet1000_s256_q90.tar", large.hierarchy)]
    return both("Lite0", small, sources) | both("Lite2", large, sources)


def both(name, model, sources):
    return {(name, to): compress(model, sources, to)[0] for to in ("float32", "int8")}


def caltech(model, archive):
    """A head for other classes on the backbone of a model, fitted as `nbdt train photos` does."""
    hierarchy = Hierarchy.from_paths(sorted(DataSet(archive).labels("train")))
    head = NBDTHead(model.head.in_features, hierarchy, rule="marginal")
    fitted = NBDT(model.backbone, head, model.architecture, model.preprocess).eval()
    images = LabelledImages(archive, hierarchy, "train")
    found = embed(fitted, images)
    nodes = label_nodes(hierarchy)[images.labels(found.sources)].tolist()
    with tempfile.TemporaryDirectory() as folder:
        memory = make_memory(fitted, Path(folder, "memory"))
        memory.insert(found, [hierarchy.ids[node] for node in nodes])
        fitted.take_head(memory.fit(head.rules, None))
    return NBDT(model.backbone, head, model.architecture, model.preprocess).eval()


def measured(models, data, split=None):
    """A row for each model: size, time, accuracy, and the paths that the compressed ones keep."""
    times, rows, results = in_turn(models), [], {}
    for (name, to), model in models.items():
        found = class_logits(model, data, split=split)
        result = measure(found.logits, found.labels, model.hierarchy, model.rule)
        results[name, to] = result
        before = results[name, "float32"]
        same = before.soft == result.soft
        sure = weakest_decision(before.rules, before.logits) >= SURE
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder, "m"), dtype=STORED[to])
            size = file_bytes(Path(folder, "m")) / 1e6
        answered = 100 * (result.soft == found.labels).double()
        right, error = float(answered.mean()), float(answered.std() / len(answered) ** 0.5)
        kept = f"{same.double().mean():.2%} of {len(same):,}; {int(same[sure].sum()):,} of {int(sure.sum()):,}"
        rows.append((name, to, size, times[name, to], right, error))
        print(
            f"{name:10} {to:8} {size:7.2f} MB {times[name, to]:7.2f} ms {right:6.2f} %  {kept}",
            flush=True,
        )
    return rows


def in_turn(models):
    """Milliseconds of CPU time an image, by model."""
    torch.set_num_threads(1)
    seconds = {key: [] for key in models}
    for _ in range(ROUNDS):
        for key, model in models.items():
            images = model.preprocess.example(model.head.linear.weight)[:1].repeat(8, 1, 1, 1)
            start = time.process_time()
            with torch.inference_mode():
                model.features(images)
            seconds[key].append(time.process_time() - start)
    return {key: 1000 / 8 * statistics.median(found[1:]) for key, found in seconds.items()}


def draw(tables, picture):
    """A column of panels for each data set: accuracy against size and time, with standard errors."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, len(tables), figsize=(10, 5.6), layout="constrained")
    for column, (title, rows) in zip(panels.T, tables.items(), strict=True):
        for panel, field in zip(column, AXES, strict=True):
            for row in rows:
                name, to, right, error = *row[:2], *row[4:]
                colour = "tab:blue" if name in SMALL else "tab:orange"
                look = {"color": colour, "fmt": "o", "label": f"{name} {to}"}
                fill = "white" if to == "float32" else colour
                panel.errorbar(row[field], right, error, markerfacecolor=fill, **look)
            panel.set(xlabel=AXES[field], ylabel="right, %")
            panel.set(xlim=(0, 1.1 * max(row[field] for row in rows)))
        column[1].legend(ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.25))
        column[0].set_title(title)
    figure.savefig(picture, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--small-weights", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    data, archive = options.data, options.data / "caltech33_s256_q90.tar"
    tables = {"CIFAR-10": measured(cifar(data), data / "cifar10_test_lossless.tar.xz")}
    photographs = imagenet(data, options.small_weights)
    tables["ImageNet"] = measured(photographs, data / "imagenet_val650_227.tar")
    heads = {key: caltech(model, archive) for key, model in photographs.items()}
    tables["Caltech-101, 33 classes"] = measured(heads, archive, "test")
    if options.picture:
        draw(tables, options.picture)


if __name__ == "__main__":
    main()
