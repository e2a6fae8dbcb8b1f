"""Importing torchvision beside a CPU-only torch: mended only where it is broken in the known way."""

import subprocess
import sys
import types

import pytest

from nbdt import torchvision_cpu

NO_OPERATOR = "operator torchvision::nms does not exist"


@pytest.fixture
def world(monkeypatch):
    """No torchvision loaded; importing it fails with the given errors in turn, then succeeds."""
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    world = types.SimpleNamespace(errors=[], imports=0, declared=0)

    def import_module(name):
        assert name == "torchvision"
        assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
        world.imports += 1
        module = types.ModuleType("torchvision")
        sys.modules["torchvision"] = module
        sys.modules["torchvision.extension"] = types.ModuleType("torchvision.extension")
        if world.errors:
            del sys.modules["torchvision"]  # as the import system does; submodules stay behind
            raise world.errors.pop(0)
        return module

    def declare():
        world.declared += 1

    monkeypatch.setattr(torchvision_cpu.importlib, "import_module", import_module)
    monkeypatch.setattr(torchvision_cpu, "_declare_operators", declare)
    yield world
    for name in ("torchvision", "torchvision.extension"):
        sys.modules.pop(name, None)


def test_a_working_torchvision_is_left_alone(world):
    torchvision_cpu.import_torchvision()
    assert (world.imports, world.declared) == (1, 0)


def test_a_loaded_torchvision_is_left_alone(world):
    sys.modules["torchvision"] = types.ModuleType("torchvision")
    torchvision_cpu.import_torchvision()
    assert (world.imports, world.declared) == (0, 0)


def test_missing_operators_are_declared_and_the_import_tried_again(world):
    world.errors = [RuntimeError(NO_OPERATOR)]
    torchvision_cpu.import_torchvision()
    assert (world.imports, world.declared) == (2, 1)
    assert "torchvision" in sys.modules


def test_it_is_tried_again_only_once(world):
    world.errors = [RuntimeError(NO_OPERATOR), RuntimeError(NO_OPERATOR)]
    with pytest.raises(RuntimeError, match="torchvision::nms"):
        torchvision_cpu.import_torchvision()
    assert (world.imports, world.declared) == (2, 1)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA driver is too old"), ImportError("no module named torchvision")]
)
def test_another_failure_is_passed_on(world, error):
    world.errors = [error]
    with pytest.raises(type(error), match=str(error)):
        torchvision_cpu.import_torchvision()
    assert (world.imports, world.declared) == (1, 0)


def test_only_operators_that_are_missing_are_declared(monkeypatch):
    import torch

    declared = []
    monkeypatch.setattr(torch.library, "define", lambda name, schema: declared.append(name))
    monkeypatch.setattr(torch.ops, "torchvision", types.SimpleNamespace(nms="here"))
    torchvision_cpu._declare_operators()
    assert declared == ["torchvision::qnms"]


def test_it_works_here():
    code = (
        "from nbdt.torchvision_cpu import import_torchvision as load; load(); load();"
        "import torchvision, timm; print(len(torchvision.models.list_models()) > 50)"
    )
    run = [sys.executable, "-c", code]
    answer = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert (answer.returncode, answer.stdout.strip()) == (0, "True"), answer.stderr
