"""Exported models against the model itself, in ONNX Runtime and torch.export."""

import json
import math
import sys
from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from nbdt import NBDT, DecisionRules, Hierarchy, NBDTError
from nbdt.__main__ import main
from nbdt.decide.answer import Calibration, answers
from nbdt.decide.maps import log_odds_coefficients, node_maps
from nbdt.model.export import ExportedModel, export
from nbdt.model.exported import ExportedAnswer, ExportedTree
from nbdt.model.fingerprint import model_hash
from nbdt.runtime.convert import KINDS
from tests import oracle
from tests.in_onnx import batch, in_onnx, made

ort = pytest.importorskip("onnxruntime")
RAGGED = Hierarchy.from_paths(["a/b/c/x", "a/b/c/y", "a/b/z", "a/q", "d/e", "d/f", "d/g", "h"])
TREES = [RAGGED, oracle.caterpillar(12), oracle.star(30), oracle.family()]


def logits_for(tree, scale):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(4, tree.num_classes, generator=generator)


def log_odds(logits, h, rule):
    """Float64, in plain torch: the log-odds of every node but the root."""
    columns = []
    for node in range(1, h.num_nodes):
        score = {
            child: logits[:, h.classes_under(child)].mean(1)
            if rule == "representative"
            else logits[:, h.classes_under(child)].logsumexp(1)
            for child in h.children[h.parents[node]]
        }
        others = torch.stack([value for child, value in score.items() if child != node])
        columns.append(score[node] - others.logsumexp(0))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("h", TREES, ids=repr)
@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
def test_the_tree_in_plain_operations_is_the_tree(h, rule, scale):
    logits = logits_for(h, scale)
    tree = ExportedTree(h, rule)
    rules = DecisionRules(h, rule=rule)
    decisions = tree.decisions(tree.scores(logits))
    assert torch.allclose(decisions.double(), rules.log_probs(logits), atol=1e-4)
    assert torch.allclose(tree.log_probs(logits, decisions), rules(logits), atol=1e-4)


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("h", TREES, ids=repr)
@pytest.mark.parametrize("scale", [0.0, 1.0, 40.0])
def test_maps_are_the_gradients_of_log_odds(h, rule, scale):
    """With the class maps for gradients' direction: sum_k d(log-odds)/dz_k map_k, by autograd."""
    logits = logits_for(h, scale)
    class_maps = torch.randn(4, h.num_classes, 2, 3)
    tree = ExportedTree(h, rule)
    found = tree.log_odds_maps(class_maps, logits, tree.scores(logits))
    assert not found[:, 0].any()
    slow = torch.func.vmap(torch.func.jacrev(lambda row: log_odds(row[None], h, rule)[0]))(
        logits.double()
    )
    expected = torch.einsum("bnk,bkhw->bnhw", slow, class_maps.double())
    assert torch.allclose(found[:, 1:].double(), expected, atol=1e-4)


def make(architecture, rule, h=RAGGED):
    torch.manual_seed(0)
    model = NBDT.from_timm(architecture, h, rule=rule).eval()
    with torch.no_grad():
        model.head.linear.weight.mul_(20)
    return model


