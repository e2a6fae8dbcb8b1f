"""Importing torchvision beside a CPU-only torch, each time in a process of its own."""

import os
import subprocess
import sys

import pytest

from nbdt.without_compiler import compiler_on_demand

IMPORT = "from nbdt.torchvision_cpu import import_torchvision as load; load(); load()\n"


def python(code, folder):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "imports"),
    [
        ("RuntimeError('operator torchvision::nms does not exist')", 2),
        ("RuntimeError('CUDA driver is too old')", 1),
        ("ImportError('no libjpeg')", 1),
    ],
)
def test_another_failure_is_passed_on(tmp_path, failure, imports):
    """A torchvision that always fails; only missing operators make it worth a second try."""
    (tmp_path / "torchvision").mkdir()
    module = f"print('imported', flush=True)\nraise {failure}\n"
    (tmp_path / "torchvision" / "__init__.py").write_text(module)
    run = python(IMPORT, tmp_path)
    assert run.stdout.split() == ["imported"] * imports
    assert failure.split("'")[1] in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("library", ["torchvision", "timm", "torchvision.transforms.v2"])
def test_libraries_import_once_this_package_is(tmp_path, library):
    """With a torchvision whose operators do not load, if the one here is not such."""
    code = f"import nbdt, sys\nimport {library}\nimport torchvision\n"
    code += (
        "spec = torchvision.__spec__; print(type(spec.loader).__name__, torchvision.__version__)"
    )
    run = python(code, tmp_path)
    assert run.stdout.split()[0] == "SourceFileLoader", run.stderr


LIGHT = """
import sys
from nbdt.network.load import import_timm
timm = import_timm()
import torch, torchvision
assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
assert torch.compiler.disable.__module__ == "torch.compiler"
assert timm.is_model("resnet18") and len(torchvision.models.list_models()) > 50
network = torchvision.models.resnet18(num_classes=3).eval()
"""
COMPILE = """
from torch._dynamo.utils import is_compile_supported
supported = sys.modules["torchvision.ops.roi_align"].is_compile_supported
assert supported("cpu") == is_compile_supported("cpu")
compiling = []
@disable
def notes(x):
    compiling.append(torch.compiler.is_compiling())
    return x + 1
image = torch.ones(1, 3, 32, 32)
compiled = torch.compile(lambda x: network(notes(x)), backend="eager")
with torch.inference_mode():
    assert torch.allclose(compiled(image), network(image + 1), atol=1e-5)
assert compiling == [False]
try:
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except RuntimeError as error:
    assert "custom C++ ops" in str(error)
print("compiled")
"""


def test_the_compiler_of_torch_is_imported_when_it_is_used(tmp_path):
    """timm's decorator keeps a function from being compiled, torchvision asks what can be."""
    run = python(LIGHT + "from timm.layers import disable_compiler as disable" + COMPILE, tmp_path)
    assert (run.returncode, run.stdout.strip()) == (0, "compiled"), run.stderr


def test_all_names_of_the_compiler_can_be_had_while_libraries_are_imported(tmp_path):
    """A torchvision of another version, which takes more of the compiler, and then fails."""
    (tmp_path / "torchvision").mkdir()
    source = "from torch._dynamo.utils import counters, is_compile_supported\nprint(len(counters))"
    (tmp_path / "torchvision" / "__init__.py").write_text(source + "\nimport no_such_module\n")
    code = f"try:\n    {IMPORT}except ImportError as error:\n    print(error.name)\n"
    code += "import torch, torch._dynamo.utils as real\n"
    code += "print(type(real).__name__, torch.compiler.disable.__module__)"
    run = python(code, tmp_path)
    assert run.stdout.split() == ["0", "no_such_module", "module", "torch.compiler"], run.stderr


def test_a_compiler_that_was_imported_before_is_left_alone():
    import torch._dynamo.utils

    before = torch.compiler.disable
    with compiler_on_demand():
        assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
        assert torch.compiler.disable is before
    assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
