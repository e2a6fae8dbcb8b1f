"""A backbone in ONNX Runtime, as a function of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from threading import Lock
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import NBDTError

INPUT, OUTPUTS = "images", ("feature_map", "features")
AT_ONCE = 8 * 260**2  # pixels of images in one run: more take more memory, and no less time
INSTALL = "pip install 'nbdt-vision[runtime]'"


def is_installed() -> bool:
    """Return whether ONNX Runtime can be imported."""
    return find_spec("onnxruntime") is not None


def name_and_version() -> str:
    """Return "onnxruntime" and its version, which is installed."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


class Session:
    """Images to the feature map and the pooled features of a backbone.

    It starts when it is first used, with as many threads as torch has at that moment. They do not
    spin while they wait, so that several processes can share the cores.

    Args:
        data: an ONNX file with the input "images", (batch, channels, height, width) float32, and the
            outputs "feature_map" and "features".
        weights: tensors that the file names and does not contain.
    """

    def __init__(self, data: bytes, weights: Mapping[str, Tensor] | None = None) -> None:
        self.data = data
        self._weights = weights or {}
        self._lock = Lock()
        self._started: Any = None

    def __deepcopy__(self, _memo: object) -> Self:
        return self  # it never changes

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        return type(self), (self.data,)  # another process starts its own

    @property
    def _session(self) -> Any:
        with self._lock:  # threads share one
            if self._started is None:
                self._started = self._start()
        return self._started

    def _start(self) -> Any:
        try:
            import onnxruntime

            from .reader import session_options
        except ModuleNotFoundError:
            raise NBDTError(
                f"This model runs in ONNX Runtime, which is not installed: {INSTALL}"
            ) from None
        options = session_options(torch.get_num_threads())
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        values = [make(value.detach().numpy()) for value in self._weights.values()]
        options.add_external_initializers([*self._weights], values)
        try:
            found = onnxruntime.InferenceSession(
                self.data, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise NBDTError(f"ONNX Runtime cannot read the backbone: {reason}") from error
        self._weights = {}
        given = [value.name for value in found.get_inputs()], [o.name for o in found.get_outputs()]
        if given != ([INPUT], [*OUTPUTS]) or len(found.get_inputs()[0].shape) != 4:
            raise NBDTError(
                f"Expected a backbone with the input {INPUT!r}, of four axes, and the outputs "
                f"{', '.join(OUTPUTS)}; got {given[0]} and {given[1]}."
            )
        return found

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """What it takes, (channels, height, width)."""
        return tuple(self._session.get_inputs()[0].shape[1:])

    @property
    def about(self) -> dict[str, str]:
        """What the file says of itself: its "opset" and its "weights"."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature map and pooled features, of the images' device and precision.

        Raises NBDTError: images of another shape, or a file whose operations fail.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise NBDTError(
                f"This backbone takes images of shape (batch, {', '.join(map(str, self.shape))}), got "
                f"{tuple(images.shape)}: use model.preprocess."
            )
        values = images.detach().float().cpu().contiguous()
        few = max(1, AT_ONCE // (values.shape[2] * values.shape[3]))
        try:
            parts = [
                self._session.run(OUTPUTS, {INPUT: part.numpy()}) for part in values.split(few)
            ]
        except Exception as error:
            raise NBDTError(f"ONNX Runtime cannot run the backbone: {error}") from error
        feature_map, features = (
            torch.cat([*map(torch.from_numpy, found)]).to(images)
            for found in zip(*parts, strict=True)
        )
        return feature_map, features
