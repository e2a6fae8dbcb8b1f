"""The default model in ONNX Runtime: torch's answers, and torch where a gradient or a hook needs it."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from nbdt import NBDT, NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.network.running import in_torch
from nbdt.runtime import accelerate
from nbdt.runtime.accelerate import made_with, runs_in_onnx

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def fast():
    return NBDT.load("imagenet", runtime="onnx")


@pytest.fixture(scope="module")
def plain():
    return NBDT.load("imagenet", runtime="torch")


@pytest.fixture
def images():
    return torch.randn(2, 3, 260, 260, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def runs(monkeypatch):
    """The batches that ONNX Runtime ran."""
    seen, run = [], accelerate.Session.run
    monkeypatch.setattr(
        accelerate.Session,
        "run",
        lambda self, images: seen.append(len(images)) or run(self, images),
    )
    return seen


def test_it_is_the_default_and_the_same_model(plain, images, runs):
    model = NBDT.load("imagenet")
    assert runs_in_onnx(model.backbone)
    assert not runs_in_onnx(plain.backbone)
    assert model_hash(model) == model_hash(plain)
    with torch.inference_mode():
        found, expected = model(images), plain(images)
    assert runs == [2]
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.equal(found, expected)
    assert [a.node for a in model.answer(images)] == [a.node for a in plain.answer(images)]
    assert runs == [2, 2]


def test_torch_runs_what_onnx_runtime_cannot(fast, plain, images, runs):
    assert fast(images).requires_grad
    with torch.no_grad():
        with in_torch():
            fast(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast(images)
        fast.features(images[..., :224, :224])
        fast.features(images.double().float()[:, :, :128, :128])
        copy.deepcopy(fast)(images)
    assert runs == []
    seen = []
    handle = fast.backbone.conv_stem.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad(), in_torch():
        fast(images)
    handle.remove()
    assert seen == [1]


def test_records_name_what_computes_images_of_that_size(fast, images, runs):
    with torch.no_grad():
        fast.features(images[..., :128, :128])
    assert runs == []
    assert runs_in_onnx(fast.backbone, 260)
    assert not runs_in_onnx(fast.backbone, 128)
    assert made_with(fast.backbone, 260)["runtime"].startswith("onnxruntime")
    assert made_with(fast.backbone, 128)["runtime"] == f"torch {torch.__version__}"


def test_changed_weights_are_never_overlooked(images, runs):
    model = NBDT.load("imagenet", runtime="onnx")
    with torch.no_grad():
        model.head.linear.weight.mul_(2)  # not of the backbone
        model(images)
        assert runs == [2]
        model.backbone.conv_stem.weight.mul_(0)
        assert not model.feature_map(images[:1]).sub(model.feature_map(images[1:])).any()
    assert runs == [2]


CHANGES = {
    "weights are assigned": lambda network: network.load_state_dict(
        {name: value / 2 for name, value in network.state_dict().items()}, assign=True
    ),
    "a parameter is replaced": lambda network: setattr(
        network.conv_stem, "weight", torch.nn.Parameter(network.conv_stem.weight / 2)
    ),
    "a layer is replaced": lambda network: setattr(network, "bn1", torch.nn.Tanh()),
    "a layer is added": lambda network: network.blocks.append(torch.nn.Tanh()),
    "rounded to float16": lambda network: network.half().float(),
    "one layer trains": lambda network: network.bn1.train(),
    "a hook": lambda network: network.conv_stem.register_forward_hook(lambda *given: given[2] / 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_network_runs_in_torch(change, images, runs):
    model = NBDT.load("imagenet", runtime="onnx")
    with torch.no_grad():
        change(model.backbone)
        model.feature_map(images[:1])
    assert runs == []
    assert not runs_in_onnx(model.backbone)


def test_threads_start_one_session(images, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, started, make = NBDT.load("imagenet", runtime="onnx"), [], onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *a, **k: started.append(1) or make(*a, **k)
    )

    def run(_):
        with torch.no_grad():
            return model.feature_map(images[:1])

    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(run, range(4))]
    assert started == [1]
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_large_batch_runs_in_parts(fast, images, runs, monkeypatch):
    monkeypatch.setattr("nbdt.runtime.session.AT_ONCE", 2 * 260**2)
    many = torch.cat([images, images.flip(0), images[:1]])
    with torch.inference_mode():
        fast.features(many[:2])  # the session exists
        inner, seen = accelerate._accelerated[fast.backbone].session._session, []
        ran = type(inner).run
        monkeypatch.setattr(
            type(inner), "run", lambda s, o, f: seen.append(len(f["images"])) or ran(s, o, f)
        )
        whole = fast.features(many)
        assert seen == [2, 2, 1]
        parts = torch.cat([fast.features(one[None]) for one in many])
    assert torch.allclose(whole, parts, atol=1e-5)


def test_other_trees_share_it(fast, images, runs):
    with torch.inference_mode():
        fast.restrict(["dog", "crate"]).features(images)
    assert runs == [2]


def test_a_runtime_that_is_not_there(monkeypatch):
    with pytest.raises(NBDTError, match="Unknown runtime 'tensorrt'; there are torch, onnx"):
        NBDT.load("cifar10", runtime="tensorrt")
    with pytest.raises(NBDTError, match="nbdt compress cifar10 --to float32"):
        NBDT.load("cifar10", runtime="onnx")
    monkeypatch.setattr("nbdt.runtime.session.find_spec", lambda _: None)
    assert not runs_in_onnx(NBDT.load("imagenet").backbone)
    with pytest.raises(
        NBDTError, match=r"install that first: pip install 'nbdt-vision\[runtime\]'"
    ):
        NBDT.load("imagenet", runtime="onnx")
