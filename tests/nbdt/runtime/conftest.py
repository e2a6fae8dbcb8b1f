"""Models in torch and in ONNX Runtime."""

import pytest

from tests.in_onnx import NETWORKS, in_onnx, made


@pytest.fixture(scope="session", params=NETWORKS)
def pair(request):
    """A model in torch, and in ONNX Runtime."""
    model = made(request.param)
    return model, in_onnx(model)


@pytest.fixture(scope="session")
def small():
    """The smallest of them, in torch and in ONNX Runtime."""
    model = made("small_convnet")
    return model, in_onnx(model)
