"""`nbdt compress`: what it writes, what it measures, what it refuses; nothing is left after an error."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT
from nbdt.decide.stopping import weakest_decision
from nbdt.hierarchies.measure import compress as module
from nbdt.hierarchies.measure.comparison import measure
from nbdt.hierarchies.measure.cost import memory
from nbdt.model.fingerprint import embedding_hash, model_hash
from nbdt.runtime.backbone import OnnxBackbone

onnxruntime = pytest.importorskip("onnxruntime")
COUNT = 120


@pytest.fixture(scope="module")
def photographs(cifar10, tmp_path_factory):
    """Pictures of noise, in folders by what the model says of them: it is right on all of them."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            label = cifar10.paths(cifar10.preprocess(picture)[None])[0].class_name
        (root / label).mkdir(exist_ok=True)
        picture.save(root / label / f"{index}.png")
    return root


@pytest.fixture
def quick(monkeypatch):
    """Leave the processes out that measure the memory; one test has them."""
    monkeypatch.setattr(module, "memory", lambda *_: None)


def run(*arguments):
    return CliRunner().invoke(module.app, [str(one) for one in arguments])


@pytest.fixture
def plain_cifar10(cifar10, tmp_path):
    cifar10.save(tmp_path / "cifar10")
    return tmp_path / "cifar10"


@pytest.mark.parametrize("to", ["int8", "float32", "float16-file"])
def test_a_smaller_model_and_a_true_record(cifar10, photographs, tmp_path, quick, to):
    out = tmp_path / "small"
    done = run(
        "cifar10", "--data", photographs, "--to", to, "--out", out, "--max-loss", 50, "--json"
    )
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout.splitlines()[-1])
    small = NBDT.load(out)
    assert isinstance(small.backbone, OnnxBackbone)
    facts = small.provenance["compression"]
    assert facts["parent"] == model_hash(cifar10)
    assert facts["to"] == small.backbone.session.about["weights"] == to
    assert embedding_hash(small) != embedding_hash(cifar10)
    assert facts["onnxruntime"] == onnxruntime.__version__
    assert facts["calibration_photographs"] == (30 if to == "int8" else 0)
    assert record["images"] == COUNT - facts["calibration_photographs"]
    ratio = record["bytes"]["compressed"] / record["bytes"]["original"]
    assert ratio < {"int8": 0.3, "float16-file": 0.55, "float32": 1.05}[to]
    assert small.hierarchy == cifar10.hierarchy
    assert record["shown"]["original"] == 1
    # Its own answers, an image at a time. Where none calibrated, all photographs are held out.
    if to != "int8":
        files = sorted(photographs.rglob("*.png"))
        images = torch.stack([small.preprocess(Image.open(file)) for file in files])
        with torch.inference_mode():
            paths = small.paths(images)
        right = [p.class_name == f.parent.name for p, f in zip(paths, files, strict=True)]
        assert record["shown"]["compressed"] == pytest.approx(sum(right) / COUNT)
        assert record["unchanged"]["paths"] == pytest.approx(sum(right) / COUNT)
    assert record["unchanged"]["paths"] > {"int8": 0.8}.get(to, 0.97)
    bands = record["unchanged"]["by_weakest_decision"]
    assert sum(band["images"] for band in bands) == record["images"]
    assert record["speed"]["threads"] == torch.get_num_threads()
    assert all(v > 0 for row in record["speed"]["images_a_second"].values() for v in row.values())


def test_a_loss_is_refused_and_nothing_is_left(photographs, tmp_path, quick, monkeypatch):
    """The new model is made worse: half of its classes lose all their answers."""
    real = module.compress

    def worse(*arguments):
        small, *rest = real(*arguments)
        assert not list(out.parent.iterdir())  # nor would anything be if it were killed now
        with torch.no_grad():
            small.head.linear.bias[:5] -= 100
        return small, *rest

    monkeypatch.setattr(module, "compress", worse)
    out = tmp_path / "deep" / "small"
    out.parent.mkdir()
    done = run("cifar10", "--data", photographs, "--to", "float32", "--out", out)
    assert done.exit_code == 1
    assert "points of accuracy" in str(done.exception)
    assert "Nothing is written" in str(done.exception)
    assert "--max-loss is 0.5" in str(done.exception)
    assert "One of 120 photographs is 0.83 points" in str(done.exception)
    assert "path shown, right" in done.stdout  # the table comes first
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize("readable", [0, 7, 8])
def test_too_few_photographs_are_refused(photographs, tmp_path, quick, readable):
    """Those that cannot be read do not count; and some have to be left to measure with."""
    data = tmp_path / "data" / "cat"
    data.mkdir(parents=True)
    files = sorted(photographs.rglob("*.png"))[:readable]
    for index, file in enumerate(files):
        (data / f"{index}.png").write_bytes(file.read_bytes())
    for index in range(5):
        (data / f"broken{index}.png").write_bytes(b"no picture")
    done = run("cifar10", "--data", data.parent, "--out", tmp_path / "small", "--max-loss", 100)
    assert done.exit_code == 1
    wanted = f"at least 8 readable photographs to calibrate int8 with, got {readable}"
    message = str(done.exception)
    assert wanted in message if readable < 8 else "photographs" in message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_memory_is_measured_in_processes(plain_cifar10):
    used = memory(str(plain_cifar10))
    assert used is None or 10**5 < used < 10**9
    assert memory(str(plain_cifar10 / "none")) is None


def test_the_weakest_decision_is_the_smallest_probability_on_the_path(cifar10):
    logits = 4 * torch.randn(20, 10, generator=torch.Generator().manual_seed(0))
    result = measure(logits, torch.zeros(20, dtype=torch.int64), cifar10.hierarchy, cifar10.rule)
    found = weakest_decision(result.rules, logits)
    paths = cifar10.head.rules.paths(logits)
    expected = [min(math.exp(d.log_probs[d.chosen]) for d in path) for path in paths]
    assert found.tolist() == pytest.approx(expected)


def test_an_onnx_model_is_not_compressed_again(photographs, tmp_path, quick):
    first = run("cifar10", "--data", photographs, "--to", "float32", "--out", tmp_path / "a")
    assert first.exit_code == 0, first.output
    assert "One of 120 photographs is 0.83 points: a loss of 0.5 shows in 200" in first.stderr
    again = run(tmp_path / "a", "--data", photographs, "--out", tmp_path / "b")
    assert again.exit_code == 1
    assert "ONNX" in str(again.exception)
    assert not (tmp_path / "b").exists()
