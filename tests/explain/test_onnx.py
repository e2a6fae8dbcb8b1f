"""Explanations of models whose backbone is ONNX, and of the default model, against torch's."""

import importlib
import json

import numpy as np
import onnxruntime
import pytest
import torch
import typer

import nbdt
from nbdt import NBDT, NBDTError
from nbdt.__main__ import COMMANDS
from nbdt.explain import explain
from nbdt.explain.audit.result import findings
from nbdt.explain.audit.run import audit
from nbdt.explain.batch.compute import made_on, precision_for
from nbdt.explain.batch.run import explain_all
from nbdt.explain.maps.layers import NoPositionsError
from nbdt.explain.maps.levels import PLAIN_GRID
from nbdt.hierarchies.library import RUNTIME_HELP
from nbdt.model.remember import make_memory
from tests.in_onnx import batch, in_onnx, made, photographs

POOLED, GRADIENT = "small_convnet", "convnext_atto,size=64"  # closed form; through what follows


def both(architecture):
    model = made(architecture)
    return model, in_onnx(model)


def assert_same_maps(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.path.class_name == other.path.class_name
        assert one.made["method"] == other.made["method"]
        for a, b in zip(one.maps, other.maps, strict=True):
            assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max() + 1e-5


@pytest.mark.parametrize("architecture", [POOLED, GRADIENT])
def test_fast_maps_are_torchs(architecture):
    model, other = both(architecture)
    images = batch(model)
    assert_same_maps(*(explain(m, images, level="fast", nodes=["a"]) for m in (other, model)))


@pytest.mark.parametrize("level", ["default", "careful"])
def test_other_levels_test_regions_and_keep_the_fast_maps(level):
    """A network without a layer that gradients reach is one without a finer layer."""
    _, other = both(POOLED)
    photos = photographs(other.preprocess.size)
    fast, found = (explain(other, photos, level=name) for name in ("fast", level))
    assert_same_maps(found, fast)
    assert all(one.made["level"] == level and one.made["passes"] > 10 for one in found)
    assert all(len(one.tested) == len(one.path) for one in found)


def test_counterfactuals_and_hiding_methods_need_no_gradients():
    model, other = both(POOLED)
    images = batch(model)
    found, expected = (explain(m, images[:1], counterfactuals=True)[0] for m in (other, model))
    assert len(found.counterfactuals) == len(expected.counterfactuals)
    assert_same_maps(
        *(explain(m, images, method="occlusion", level="fast") for m in (other, model))
    )


@pytest.mark.parametrize("method", ["integrated gradients", "input x gradient"])
def test_methods_that_need_gradients_say_so(method):
    _, other = both(POOLED)
    with pytest.raises(NBDTError, match="no gradients.*occlusion or lime"):
        explain(other, batch(other), method=method)


def test_a_network_whose_maps_need_its_blocks():
    """A vision transformer's maps go through its last blocks."""
    _, other = both("vit_tiny_patch16_224")
    images = batch(other)[:1]
    with pytest.raises(NoPositionsError, match="no gradients"):
        explain(other, images, level="fast")
    (found,) = explain(other, images)
    assert found.made["method"] == PLAIN_GRID


def test_batches(tmp_path):
    _, other = both(POOLED)
    for index, photo in enumerate(photographs(40)):
        photo.save(tmp_path / f"{index}.png")
    done = explain_all(other, [str(tmp_path / "*.png")], tmp_path / "out", precision="auto")
    assert (done.images, done.failed) == (3, 0)
    record = json.loads((tmp_path / "out" / "batch.json").read_text())
    assert record["options"]["precision"] == "float32"
    assert precision_for(other, "bfloat16") == "bfloat16"


def test_records_name_the_runtime_and_a_batch_goes_on_in_the_other(tmp_path):
    """Its parts say what made each; their rows agree to the rounding of float32."""
    networks = {name: NBDT.load("imagenet", runtime=name) for name in ("onnx", "torch")}
    version = {
        "onnx": f"onnxruntime {onnxruntime.__version__}",
        "torch": f"torch {torch.__version__}",
    }
    for index, photo in enumerate(photographs(260, 2)):
        photo.save(tmp_path / f"{index}.png")
    for number, (name, model) in enumerate(networks.items(), start=1):
        (found,) = explain(model, tmp_path / "0.png", level="fast")
        assert found.made["runtime"] == version[name]
        made = found.made["versions"]
        assert made == {"nbdt": nbdt.__version__, "torch": torch.__version__}
        explain_all(
            model, [str(tmp_path / "*.png")], tmp_path / "out",
            part_size=1, shard=(number, 2), precision="float32",
        )  # fmt: skip
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {one["runtime"] for one in manifest["made"]} == {*version.values()}
    done = explain_all(
        networks["torch"], [str(tmp_path / "*.png")], tmp_path / "out",
        part_size=1, precision="float32",
    )  # fmt: skip
    assert (done.repeated, done.missing_parts) == (2, 0)


def test_autocast_and_weights_that_change_are_recorded_as_torch():
    model = NBDT.load("imagenet", runtime="onnx")
    assert made_on(model, "float32")["runtime"].startswith("onnxruntime ")
    assert made_on(model, "bfloat16")["runtime"].startswith("torch ")
    with torch.no_grad():
        model.backbone.conv_stem.weight.mul_(1)
    assert made_on(model, "float32")["runtime"].startswith("torch ")


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_that_runs_a_network_lets_its_runtime_be_chosen(name):
    """`train` and `compress` need torch; an export is for other programs."""
    only_weights = {
        "convert",
        "induce",
        "refit",
        "strike",
        "take-back",
        "relabel",
        "restore",
        "info",
    }
    only_weights |= {"list", "versions", "split", "merge", "new-group", "review", "train"}
    command = typer.main.get_command(importlib.import_module(f"nbdt.{COMMANDS[name][0]}").app)
    for leaf, one in getattr(command, "commands", {name: command}).items():
        options = {option: p.help for p in one.params for option in p.opts}
        takes_model = {"model", "--model", "small"} & {*options}
        needs = takes_model and leaf not in only_weights | {"export", "compress"}
        assert ("--runtime" in options) == bool(needs), leaf
        assert not needs or options["--runtime"] == RUNTIME_HELP


def test_memory_and_evidence(tmp_path):
    _, other = both(POOLED)
    photos = photographs(other.preprocess.size, 8)
    memory = make_memory(other, tmp_path / "memory")
    for name, photo in zip(other.hierarchy.classes, photos, strict=True):
        memory.add([photo], name)
    found = explain(other, photos[:1], evidence=memory, level="fast")[0]
    assert found.evidence


def test_an_audit_randomises_the_head_alone():
    _, other = both(POOLED)
    found = audit(other, batch(other, 2), methods=["grad-cam"], checked=1)
    stages = [name for name in found.methods["grad-cam"].values if name.endswith("head")]
    assert stages
    assert not [name for name in found.methods["grad-cam"].values if name.endswith("all")]
    assert any("the last layer" in said for said in findings(found.methods, 30))


def test_the_default_model_keeps_its_sharp_maps(imagenet):
    """torch gives its gradients, ONNX Runtime everything else."""
    plain = NBDT.load("imagenet", runtime="torch")
    photos = photographs(260, 1)
    found, expected = (explain(m, photos) for m in (imagenet, plain))
    assert_same_maps(found, expected)
    assert "integrated gradients" in found[0].made["method"]
    assert found[0].made["passes"] == expected[0].made["passes"]
    assert [t and t.regions for t in found[0].tested] == [
        t and t.regions for t in expected[0].tested
    ]


@pytest.mark.data
def test_every_decision_of_the_default_model_is_torchs(imagenet, data_dir):
    """All 367 of the tree on 65 photographs, wherever the margin exceeds float32's rounding."""
    from nbdt.images.labelled import LabelledImages

    plain = NBDT.load("imagenet", runtime="torch")
    sources = [*LabelledImages(data_dir / "imagenet_val650_227.tar", plain.hierarchy)][::10]
    images = torch.stack([plain.preprocess(source.open()) for source in sources])
    with torch.inference_mode():
        a, b = (model.logits(images) for model in (imagenet, plain))
        rules = plain.head.rules
        assert not torch.equal(a, b)  # two runtimes
        assert torch.equal(a.argmax(1), b.argmax(1))
        assert torch.equal(rules.hard(a), rules.hard(b))
        found, expected = rules.log_probs(a), rules.log_probs(b)
    assert (found - expected).abs().max() < 1e-4
    compared = 0
    for children in filter(None, plain.hierarchy.children):
        best, second = expected[:, children].topk(2, dim=1).values.T
        clear = best - second > 2e-4
        chosen, torchs = (values[:, children].argmax(1) for values in (found, expected))
        assert torch.equal(chosen[clear], torchs[clear])
        compared += int(clear.sum())
    assert compared > 0.999 * len(images) * len(plain.hierarchy.inner_nodes)
