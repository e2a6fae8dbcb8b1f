"""A small cascade whose two models differ, and photographs of which each answers some."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from nbdt import NBDT
from nbdt.hierarchies.measure.cascade import in_cascade
from nbdt.model.cascade import Gate

COUNT = 12


@lru_cache
def large():
    return NBDT.load("cifar10")


@lru_cache
def small():
    """The same network, which sees 24 pixels in other units; its classes are in another order."""
    model = NBDT.load("cifar10")
    seen = replace(model.preprocess, size=24, mean=(0.5,) * 3, std=(0.25,) * 3)
    model.preprocess = seen
    return model


def cascade(threshold=0.91, temperature=1.0, depth=None):
    """A new cascade; `photographs` are divided between its models at these values."""
    made = in_cascade(small(), large())
    made.cascade.gate = Gate(threshold, temperature, depth)
    return made


def photographs(count=COUNT, side=32):
    noise = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in noise]


def batch(count=COUNT):
    return torch.stack([large().preprocess(photo) for photo in photographs(count)])
