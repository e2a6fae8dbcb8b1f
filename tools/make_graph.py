"""Make the graph of the default network without its weights: nbdt/runtime/tf_efficientnet_lite2.onnx.

    python tools/make_graph.py

Run it again when torch's exporter gives a faster graph. `nbdt.runtime.accelerate` puts the weights in.
"""

from pathlib import Path

from nbdt import NBDT
from nbdt.runtime.accelerate import GRAPHS, folded
from nbdt.runtime.convert import convert

PREFIX = "backbone."  # of the exporter's names


def main() -> None:
    """Convert the default model, and leave out what `folded` gives."""
    import onnx

    model = NBDT.load("imagenet", runtime="torch")
    name = model.architecture
    example = model.preprocess.example(model.head.linear.weight)
    found = convert(model.backbone, name, example, "float32")
    proto = onnx.load_from_string(found.session.data)
    weights = folded(model.backbone)
    names = {
        weight.name: weight.name.removeprefix(PREFIX).replace(".weight_bias", ".bias")
        for weight in proto.graph.initializer
        if weight.name.startswith(PREFIX)
    }
    if {*names.values()} != {*weights}:
        raise SystemExit(f"Other weights than expected: {sorted({*names.values()} ^ {*weights})}")
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for weight in proto.graph.initializer:
        if weight.name in names:
            weight.name = names[weight.name]
            weight.ClearField("raw_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            place = weight.external_data.add()
            place.key, place.value = "location", "weights"
    proto.graph.ClearField("value_info")
    target = Path(__file__).parents[1] / "nbdt" / "runtime" / GRAPHS[name]
    target.write_bytes(proto.SerializeToString())
    print(f"{target}: {target.stat().st_size:,} bytes, {len(names)} tensors left out")


if __name__ == "__main__":
    main()
