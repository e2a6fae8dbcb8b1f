"""Files of weights as training tools write them; nothing in them runs."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import PurePosixPath

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.hierarchies import from_classifier
from nbdt.network.load import create_timm
from nbdt.network.weights import read_weights

NAME = "test_efficientnet"
TREE = Hierarchy.from_paths(["animal/cat", "animal/dog", "car"])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = create_timm(NAME, 3).eval()
    nn.init.normal_(network.get_classifier().weight)
    return network


class Settings:
    """A class of the user's own in the hyper-parameters."""

    def __init__(self):
        self.rate = 0.1


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def ema(state):
    from torch.optim.swa_utils import AveragedModel

    average = AveragedModel(create_timm(NAME, 3))
    average.module.load_state_dict(state)
    return average.state_dict()


def lightning(state):
    return {
        "epoch": 3,
        "best": torch.tensor(0.5),
        "hyper_parameters": {"root": PurePosixPath("data"), "settings": Settings()},
        "state_dict": OrderedDict(
            [*under("encoder.", state).items(), ("accuracy.total", torch.tensor(7))]
        ),
    }


def bad(state):
    return {name: torch.full_like(value, 9) for name, value in state.items()}


FILES = {
    "DataParallel": lambda state: under("module.", state),
    "torch.compile": lambda state: under("_orig_mod.", state),
    "compiled and parallel": lambda state: under("module._orig_mod.", state),
    "Lightning": lightning,
    "a wrapper in a wrapper": lambda state: {"state_dict": under("net.model._orig_mod.", state)},
    "timm": lambda state: {
        "arch": NAME,
        "state_dict": state,
        "args": argparse.Namespace(lr=0.1, opt="sgd"),
    },
    "timm with a moving average": lambda state: {
        "state_dict": bad(state),
        "state_dict_ema": under("module.", state),
        "args": argparse.Namespace(model_ema=True),
    },
    "torchvision": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": []},
        "args": argparse.Namespace(device="cuda"),
    },
    "torchvision with a moving average": lambda state: {
        "model": bad(state),
        "model_ema": ema(state),
    },
    "an entry of another name": lambda state: {"weights": state, "epoch": 4},
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_every_training_tool_load(network, tmp_path, kind):
    file = tmp_path / "w.pth"
    torch.save(FILES[kind](network.state_dict()), file)
    model = NBDT.from_timm(NAME, TREE, rule="marginal", weights=file).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model.logits(images), network(images), atol=1e-5)
    assert from_classifier(f"timm:{NAME}", weights=file).hierarchy.num_classes == 3


def test_a_prefix_in_safetensors(network, tmp_path):
    save_file(under("backbone.", network.state_dict()), tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors", network).keys() == network.state_dict().keys()


def test_two_networks_in_one_file_are_not_mixed(network, tmp_path):
    state = network.state_dict()
    torch.save(under("student.", state) | under("teacher.", bad(state)), tmp_path / "w.pth")
    with pytest.raises(
        NBDTError, match="several networks .* 'student.', 'teacher.'; save the stat"
    ):
        NBDT.from_timm(NAME, TREE, rule="marginal", weights=tmp_path / "w.pth")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, act, path):
        self.act, self.path = act, path

    def __reduce__(self):
        return self.act, (str(self.path),)


@pytest.mark.parametrize("act", [os.mkdir, open, exec, eval])
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_file_runs(network, tmp_path, act, protocol):
    made = tmp_path / "made"
    place = f"__import__('os').mkdir({str(made)!r})" if act in (exec, eval) else made
    state = {"state_dict": network.state_dict(), "args": Evil(act, place)}
    torch.save(state, tmp_path / "w.pth", pickle_protocol=protocol)
    try:
        read_weights(tmp_path / "w.pth")
    except NBDTError as error:
        assert "not a readable file of tensors" in str(error)
    assert not made.exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(state))
    with pytest.raises(NBDTError, match="not a readable file of tensors"):
        read_weights(tmp_path / "plain.pth")
    assert not made.exists()


def test_a_whole_model_says_what_to_save(network, tmp_path):
    torch.save(network, tmp_path / "w.pth")
    with pytest.raises(NBDTError, match=r"expected .* torch.save\(model.state_dict\(\)\)"):
        NBDT.from_timm(NAME, TREE, rule="marginal", weights=tmp_path / "w.pth")
