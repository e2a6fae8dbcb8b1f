"""Models whose backbone is ONNX: the same answers as torch's, saved, loaded, and hostile files."""

import copy
import hashlib
import json
import pickle
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.model.fingerprint import embedding_hash, model_hash
from nbdt.model.writing import save_head
from nbdt.runtime.backbone import OnnxBackbone
from nbdt.runtime.convert import convert
from nbdt.runtime.session import Session
from tests.in_onnx import batch, in_onnx, made


def test_everything_is_as_in_torch(pair):
    model, other = pair
    images = batch(model)
    with torch.inference_mode():
        for name in ("feature_map", "features", "logits", "__call__"):
            expected, found = getattr(model, name)(images), getattr(other, name)(images)
            assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert [str(a) for a in other.answer(images)] == [str(a) for a in model.answer(images)]
    assert [p.class_name for p in other.paths(images)] == [
        p.class_name for p in model.paths(images)
    ]


def test_any_batch_and_only_its_size(small):
    model, other = small
    for count in (1, 5):
        assert other.features(batch(model, count)).shape == (count, model.head.in_features)
    with pytest.raises(NBDTError, match=r"\(batch, 3, 32, 32\), got \(1, 3, 40, 40\)"):
        other.features(torch.zeros(1, 3, 40, 40))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_its_head_in_another_precision(dtype, pair):
    model, other = (copy.deepcopy(one).to(dtype) for one in pair)
    images = batch(model).to(dtype)
    with torch.no_grad():
        found, expected = other.features(images), model.features(images)
        assert found.dtype == expected.dtype == dtype
        assert torch.allclose(found.float(), expected.float(), atol=0.1, rtol=0.1)
        assert torch.allclose(other(images), pair[1](images.float()).to(other(images)), atol=0.3)


def test_another_process_can_have_it(small):
    _, other = small
    images = batch(other)
    with torch.no_grad():
        expected = other(images)  # its session has started
        assert torch.equal(pickle.loads(pickle.dumps(other))(images), expected)


def test_a_new_last_layer_leaves_a_folder_that_loads(folder):
    model = NBDT.load(folder)
    with torch.no_grad():
        model.head.linear.weight.mul_(2)
    model.reference = {"removed.bias": torch.zeros(1)}
    save_head(model, folder)
    again = NBDT.load(folder)
    assert torch.equal(again.head.linear.weight, model.head.linear.weight)
    assert model_hash(again) == model_hash(model)


def test_what_needs_gradients_says_so(small):
    _, other = small
    with pytest.raises(NBDTError, match="no gradients"):
        other.features(torch.zeros(1, 3, 32, 32, requires_grad=True))
    with pytest.raises(NBDTError, match="no gradients"):
        other.train()
    other.eval()


def test_saved_and_loaded_it_is_the_same(pair, tmp_path):
    model, other = pair
    other.provenance = {"compression": {"parent": model_hash(model)}}
    other.save(tmp_path / "m")
    again = NBDT.load(tmp_path / "m")
    assert isinstance(again.backbone, OnnxBackbone)
    assert model_hash(again) == model_hash(other) != model_hash(model)
    assert embedding_hash(again) != embedding_hash(model)
    images = batch(model)
    assert torch.equal(again(images), other(images))
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    file = (tmp_path / "m" / "backbone.onnx").read_bytes()
    assert config["sha256"]["backbone.onnx"] == hashlib.sha256(file).hexdigest()
    proto = onnx.load_from_string(file)
    assert config["backbone"] == {"opset": str(proto.opset_import[0].version), "weights": "float32"}
    assert b"/home/" not in file
    assert __file__.encode() not in file
    assert b"stack_trace" not in file
    with pytest.raises(NBDTError, match="without weights for torch"):
        NBDT.load(tmp_path / "m", runtime="torch")
    NBDT.load(tmp_path / "m", runtime="onnx").save(tmp_path / "again")
    assert model_hash(NBDT.load(tmp_path / "again")) == model_hash(other)


