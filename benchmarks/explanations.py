"""Paths and node maps against the bare forward pass, Captum and grad-cam, in one run.

    python benchmarks/explanations.py             # about ten minutes on one core
    python benchmarks/explanations.py resnet50 --rounds 3

One thread, float32, 224 pixels, batch 8, random weights, 1,024 classes under a binary tree: every
path has ten decisions, so every method makes ten maps an image. Interleaved; each figure is made of
the minima over all rounds, and every forward pass counts for the method that needs it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest.mock import patch

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()

# ruff: noqa: E402
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from torch import Tensor, nn

from nbdt import NBDT, Hierarchy
from nbdt.explain import attribution, explain
from nbdt.explain.maps.log_odds import log_odds
from nbdt.explain.maps.node_maps import chosen_nodes

CLASSES, DEPTH, BATCH, SIDE = 1024, 10, 8, 224
LAYERS = {"resnet50": "layer4", "resnet101": "layer4", "convnext_tiny": "stages"}


def binary_tree() -> Hierarchy:
    """A balanced binary tree, ten decisions deep."""
    paths = []
    for index in range(CLASSES):
        bits = f"{index:0{DEPTH}b}"
        paths.append("/".join(["root", *(f"n{bits[:end]}" for end in range(1, DEPTH + 1))]))
    return Hierarchy.from_paths(paths)


class LogOdds(nn.Module):
    """Images to the log-odds of all nodes: what the other libraries differentiate."""

    def __init__(self, model: NBDT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model.logits(images)
        return log_odds(logits, self.model.head.rules.tree, self.model.rule)


class NodeTarget:
    """The node whose output grad-cam differentiates."""

    def __init__(self, node: int) -> None:
        self.node = node

    def __call__(self, output: Tensor) -> Tensor:
        return output[self.node]


def jobs(name: str, rule: str) -> dict[str, Callable[[], object]]:
    """What is timed for one network."""
    torch.manual_seed(0)
    model = NBDT.from_timm(name, binary_tree(), rule=rule).eval()
    images = torch.randn(BATCH, 3, SIDE, SIDE)

    def forward() -> None:
        with torch.inference_mode():
            model.head.linear(model.features(images))

    layer = attribution.map_layer(model, images)

    def after() -> None:
        with patch.object(attribution, "map_layer", lambda *_: layer):
            explain(model, images, level="fast")

    found: dict[str, Callable[[], object]] = {"forward": forward, "after": after}
    found["explain"] = lambda: explain(model, images, level="fast")
    if name in LAYERS:
        whole, module = LogOdds(model), model.backbone.get_submodule(LAYERS[name])
        nodes = [chosen_nodes(model, item.path) for item in explain(model, images, level="fast")]
        found["captum"] = lambda: _captum(whole, module, images, nodes)
        found["grad-cam"] = lambda: _grad_cam(whole, module, images, nodes)
    return found


def _captum(whole: nn.Module, module: nn.Module, images: Tensor, nodes: list[list[int]]) -> None:
    method = LayerGradCam(whole, module)
    for step in range(DEPTH):
        method.attribute(images, target=[row[step] for row in nodes])


def _grad_cam(whole: nn.Module, module: nn.Module, images: Tensor, nodes: list[list[int]]) -> None:
    with GradCAM(whole, [module]) as method:
        for step in range(DEPTH):
            method(input_tensor=images, targets=[NodeTarget(row[step]) for row in nodes])


def minima(timed: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of the fastest run of each, taking turns; the slow ones run once in three rounds."""
    best = dict.fromkeys(timed, float("inf"))
    for turn in range(rounds):
        for name, job in timed.items():
            if name in {"captum", "grad-cam"} and turn % 3:
                continue
            start = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["resnet50", "resnet101", "convnext_tiny", "vit_small_patch16_224"]
    parser.add_argument("networks", nargs="*", default=names)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rule", default="marginal")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {options.rounds} rounds, rule {options.rule}\n")
    print("| network | forward | after the feature map | explain | Captum | grad-cam |")
    print("|---|---|---|---|---|---|")
    for name in options.networks:
        best = minima(jobs(name, options.rule), options.rounds)
        others = [
            f"{best[key] / best['explain']:.1f} × explain" if key in best else "-"
            for key in ("captum", "grad-cam")
        ]
        shares = [
            f"{best['after'] / best['forward']:.1%}",
            f"{best['explain'] / best['forward']:.2f} ×",
        ]
        print(
            f"| {name} | {best['forward']:.2f} s | " + " | ".join([*shares, *others]) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
