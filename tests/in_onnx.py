"""Small models in torch and in ONNX Runtime; each is made once a run, and tests must not change them."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, Hierarchy
from nbdt.runtime.convert import convert

pytest.importorskip("onnxruntime")
TREE = Hierarchy.from_paths(["a/b/c/x", "a/b/c/y", "a/b/z", "a/q", "d/e", "d/f", "d/g", "h"])
NETWORKS = ["small_convnet", "resnet18,size=64", "convnext_atto,size=64", "vit_tiny_patch16_224"]


@lru_cache
def made(architecture):
    """A model whose batch norms have statistics, so that folding them shows."""
    torch.manual_seed(0)
    model = NBDT.from_timm(architecture, TREE, rule="marginal")
    side = model.preprocess.size
    with torch.no_grad():
        model.head.linear.weight.mul_(20)
        model.train()(torch.randn(8, 3, side, side) + 0.3)
    return model.eval()


def photographs(side, count=3):
    noise = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((side, side)) for one in noise]


def batch(model, count=3):
    return torch.stack([model.preprocess(one) for one in photographs(model.preprocess.size, count)])


@lru_cache
def in_onnx(model, to="float32"):
    example = batch(model, 12)
    backbone = convert(model.backbone, model.architecture, example[:2], to, [*example])
    return NBDT(backbone, model.head, model.architecture, model.preprocess).eval()