def test_the_file_runs_by_itself(small, tmp_path):
    model, other = small
    other.save(tmp_path / "m")
    session = onnxruntime.InferenceSession(tmp_path / "m" / "backbone.onnx")
    images = batch(model)
    feature_map, features = session.run(["feature_map", "features"], {"images": images.numpy()})
    assert np.allclose(feature_map, model.feature_map(images).detach(), atol=1e-4)
    assert np.allclose(features, model.features(images).detach(), atol=1e-4)


def test_other_trees_and_copies_need_no_new_export(small, tmp_path):
    _, other = small
    smaller = other.restrict(["x", "y", "e"])
    assert smaller.backbone is other.backbone
    copied = copy.deepcopy(other)
    images = batch(other)
    assert torch.equal(copied(images), other(images))
    star = Hierarchy.from_paths([*other.hierarchy.classes])
    flat = other.with_hierarchy(star)
    assert flat.backbone is other.backbone
    assert torch.allclose(flat(images), other(images), atol=1e-5)  # as under every tree
    flat.save(tmp_path / "edited")
    again = NBDT.load(tmp_path / "edited")
    assert again.hierarchy == star
    assert torch.equal(again(images), flat(images))


def damaged(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for name in ("model.safetensors", "backbone.onnx"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        config["sha256"][name] = digest
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.fixture
def folder(small, tmp_path):
    small[1].save(tmp_path / "m")
    return tmp_path / "m"


def test_another_file_is_refused(folder, small):
    file = folder / "backbone.onnx"
    file.write_bytes(file.read_bytes() + b"\0\0")
    with pytest.raises(NBDTError, match="not the file that was saved"):
        NBDT.load(folder)
    proto = onnx.load_from_string(small[1].backbone.session.data)
    proto.doc_string = "another"
    file.write_bytes(proto.SerializeToString())
    damaged(folder)
    with pytest.raises(NBDTError, match="not the backbone that these weights were saved with"):
        NBDT.load(folder)
    file.unlink()
    with pytest.raises(NBDTError, match=r"not complete: it has no backbone\.onnx"):
        NBDT.load(folder)


def with_file(folder, data):
    """Make a folder whose hashes agree with another file of the backbone."""
    (folder / "backbone.onnx").write_bytes(data)
    weights = load_file(folder / "model.safetensors")
    digest = hashlib.sha256(data).digest()
    weights["backbone.sha256"] = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors")
    damaged(folder)


def test_a_file_that_is_no_backbone(folder):
    with_file(folder, b"not ONNX")
    with pytest.raises(NBDTError, match="cannot read the backbone"):
        NBDT.load(folder)
    node = onnx.helper.make_node("Identity", ["images"], ["features"])
    shape = [onnx.helper.make_tensor_value_info(n, 1, [1, 3]) for n in ("images", "features")]
    graph = onnx.helper.make_graph([node], "g", shape[:1], shape[1:])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10
    )
    with_file(folder, model.SerializeToString())
    with pytest.raises(NBDTError, match="outputs feature_map, features; got"):
        NBDT.load(folder)


def test_a_file_may_not_read_other_files(folder, small, monkeypatch, tmp_path):
    """Weights that the file says are elsewhere: in a file beside it, or anywhere on this machine."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(10**7))
    monkeypatch.chdir(tmp_path)
    for place in ("secret", "../secret", str(secret)):
        proto = onnx.load_from_string(small[1].backbone.session.data)
        weight = max(proto.graph.initializer, key=lambda one: len(one.raw_data))
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", place
        with_file(folder, proto.SerializeToString())
        (folder / "secret").write_bytes(secret.read_bytes())
        with pytest.raises(NBDTError):
            NBDT.load(folder)


def test_an_older_release_refuses_it_by_its_version(folder):
    assert json.loads((folder / "config.json").read_text())["version"] == 2
    damaged(folder, version=9)
    with pytest.raises(
        NBDTError, match="format version 9; this release reads version 1 and 2 and 3"
    ):
        NBDT.load(folder)


def test_without_onnx_runtime_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NBDTError, match=r"not installed: pip install 'nbdt-vision\[runtime\]'"):
        NBDT.load(folder)


def test_int8_changes_little_and_only_the_backbone(small):
    model, _ = small
    other = in_onnx(model, "int8")
    images = batch(model, 12)
    with torch.inference_mode():
        maps = [m.feature_map(images).flatten() for m in (model, other)]
        assert not torch.equal(*maps)
        assert torch.corrcoef(torch.stack(maps))[0, 1] > 0.99
        # The pool and the head are exact on what the backbone gives.
        pooled = other.pool(other.feature_map(images))
        assert torch.allclose(pooled, other.feature_map(images).mean(dim=(2, 3)), atol=1e-5)
        assert torch.allclose(pooled, other.backbone.session.run(images)[1], atol=1e-5)
    proto = onnx.load_from_string(other.backbone.session.data)
    kinds = {one.data_type for one in proto.graph.initializer if len(one.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8}
    weights, channels = {one.name: one for one in proto.graph.initializer}, []
    for node in proto.graph.node:
        weight = weights.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weight and len(weight.dims) == 4:  # with a scale for each output channel
            assert [*weights[node.input[1]].dims] == [weight.dims[0]]
            channels.append(weight.dims[0])
    assert len(channels) == 7


def test_weights_after_the_feature_map_stay_exact_to_half_precision():
    model = made("mobilenetv3_small_050,size=64")
    other = in_onnx(model, "int8")
    feature_map, features = other.backbone.session.run(batch(model, 12))
    assert torch.allclose(features, model.pool(feature_map), rtol=1e-2, atol=1e-2)
    proto = onnx.load_from_string(other.backbone.session.data)
    kinds = {one.data_type for one in proto.graph.initializer if len(one.dims) > 1}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16}


def test_float16_is_a_smaller_file_of_float32_arithmetic(small):
    model, plain = small
    other = in_onnx(model, "float16-file")
    assert len(other.backbone.session.data) < 0.6 * len(plain.backbone.session.data)
    images = batch(model)
    assert torch.allclose(other.features(images), model.features(images), atol=2e-2)


def test_what_cannot_be_converted(small):
    model, other = small
    images = batch(model, 12)

    class Loop(type(model.backbone)):
        def forward_features(self, pictures):
            return super().forward_features(pictures * (2 if float(pictures.sum()) > 1 else 3))

    strange = copy.deepcopy(model.backbone)
    strange.__class__ = Loop
    with pytest.raises(NBDTError, match="'odd' cannot be exported: torch"):
        convert(strange, "odd", images[:2], "float32")
    with pytest.raises(NBDTError, match="at least 8 readable photographs .*got 7"):
        convert(model.backbone, "x", images[:2], "int8", [*images[:7]])
    with pytest.raises(NBDTError, match="Unknown kind of weights 'int4'"):
        convert(model.backbone, "x", images[:2], "int4")
    with pytest.raises(NBDTError, match="Only a network of timm"):
        convert(other.backbone, "x", images[:2], "float32")


def test_a_session_uses_the_threads_of_torch_and_does_not_spin(small, monkeypatch):
    seen = []

    class Spy(onnxruntime.InferenceSession):
        def __init__(self, data, options, **more):
            seen.append((options.intra_op_num_threads, options))
            super().__init__(data, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Spy)
    before = torch.get_num_threads()
    session = Session(small[1].backbone.session.data)
    torch.set_num_threads(1)
    try:
        session.run(batch(small[0]))
    finally:
        torch.set_num_threads(before)
    ((threads, options),) = seen
    assert threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
