"""A small network and ten pictures, two of them broken."""

import pytest
import torch

from nbdt import NBDT
from tests import oracle

from .batches import draw, tiny


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("resnet10t", oracle.family(), rule="marginal").eval()


@pytest.fixture(scope="module")
def small(model):
    return tiny(model)


@pytest.fixture
def photos(tmp_path):
    """Ten pictures in two folders, the third and the last broken."""
    root = tmp_path / "photos"
    for index in range(10):
        folder = root / ("a" if index < 6 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder / f"{index}.png", index)
    (root / "a" / "2.png").write_bytes(b"no image")
    (root / "b" / "9.png").write_bytes(b"")
    return root
