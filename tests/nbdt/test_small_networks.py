"""Networks for small images: their shapes, and weights that others published."""

import itertools
from pathlib import Path

import pytest
import torch

from nbdt.decide.metrics import accuracy
from nbdt.hierarchies import from_classifier
from nbdt.images.dataset import iter_images
from nbdt.network.load import create_timm


@pytest.mark.data
def test_a_registered_network_takes_independent_weights(data_dir, monkeypatch):
    """Published: 93.39 % of the 10,000 test images; here 1,000, every tenth."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    __import__("cifar_resnet")
    archive = data_dir / "cifar10_test_lossless.tar.xz"
    sources = list(itertools.islice(iter_images(archive), 0, None, 10))
    names = sorted({source.label for source in sources})
    weights = data_dir / "weights" / "cifar10_resnet56-4bfd9763.th"
    model = from_classifier("timm:resnet56_cifar", weights=weights).eval()
    images = torch.stack([model.preprocess(source.open()) for source in sources])
    labels = torch.tensor([names.index(source.label) for source in sources])
    with torch.inference_mode():
        answers = torch.cat([model(part).argmax(dim=1) for part in images.split(250)])
    assert accuracy(answers, labels) >= 0.91


def test_a_feature_map_has_eight_by_eight_positions():
    network = create_timm("small_convnet", 5).eval()
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 256, 8, 8)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
