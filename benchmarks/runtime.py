"""ONNX Runtime against torch: CPU time, decisions and maps of the same photographs.

    OMP_NUM_THREADS=1 python benchmarks/runtime.py --data D [--data D2] [--small FOLDER]

`--small` is what `nbdt compress` wrote; without it the default model's own runtime is measured. Times are of
features and feature map, one thread, in turn, as medians of ratios to torch's plain forward pass.
"""

import argparse
import os
import statistics
import tempfile
import time

import numpy as np
import torch

from nbdt import NBDT
from nbdt.decide.stopping import weakest_decision
from nbdt.explain import explain
from nbdt.hierarchies.measure.comparison import measure
from nbdt.hierarchies.measure.logits import class_logits
from nbdt.images.labelled import LabelledImages

ROUNDS, MAPPED = 15, 100


def eager(model):
    """Return the plain forward pass; `model.feature_map` lays images out as torch is fastest."""
    return lambda images: model.pool(model.backbone.forward_features(images))


def timed(features, images):
    start = time.process_time()
    features(images)
    return time.process_time() - start


def speed(plain, fast):
    torch.set_num_threads(1)
    for count in (1, 8):
        images = plain.preprocess.example(plain.head.linear.weight)[:1].repeat(count, 1, 1, 1)
        with torch.inference_mode():
            pairs = [
                (timed(eager(plain), images), timed(fast.features, images))
                for _ in range(ROUNDS + 1)
            ][1:]
        ratio = statistics.median(old / new for old, new in pairs)
        old, new = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"batch {count}: {old:.1f} ms in torch, {new:.1f} ms, {ratio:.2f} times as fast")


def decisions(plain, fast, data):
    both = []
    for model in (plain, fast):
        # Both runtimes of one model have one fingerprint: neither may read what the other kept.
        with tempfile.TemporaryDirectory() as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            both.append([class_logits(model, one) for one in data])
    labels = torch.cat([part.labels for part in both[0]])
    before, after = (
        measure(torch.cat([part.logits for part in parts]), labels, plain.hierarchy, plain.rule)
        for parts in both
    )
    for name, result in {"torch": before, "fast": after}.items():
        flat = (result.logits.argmax(1) == labels).double().mean()
        print(f"{name}: flat {flat:.2%}, hard {result.accuracy['hard']:.2%}")
    for kind in ("soft", "hard"):
        old, new = getattr(before, kind), getattr(after, kind)
        sure = weakest_decision(before.rules, before.logits) >= 0.6
        print(
            f"{kind} paths unchanged: {(old == new).double().mean():.2%} of {len(labels):,}; "
            f"{(old == new)[sure].double().mean():.2%} of {int(sure.sum()):,} whose weakest decision "
            "is 0.6 or more"
        )


def maps(plain, fast, data):
    sources = [*LabelledImages(data[-1], plain.hierarchy)]
    sources = sources[:: max(1, len(sources) // MAPPED)][:MAPPED]
    images = torch.stack([plain.preprocess(source.open()) for source in sources])
    found = []
    for part in images.split(8):
        old = explain(plain, part, level="fast", evidence=False)
        same = [one.path.class_index for one in old]
        new = explain(fast, part, level="fast", evidence=False, classes=same)
        found += [
            np.corrcoef(a.ravel(), b.ravel())[0, 1]
            for one, other in zip(old, new, strict=True)
            for a, b in zip(one.maps, other.maps, strict=True)
        ]
    low, middle = np.quantile(found, [0.05, 0.5])
    print(
        f"maps of {len(found):,} decisions: correlation {np.mean(found):.4f} in the mean, "
        f"{middle:.4f} median, {low:.4f} at the 5th percentile"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--model", default="imagenet")
    parser.add_argument("--small")
    options = parser.parse_args()
    plain = NBDT.load(options.model, runtime="torch")
    fast = NBDT.load(options.small or options.model)
    speed(plain, fast)
    maps(plain, fast, options.data)
    decisions(plain, fast, options.data)


if __name__ == "__main__":
    main()