def expected_outputs(model, images):
    with torch.no_grad():
        feature_map = model.feature_map(images)
        logits = model.head.linear(model.pool(feature_map))
        nodes = torch.arange(1, model.hierarchy.num_nodes).expand(len(images), -1)
        tree = model.head.rules.tree
        coefficients = log_odds_coefficients(logits.double(), nodes, tree, model.rule)
        weight = model.head.linear.weight.double()
        answers = [model(images), model.head.rules.log_probs(logits)]
        if feature_map.ndim == 4 and feature_map.shape[1] == weight.shape[1]:
            answers.append(node_maps(feature_map.double(), weight, coefficients))
    return [answer.numpy() for answer in answers]


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize(
    ("architecture", "maps"),
    [("small_convnet", True), ("resnet18,size=64", True), ("convnext_atto,size=64", False)],
)
def test_onnx_runtime_gives_the_models_answers_at_any_batch(architecture, maps, rule, tmp_path):
    model = make(architecture, rule)
    written = export(model, tmp_path / "model.onnx", format="onnx")
    assert written.outputs == ("log_probs", "decisions", "maps")[: 3 if maps else 2]
    assert bool(written.why_no_maps) != maps
    session = ort.InferenceSession(tmp_path / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert Hierarchy.from_json(about["hierarchy"]) == model.hierarchy
    assert json.loads(about["classes"]) == list(model.hierarchy.classes)
    assert json.loads(about["preprocessing"])["size"] == model.preprocess.size
    for count in (1, 3):
        images = torch.randn(count, 3, model.preprocess.size, model.preprocess.size)
        answers = session.run(None, {"images": images.numpy()})
        expected = expected_outputs(model, images)
        assert np.abs(answers[0] - expected[0]).max() < 1e-4
        assert np.abs(answers[1] - expected[1]).max() < 1e-4
        if maps:
            assert np.abs(answers[2][:, 1:] - expected[2]).max() < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def initializers(path):
    kinds = Counter()
    for weight in onnx.load(path).graph.initializer:
        kinds[weight.data_type] += math.prod(weight.dims)
    return kinds


@pytest.mark.parametrize("to", KINDS)
def test_a_compressed_model_is_exported_as_it_is(to, tmp_path):
    """The head stays in float32, or keeps the int8 that it is stored in; the tree is never quantised."""
    small = in_onnx(made("resnet18,size=64"), to)
    small.save(tmp_path / "small", dtype=torch.int8 if to == "int8" else None)
    model = NBDT.load(tmp_path / "small")
    written = export(model, tmp_path / "m.onnx", format="onnx")
    assert written.outputs == ("log_probs", "decisions", "maps")
    session = ort.InferenceSession(tmp_path / "m.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert about["model_hash"] == model_hash(model) != model_hash(made("resnet18,size=64"))
    for images in batch(model, 4).split([1, 3]):
        answers = session.run(None, {"images": images.numpy()})
        for answer, expected in zip(answers, expected_outputs(model, images), strict=True):
            found = answer[:, 1:] if answer.ndim == 4 else answer
            assert np.abs(found - expected).max() < 1e-4
    most_common, _ = initializers(tmp_path / "m.onnx").most_common(1)[0]
    kinds = {"float32": "FLOAT", "int8": "INT8", "float16-file": "FLOAT16"}
    assert most_common == getattr(onnx.TensorProto, kinds[to])
    with pytest.raises(NBDTError, match="export it as ONNX"):
        export(model, tmp_path / "m.pt2", format="torch")


@pytest.mark.parametrize("rule", oracle.RULES)
def test_torch_export_gives_the_models_answers_at_any_batch(rule, tmp_path):
    model = make("small_convnet", rule).train()
    export(model, tmp_path / "model.pt2", format="torch")
    assert model.training
    model.eval()
    extra = {"nbdt.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["nbdt.json"])["rule"] == rule
    for count in (1, 3):
        images = torch.randn(count, 3, 32, 32)
        for answer, expected in zip(program(images), expected_outputs(model, images), strict=True):
            part = answer[:, 1:] if answer.ndim == 4 else answer
            assert np.abs(part.detach().numpy() - expected).max() < 1e-4


def test_why_there_are_no_maps():
    graph = ExportedModel(make("convnext_atto,size=64", "marginal"))
    assert "'convnext_atto,size=64' has more than an average pool" in graph.why_no_maps


def test_maps_can_be_left_out(tmp_path):
    model = make("small_convnet", "marginal")
    written = export(model, tmp_path / "model.onnx", format="onnx", maps=False)
    assert written.outputs == ("log_probs", "decisions")
    assert written.why_no_maps == "they were left out"
    session = ort.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == [*written.outputs]
    assert __file__.encode() not in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("path", "form", "message"),
    [
        ("model.onnx", "tflite", "Unknown format 'tflite'; there are onnx, web, torch"),
        ("none/model.onnx", "onnx", "There is no folder"),
        (".", "onnx", "is a folder; name a file"),
    ],
)
def test_what_cannot_be_written_is_said_first(path, form, message, tmp_path):
    with pytest.raises(NBDTError, match=message):
        export(make("small_convnet", "marginal"), tmp_path / path, format=form)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "model.pt2").write_text("old")
    monkeypatch.setattr(torch.export, "save", lambda *_args, **_kwargs: 1 / 0)
    with pytest.raises(NBDTError, match="'small_convnet' cannot be exported.*ZeroDivisionError"):
        export(make("small_convnet", "marginal"), tmp_path / "model.pt2", format="torch")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("model.pt2", "old")]


def test_without_onnx_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NBDTError, match=r"needs onnx; .*nbdt-vision\[export\]"):
        export(make("small_convnet", "marginal"), tmp_path / "model.onnx", format="onnx")


def test_the_command(tmp_path, monkeypatch, capsys):
    make("small_convnet", "representative").save(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["nbdt", "export", "mine", "--format", "torch", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "file": "mine.pt2",
        "outputs": ["log_probs", "decisions", "maps"],
        "why_no_maps": "",
    }
    assert (tmp_path / "mine.pt2").stat().st_size > 10_000


@pytest.mark.parametrize("accuracy", [0.9, 0.95, 0.99, 0.99999])
@pytest.mark.parametrize("with_group", [False, True])
def test_exported_answers_are_the_models(cifar10, accuracy, with_group):
    rules, reference = cifar10.head.rules, cifar10.reference
    group = torch.arange(10) % 2 == 0 if with_group else None
    calibration = Calibration.from_logits(
        rules, reference["logits"].float(), reference["labels"].long(), group
    )
    logits = reference["logits"][:600].float()
    log_probs, decisions = rules(logits), rules.log_probs(logits).float()
    node, chance, unknown = ExportedAnswer(cifar10.hierarchy, calibration, accuracy)(
        logits, log_probs, decisions
    )
    expected = answers(rules, logits, calibration, accuracy)
    ids = [cifar10.hierarchy.ids[index] for index in node.tolist()]
    assert ids == [answer.node for answer in expected]
    assert unknown.tolist() == [answer.unknown for answer in expected]
    assert chance.tolist() == pytest.approx([answer.probability for answer in expected], abs=1e-5)


def test_answers_in_onnx_runtime(cifar10, tmp_path):
    written = export(cifar10, tmp_path / "m.onnx", format="onnx", accuracy=0.99)
    assert {"answer", "answer_probability", "unknown"} < {*written.outputs}
    images = 2 * torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    session = ort.InferenceSession(str(tmp_path / "m.onnx"))
    names = ["answer", "answer_probability", "unknown"]
    node, chance, unknown = session.run(names, {"images": images.numpy()})
    with torch.inference_mode():
        expected = cifar10.answer(images, accuracy=0.99)
    assert [cifar10.hierarchy.ids[index] for index in node] == [a.node for a in expected]
    assert chance == pytest.approx([a.probability for a in expected], abs=1e-4)
    assert unknown.tolist() == [a.unknown for a in expected]


def test_a_model_without_calibration_exports_no_answers(tmp_path):
    with pytest.raises(NBDTError, match="not calibrated.*nbdt calibrate"):
        export(make("small_convnet", "marginal"), tmp_path / "m.onnx", format="onnx", accuracy=0.9)
    assert not list(tmp_path.iterdir())
