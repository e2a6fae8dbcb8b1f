"""A model of four colours whose last layer is fitted on a memory, photographs of colours, visitors."""

import numpy as np
import torch
from PIL import Image

from nbdt import NBDT, Hierarchy
from nbdt.demo.corrections.own import own_model
from nbdt.model.remember import make_memory

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})
COLOURS = {
    "red": (220, 30, 30), "orange": (230, 140, 20), "blue": (30, 40, 220), "green": (20, 180, 50),
}  # fmt: skip
PURPLE = (150, 30, 150)
ANN, BOB = "a" * 64, "b" * 64  # visitors


def painted(colour, number):
    draw = np.random.default_rng([number, *colour])
    pixels = np.array(colour) + draw.normal(0, 25, (64, 64, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def painted_file(folder, colour, number):
    """The file of a photograph, for a page."""
    painted(colour, number).save(folder / f"{number}.png")
    return folder / f"{number}.png"


def adapt(visitor, store):
    """Answer a visitor with what the store has of them."""
    visitor.adapt(own_model(visitor.model, store, visitor.id))


def saved_model(place):
    """The folder of the model, with eight photographs of each colour."""
    torch.manual_seed(0)
    model = NBDT.from_timm("resnet10t", TREE, rule="marginal").eval()
    model.use_memory(place / "memory")
    memory = make_memory(model, model.memory_place)
    for name, colour in COLOURS.items():
        memory.add([painted(colour, n) for n in range(8)], name, by="ann", pictures=True)
    model.refit()
    model.save(place / "model")
    return place / "model"
