"""NBDT: made from timm, preprocessing, saved, loaded, refused."""

import json
import socket
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.decide.metrics import calibration_error
from nbdt.images.dataset import iter_images
from nbdt.model.saved import bundled, file_hashes

PHOTOGRAPHS = Path(__file__).parents[2] / "demo" / "static"
TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()


def photo(width=90, height=60):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def test_forward_is_the_head_on_the_features(model):
    images = torch.randn(3, 3, 32, 32)
    features = model.features(images)
    assert features.shape == (3, 256)
    assert torch.equal(model(images), model.head(features))
    assert torch.equal(model.logits(images), model.head.linear(features))
    assert torch.equal(model.head.logits(features), model.head.linear(features))
    assert model.device == images.device
    assert torch.allclose(model(images), model.head.linear(features).log_softmax(1), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "small_convnet", "efficientnet_b0"])
@pytest.mark.parametrize("size", [(90, 60), (301, 500), (40, 40)])
def test_preprocess_is_timms_evaluation_transform(name, size):
    from timm.data import create_transform, resolve_model_data_config

    model = NBDT.from_timm(name, TREE, rule="marginal")
    theirs = create_transform(**resolve_model_data_config(model.backbone))
    ours, expected = model.preprocess(photo(*size)), theirs(photo(*size))
    assert torch.allclose(ours, expected, atol=1e-5)


def test_save_and_load_give_the_same_answers(model, tmp_path):
    model.reference = {"logits": torch.randn(2, 4).half(), "labels": torch.tensor([0, 1])}
    model.provenance = {"seed": 3}
    model.save(tmp_path / "model", card="# card")
    again = NBDT.load(tmp_path / "model")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))
    assert again.hierarchy == TREE
    assert again.rule == "marginal"
    assert again.preprocess == model.preprocess
    assert again.provenance["seed"] == 3
    assert torch.equal(again.reference["logits"], model.reference["logits"])
    assert not again.training
    assert (tmp_path / "model" / "README.md").read_text() == "# card"
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1  # weights are as readable as the rest


def test_half_precision_halves_matrices_only(model, tmp_path):
    model.save(tmp_path / "model", dtype=torch.float16)
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert stored["head.linear.weight"].dtype == torch.float16
    assert stored["head.linear.bias"].dtype == torch.float32
    assert NBDT.load(tmp_path / "model").head.linear.weight.dtype == torch.float32


def test_save_refuses_an_existing_folder_and_leaves_nothing_behind(model, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(NBDTError, match="exists already; name a new folder"):
        model.save(tmp_path / "model")
    model.provenance = {"unserialisable": object()}
    with pytest.raises(TypeError):
        model.save(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_load_names_what_is_missing(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    with pytest.raises(NBDTError, match=r"There is one at '.*run/model'"):
        NBDT.load(tmp_path / "run")
    with pytest.raises(NBDTError, match=r"There is no saved model at .*nowhere"):
        NBDT.load(tmp_path / "nowhere")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "pickle"}, 'no JSON object with "format": "nbdt-model"'),
        ({"version": 4}, "version 4; this release reads version 1 and 2 and 3"),
        ({"architecture": "resnet19x"}, "timm knows no architecture 'resnet19x'. Did you mean"),
        ({"architecture": 7}, "missing or wrong 'architecture'"),
        ({"rule": "mean"}, "Unknown rule 'mean'"),
        ({"hierarchy_hash": "00" * 32}, "hierarchy.json is not the one"),
        ({"preprocessing": {"size": 32}}, "damaged preprocessing"),
    ],
)
def test_damaged_configs_are_refused(model, tmp_path, changes, message):
    model.save(tmp_path / "model")
    edit_config(tmp_path / "model", **changes)
    with pytest.raises(NBDTError, match=message):
        NBDT.load(tmp_path / "model")


def test_damaged_weights_are_refused(model, tmp_path):
    model.save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    state = load_file(weights)
    del state["head.linear.bias"]
    save_file(state, weights)
    with pytest.raises(NBDTError, match="is not the file that was saved"):
        NBDT.load(tmp_path / "model")
    edit_config(tmp_path / "model", sha256=file_hashes(tmp_path / "model"))
    with pytest.raises(NBDTError, match=r"missing: 'head\.linear\.bias'"):
        NBDT.load(tmp_path / "model")
    weights.write_bytes(b"\x80\x04pickle")
    with pytest.raises(NBDTError, match="not a safetensors file"):
        NBDT.load(tmp_path / "model")


def test_local_weights_take_the_place_of_the_hub(tmp_path):
    source = NBDT.from_timm("resnet18", TREE, rule="marginal")
    state = {
        k.removeprefix("backbone."): v for k, v in source.state_dict().items() if "head" not in k
    }
    state |= {"fc.weight": source.head.linear.weight, "fc.bias": source.head.linear.bias}
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "w.pth")
    model = NBDT.from_timm("resnet18", TREE, rule="marginal", weights=tmp_path / "w.pth").eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.allclose(model(images), source.eval()(images), atol=1e-5)


