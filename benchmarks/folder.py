"""`nbdt explain FOLDER` against eager torch's bare forward pass of the same network: processor time.

    OMP_NUM_THREADS=1 python benchmarks/folder.py PHOTOGRAPHS            # imagenet
    OMP_NUM_THREADS=1 python benchmarks/folder.py PHOTOGRAPHS --model SMALL --original imagenet
    OMP_NUM_THREADS=1 python benchmarks/folder.py PHOTOGRAPHS --network resnet18

`SMALL` is what `nbdt compress` wrote. `--network` takes random weights, the network as it is saved, and the
same in ONNX. The command reads, decides, draws maps and writes rows; torch gets tensors that are
ready, in the batch that is best for it, without and with freed memory kept (`nbdt.allocator`). All run in
processes of their own, in turn; the fastest of `--rounds` counts, for torch of medians. Processor time is that of all threads,
user and system: neighbours hardly change it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

BATCHES = (1, 2, 4, 8, 16, 32)
BARE = """
import json, statistics, sys, time
model, keep, batches = json.loads(sys.argv[1])
if keep:
    from nbdt.allocator import keep_memory
    keep_memory()
import torch
from nbdt.hierarchies.library import open_model
model = open_model(model, runtime="torch")
backbone, side = model.backbone, model.preprocess.size
found = {}
with torch.inference_mode():
    for batch in batches:
        images, times = torch.randn(batch, 3, side, side), []
        for _ in range(8):
            start = time.process_time()
            backbone.forward_head(backbone.forward_features(images), pre_logits=True)
            times.append((time.process_time() - start) / batch)
        found[batch] = statistics.median(times[1:])
print(json.dumps(found))
"""
MAKE = """
import sys
import torch
from nbdt import NBDT
from nbdt.runtime.convert import convert
name, folder = sys.argv[1:]
torch.manual_seed(0)
tree = NBDT.load("imagenet", runtime="torch").hierarchy
model = NBDT.from_timm(name, tree, rule="marginal").eval()
model.save(f"{folder}/torch")
example = model.preprocess.example(model.head.linear.weight)
backbone = convert(model.backbone, name, example, "float32")
NBDT(backbone, model.head, name, model.preprocess).eval().save(f"{folder}/onnx")
"""


def bare(model: str, *, keep: bool) -> dict[str, float]:
    """Seconds an image, by batch size."""
    given = json.dumps([model, keep, BATCHES])
    command = [sys.executable, "-c", BARE, given]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def explained(model: str, photographs: list[str], *options: str) -> float:
    """Seconds of the whole command."""
    with tempfile.TemporaryDirectory() as aside:
        listed = Path(aside, "photographs.txt")
        listed.write_text("\n".join(photographs))
        command = [sys.executable, "-m", "nbdt", "explain", listed, "--model", model, *options]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--out", Path(aside, "out")], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(original: str, runs: dict[str, tuple[str, ...]], photographs: list[str], rounds: int):
    """Print one table."""
    plain, kept, whole, start = [], [], {}, {}
    for _ in range(rounds):
        plain.append(bare(original, keep=False))
        kept.append(bare(original, keep=True))
        for name, (model, *options) in runs.items():
            whole.setdefault(name, []).append(explained(model, photographs, *options))
            start.setdefault(name, []).append(explained(model, photographs[:1], *options))
    best = {}
    for name, found in (("torch", plain), ("torch, memory kept", kept)):
        times = {batch: 1000 * min(one[batch] for one in found) for batch in found[0]}
        best[name] = min(times.values())
        shown = ", ".join(f"{batch}: {ms:.1f}" for batch, ms in times.items())
        print(f"{name}, ms an image by batch: {shown}")
    print(
        "| command | ms an image | its start, s | " + " | ".join(f"times {n}" for n in best) + " |"
    )
    print("|---|---|---|---|---|")
    for name in runs:
        first, each = min(start[name]), 1000 * min(whole[name]) / len(photographs)
        rest = each - 1000 * first / len(photographs)
        ratios = " | ".join(f"{ms / rest:.2f} ({ms / each:.2f} with it)" for ms in best.values())
        print(f"| {name} | {rest:.1f} ({each:.1f} with its start) | {first:.1f} | {ratios} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder; 1,000 of them are taken")
    parser.add_argument("--model", default="imagenet")
    parser.add_argument("--original", help="what torch runs, if not the model")
    parser.add_argument("--network", help="an architecture of timm, instead of a model")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    photographs = sorted(str(file) for file in options.photographs.rglob("*") if file.is_file())
    photographs = photographs[:1000]
    print(f"{len(photographs)} photographs, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
    if not options.network:
        original = options.original or options.model
        compare(original, {options.model: (options.model,)}, photographs, options.rounds)
        return
    with tempfile.TemporaryDirectory() as aside:
        subprocess.run([sys.executable, "-c", MAKE, options.network, aside], check=True)
        runs = {
            f"{options.network} in torch": (f"{aside}/torch",),
            f"{options.network} in torch, --precision float32": (
                f"{aside}/torch", "--precision", "float32",
            ),
            f"{options.network} in ONNX": (f"{aside}/onnx",),
        }  # fmt: skip
        compare(f"{aside}/torch", runs, photographs, options.rounds)


if __name__ == "__main__":
    main()
