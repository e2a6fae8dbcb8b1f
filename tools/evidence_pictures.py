"""Draws the pictures of docs/evidence.md from the photographs that gradio's wheel carries.

    python tools/evidence_pictures.py WEIGHTS    # imagenet_mobilenetv2_100_tf2ptq_fp16.pth

A small index is made of pieces of four photographs; the query is another photograph of a cheetah.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from nbdt import NBDT, Hierarchy, NBDTHead
from nbdt.explain import EvidenceIndex, explain
from nbdt.explain.evidence.build import forward
from nbdt.explain.evidence.pictures import linked, sheet
from nbdt.hierarchies import from_classifier
from nbdt.images.image import open_image
from nbdt.images.sources import ImageSource

ARCHITECTURE = "timm:mobilenetv2_100,pad_type=same,mean=0.5,std=0.5"
HERE = Path(__file__).parents[1] / "docs" / "img"
PHOTOS = {
    "cheetah1.jpg": "cheetah",
    "lion.jpg": "lion",
    "bus.png": "trolleybus",
    "tower.jpg": "beacon",
}
PIECES = [(0, 0, 1, 1), (0, 0, 0.8, 0.8), (0.2, 0, 1, 0.8), (0, 0.2, 0.8, 1), (0.1, 0.1, 0.9, 0.9)]


def photos() -> Path:
    """Where gradio keeps its example photographs."""
    found = find_spec("gradio")
    if found is None or found.origin is None:
        raise SystemExit("gradio is not installed: pip install 'nbdt-vision[demo]'")
    return Path(found.origin).parent / "media_assets" / "images"


def four_classes(weights: str) -> NBDT:
    """The pretrained network with the classifier's rows of four classes, under a tree of them."""
    whole = from_classifier(ARCHITECTURE, weights=weights)
    tree = Hierarchy.from_nested(
        {"all": {"animal": ["cheetah", "lion"], "thing": ["trolleybus", "beacon"]}},
        classes=list(PHOTOS.values()),
    )
    rows = [whole.hierarchy.classes.index(name) for name in tree.classes]
    linear = nn.Linear(whole.head.linear.in_features, len(rows))
    linear.load_state_dict({k: v[rows] for k, v in whole.head.linear.state_dict().items()})
    head = NBDTHead.from_linear(linear, tree, rule="marginal")
    return NBDT(whole.backbone, head, whole.architecture, whole.preprocess).eval()


def pieces() -> Iterator[ImageSource]:
    """Overlapping parts of the photographs, each of a class of the model."""
    for file, label in PHOTOS.items():
        image = open_image(photos() / file)
        width, height = image.size
        for number, (left, top, right, bottom) in enumerate(PIECES):
            corners = (left * width, top * height, right * width, bottom * height)
            piece = image.crop(tuple(map(round, corners)))
            yield ImageSource(f"{label}/{number}.png", label, piece.copy)


def main(weights: str) -> None:
    """Write docs/img/evidence.png and docs/img/evidence-regions.png."""
    model = four_classes(weights)
    index = EvidenceIndex.build(model, list(pieces()), thumbnails=True)
    query = open_image(photos() / "cheetah.jpg")
    with torch.inference_mode():
        feature_map, pooled = forward(model, [query])
        path = model.head.paths(pooled)[0]
    near = index.for_model(model)
    found = near.for_path(pooled[0], path, k=4)
    photo = model.preprocess.frame(query, 320)
    compared = [found[-1].chosen[0], found[-1].rejected[0]]
    node_map = explain(model, query)[0].maps[-1]
    views = near.look_closer(feature_map[0], compared, node_map, strongest_positions=4)
    for name, image in (
        ("evidence.png", sheet(photo, path, found)),
        ("evidence-regions.png", linked(photo, compared, views)),
    ):
        colours = image.quantize(128, dither=Image.Dither.NONE)
        colours.save(HERE / name, optimize=True)
        print(name, image.size, (HERE / name).stat().st_size)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1])