def test_weights_that_do_not_fit_say_how(tmp_path):
    save_file({"fc.weight": torch.zeros(4, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(NBDTError, match="do not fit the network: missing"):
        NBDT.from_timm("resnet18", TREE, rule="marginal", weights=tmp_path / "w.safetensors")
    with pytest.raises(NBDTError, match="There is no weights file"):
        NBDT.from_timm("resnet18", TREE, rule="marginal", weights=tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no tensors here")
    with pytest.raises(NBDTError, match="not a readable file of tensors"):
        NBDT.from_timm("resnet18", TREE, rule="marginal", weights=tmp_path / "bad.pth")


def test_offline_hub_says_how_to_pass_a_file(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NBDTError, match="'resnet18' could not be fetched.*weights='model.safetens"):
        NBDT.from_timm("resnet18", TREE, rule="marginal", pretrained=True)


def test_a_hub_that_cannot_be_reached_is_not_asked_again_and_again(monkeypatch):
    from huggingface_hub import constants

    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("nbdt.network.fetch.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []
    monkeypatch.setattr("time.sleep", asked.append)  # how the client waits before it asks again
    with pytest.raises(NBDTError, match="https://huggingface.co/timm/resnet18.a1_in1k"):
        NBDT.from_timm("resnet18", TREE, rule="marginal", pretrained=True)
    assert not asked
    assert constants.HF_HUB_OFFLINE is False


def test_default_architecture_is_resnet101():
    model = NBDT.from_timm(hierarchy=TREE, rule="marginal")
    assert model.architecture == "resnet101"
    assert model.head.in_features == 2048


def test_the_bundled_model_is_small_and_named():
    assert "cifar10" in bundled()
    model = NBDT.load("cifar10")
    assert model.hierarchy.classes == (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    assert model.rule == "representative"
    assert len(model.hierarchy.inner_nodes) == 9
    names = [model.hierarchy.names[node] for node in model.hierarchy.inner_nodes]
    assert len(set(names)) == 9
    assert len(model.reference["labels"]) == 5000
    height, width = model.feature_map(torch.zeros(1, 3, 32, 32)).shape[-2:]
    assert min(height, width) >= 8


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_the_bundled_models_reference_set_gives_its_cards_figures(name):
    model = NBDT.load(name)
    logits, labels = model.reference["logits"].float(), model.reference["labels"].long()
    stated = next(iter(model.provenance["accuracy"].values()))
    flat = (logits.argmax(1) == labels).double().mean()
    hard = (model.head.rules.hard(logits) == labels).double().mean()
    assert abs(flat - stated["flat"]) <= 0.001  # the stored logits are rounded to float16
    assert abs(hard - stated["hard"]) <= 0.001


@pytest.mark.data
def test_the_small_bundled_model_classifies_real_images(data_dir):
    model = NBDT.load("cifar10")
    archive = data_dir / "cifar10_test_lossless.tar.xz"
    sources = list(islice(iter_images(archive), 0, None, 50))[:200]
    images = torch.stack([model.preprocess(source.open()) for source in sources])
    with torch.inference_mode():
        paths = model.paths(images)
    right = sum(
        path.class_name == source.label for path, source in zip(paths, sources, strict=True)
    )
    assert right >= 0.87 * len(sources)  # its accuracy less three standard errors of 200 images


def test_the_default_model_knows_what_people_photograph(imagenet):
    tree = imagenet.hierarchy
    assert {"lion", "leopard", "school bus", "espresso", "Egyptian cat"} <= {*tree.classes}
    assert all(tree.class_wnids)
    assert {"animal", "vehicle"} <= {tree.names[child] for child in tree.children[0]}
    for photograph, expected in {"cat": "Egyptian cat", "coffee": "espresso"}.items():
        with Image.open(PHOTOGRAPHS / f"{photograph}.jpg") as image:
            path = imagenet.paths(imagenet.preprocess(image)[None])[0]
        assert path.class_name == expected
        assert path.probability > 0.5


def test_the_old_default_says_what_replaced_it(tmp_path, monkeypatch):
    with pytest.raises(NBDTError, match="'cifar100' is no longer included.*'imagenet'"):
        NBDT.load("cifar100")
    monkeypatch.chdir(tmp_path)
    NBDT.load("cifar10").save("cifar100")  # a folder of that name is a model like any other
    assert NBDT.load("cifar100").hierarchy.num_classes == 10


@pytest.mark.data
def test_the_default_models_reference_set_is_of_its_validation_photographs(imagenet, data_dir):
    sources = list(iter_images(data_dir / "imagenet_val650_227.tar", "val"))
    assert len(sources) == len(imagenet.reference["labels"]) == 650
    some = range(0, 650, 130)
    images = torch.stack([imagenet.preprocess(sources[row].open()) for row in some])
    with torch.inference_mode():
        logits = imagenet.logits(images)
    stored = imagenet.reference["logits"][list(some)].float()
    torch.testing.assert_close(logits, stored, atol=0.02, rtol=0.002)
    wnids = [imagenet.hierarchy.class_wnids[int(imagenet.reference["labels"][row])] for row in some]
    assert wnids == [sources[row].label for row in some]


def test_the_default_models_probabilities_are_calibrated(imagenet):
    logits, labels = imagenet.reference["logits"].float(), imagenet.reference["labels"].long()
    chances = imagenet.head.rules(logits).exp().amax(1)
    assert calibration_error(chances, logits.argmax(1) == labels) <= 0.03


def test_another_tree_shares_the_weights_and_the_flat_answer():
    model = NBDT.load("cifar10")
    names = model.hierarchy.classes
    other = model.with_hierarchy(Hierarchy.from_paths([f"{n[0] < 'd'}/{n}" for n in names]))
    images = torch.randn(3, 3, 32, 32)
    assert other.head.linear.weight.data_ptr() == model.head.linear.weight.data_ptr()
    assert not other.training
    torch.testing.assert_close(
        other.head.linear(other.features(images)), model.head.linear(model.features(images))
    )
    assert other.paths(images)[0].decisions[0].children == ("True", "False")
    with pytest.raises(NBDTError, match="in another order: class 0 is 'truck'"):
        model.with_hierarchy(Hierarchy.from_paths([f"all/{name}" for name in names[::-1]]))
