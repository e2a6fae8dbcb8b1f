"""Convert a torch backbone to ONNX: in float32, with weights stored as float16, or in int8.

int8 is static: one scale for each output channel of a weight, signed, and one for each activation,
unsigned, whose range is that of a few photographs. Only the backbone is quantised. The
pool, the head and the tree stay in float32: quantising them leaves the classes almost as they are, and
destroys decisions and maps.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..errors import NBDTError, check_known
from ..network.given import GivenNetwork
from ..network.running import evaluating
from .backbone import NO_GRADIENTS, OnnxBackbone, head_names
from .session import INPUT, OUTPUTS, Session

if TYPE_CHECKING:
    from onnx import ModelProto

KINDS = FLOAT32, INT8, FLOAT16_FILE = "float32", "int8", "float16-file"
LEAST = 8  # photographs to calibrate with; sixteen are as good as three hundred
LIMIT = 2**31  # bytes of one protobuf message
NEAR = 1e-3  # of the feature map's range: how far ONNX Runtime may be from torch in float32


class _Graph(nn.Module):
    """Images to the feature map and pooled features."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        backbone = cast(Any, self.backbone)
        feature_map = backbone.forward_features(images)
        return feature_map, backbone.forward_head(feature_map, pre_logits=True)


def to_onnx(
    graph: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    about: Mapping[str, str],
    opset: int | None = None,
) -> ModelProto:
    """Return a module as ONNX for any batch size, with batch norms folded.

    Args:
        graph: takes the inputs, each of two images, and returns a tuple.
        inputs: examples by name.
        outputs: names of what it returns.
        about: what goes into the metadata of the file, beside its "opset".
        opset: the version of ONNX's operations; by default the exporter's own.

    Raises:
        NBDTError: a library is missing, or the weights are too large for one file.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ModuleNotFoundError as error:
        raise NBDTError(
            f"Conversion to ONNX needs {error.name}; install it with: pip install "
            "'nbdt-vision[export]'. nbdt export --format torch needs nothing."
        ) from None
    size = sum(value.nbytes for value in graph.state_dict().values())
    if size >= LIMIT:
        raise NBDTError(
            f"The weights have {size:,} bytes; one ONNX file holds less than {LIMIT:,}. "
            "Export to the format 'torch' instead."
        )
    program = torch.onnx.export(
        graph,
        tuple(inputs.values()),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},) * len(inputs),
        input_names=[*inputs],
        output_names=[*outputs],
        opset_version=opset,
        verbose=False,
    )
    proto = cast(Any, program).model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.value_info):
        part.ClearField("metadata_props")  # lines of source files, with folders of this machine
    opset = next(entry.version for entry in proto.opset_import if not entry.domain)
    onnx.helper.set_model_props(proto, {**about, "opset": str(opset)})
    onnx.checker.check_model(proto)
    return cast("ModelProto", proto)


def followed_by(
    session: Session,
    head: nn.Module,
    example: Tensor,
    outputs: Sequence[str],
    about: Mapping[str, str],
) -> ModelProto:
    """Return the graph of a backbone with a module behind it, which stays in float32.

    Args:
        session: of the backbone.
        head: takes the feature map and pooled features, and returns a tuple.
        example: two images.
        outputs: names of what the module returns.
        about: as for `to_onnx`; nothing remains of the backbone's own metadata.
    """
    import onnx

    first = onnx.load_from_string(session.data)
    opset = next(entry.version for entry in first.opset_import if not entry.domain)
    inputs = dict(zip(OUTPUTS, session.run(example), strict=True))
    last = to_onnx(head, inputs, outputs, about, opset)
    del first.metadata_props[:]
    last.ir_version = first.ir_version
    first = onnx.compose.add_prefix(first, "backbone/", rename_inputs=False, rename_outputs=False)
    both = onnx.compose.merge_models(first, last, [(name, name) for name in OUTPUTS])
    onnx.checker.check_model(both)
    return cast("ModelProto", both)


def convert(
    backbone: nn.Module,
    architecture: str,
    example: Tensor,
    to: str,
    photographs: Sequence[Tensor] = (),
) -> OnnxBackbone:
    """Return a backbone in ONNX Runtime; the torch backbone is not changed.

    Args:
        backbone: of timm, on the CPU.
        architecture: its name, for messages.
        example: two images, (2, channels, height, width), of the size that it is for.
        to: one of `KINDS`.
        photographs: preprocessed, (channels, height, width), to calibrate int8 with.

    Raises:
        NBDTError: another kind, a network that is not timm's or cannot be converted, fewer than
            `LEAST` photographs for int8, or a missing library.
    """
    check_known("kind of weights", to, KINDS)
    if isinstance(backbone, OnnxBackbone | GivenNetwork):
        raise NBDTError(f"Only a network of timm can be converted. {NO_GRADIENTS}")
    if to == INT8 and len(photographs) < LEAST:
        raise NBDTError(
            f"Expected at least {LEAST} readable photographs to calibrate int8 with, got "
            f"{len(photographs)}."
        )
    with evaluating(backbone), torch.no_grad(), quiet(architecture):
        feature_map, features = _Graph(backbone)(example)
        proto = to_onnx(_Graph(backbone), {INPUT: example}, OUTPUTS, {"weights": to})
        again = _opened(backbone, proto, feature_map)
        for found, expected in zip(
            again.session.run(example), (feature_map, features), strict=True
        ):
            if not torch.allclose(found, expected, NEAR, NEAR * float(expected.abs().max())):
                raise NBDTError(
                    "ONNX Runtime does not give the network's feature map: torch's exporter or ONNX "
                    "Runtime has a fault with one of its operations."
                )
        if to == INT8:
            again = _opened(backbone, _quantised(proto, photographs), feature_map)
        elif to == FLOAT16_FILE:
            again = _opened(backbone, _stored_as_float16(proto), feature_map)
    return again


def _opened(backbone: nn.Module, proto: Any, feature_map: Tensor) -> OnnxBackbone:
    names = head_names(backbone, feature_map)
    network, session = copy.deepcopy(backbone), Session(proto.SerializeToString())
    return OnnxBackbone(network, session, names).eval()


def _quantised(proto: Any, photographs: Sequence[Tensor]) -> Any:
    """Return the graph in int8 up to the feature map; matrices after it are kept in float16."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Photographs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(photographs)

        def get_next(self) -> dict[str, Any] | None:
            one = next(self.rest, None)
            return None if one is None else {INPUT: one[None].contiguous().numpy()}

    after, excluded = {OUTPUTS[0]}, []
    for node in proto.graph.node:  # in the order of computation
        if after.intersection(node.input):
            after.update(node.output)
            excluded.append(node.name)
    with tempfile.TemporaryDirectory() as aside:
        plain, small = Path(aside, "plain.onnx"), Path(aside, "small.onnx")
        onnx.save(proto, plain)
        quantize_static(
            plain,
            small,
            Photographs(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=excluded,
        )
        return _stored_as_float16(onnx.load(small))


def _stored_as_float16(proto: Any) -> Any:
    """Return the graph with matrices in float16, which are widened when a session starts."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    most = np.finfo(np.float16).max
    changed, casts = copy.deepcopy(proto), []
    for weight in changed.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        half = values.clip(-most, most).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], f"{name}.wide", to=1))
    nodes = [*casts, *changed.graph.node]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


@contextmanager
def quiet(architecture: str) -> Iterator[None]:
    """Silence the exporters, and turn what they raise into one error."""
    log = logging.getLogger()
    level = log.level
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            log.setLevel(logging.ERROR)
            yield
    except (NBDTError, OSError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NBDTError(
            f"{architecture!r} cannot be exported: torch {torch.__version__} could not "
            f"trace it with any batch size ({type(error).__name__}: {reason})."
        ) from error
    finally:
        log.setLevel(level)
