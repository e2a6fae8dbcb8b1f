"""Importing torchvision beside a CPU-only torch, each time in a process of its own."""

import os
import subprocess
import sys

import pytest

IMPORT = "from nbdt.torchvision_cpu import import_torchvision as load; load(); load()\n"


def python(code, folder):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_torchvision_and_timm_can_be_imported(tmp_path):
    code = IMPORT + "import torchvision, timm; print(len(torchvision.models.list_models()) > 50)"
    run = python(code, tmp_path)
    assert (run.returncode, run.stdout.strip()) == (0, "True"), run.stderr


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
