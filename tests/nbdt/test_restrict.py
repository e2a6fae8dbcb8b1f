"""Models that answer only with classes that can occur."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import NBDT, DecisionRules, NBDTError
from nbdt.decide.head import NBDTHead
from nbdt.model.restrict import allowed_classes, pruned, read_names, restricted
from tests import oracle


def head(tree, rule="marginal"):
    torch.manual_seed(0)
    return NBDTHead(6, tree, rule=rule).eval()


@given(oracle.trees(), st.sampled_from(oracle.RULES), st.data())
def test_the_rest_is_renormalised(tree, rule, data):
    names = data.draw(st.lists(st.sampled_from(tree.classes), min_size=2, unique=True))
    whole = head(tree, rule)
    part, _, removed = restricted(whole, {}, names)
    assert set(part.hierarchy.classes) == set(names)
    assert set(removed) == set(tree.classes) - set(names)
    assert [c for c in tree.classes if c in set(names)] == list(part.hierarchy.classes)
    features = torch.randn(3, 6)
    columns = [tree.classes.index(name) for name in part.hierarchy.classes]
    logits = whole.logits(features)[:, columns]
    torch.testing.assert_close(part.logits(features), logits)
    if rule == "marginal":
        full = whole(features)[:, columns]
        torch.testing.assert_close(part(features), full - full.logsumexp(1, keepdim=True))
    expected = oracle.leaf_log_probs(part.hierarchy, logits.detach().double().numpy(), rule)
    torch.testing.assert_close(
        part(features).double(), torch.tensor(expected), atol=1e-5, rtol=1e-5
    )


def test_groups_are_named_by_their_classes_ancestor():
    tree = oracle.zoo()
    part, _, removed = restricted(head(tree), {}, ["Bird", "tool"])
    assert set(part.hierarchy.classes) == {"heron", "crane", "saw", "axe", "awl"}
    assert set(removed) == {"rock", "cat", "eel", "m", "n"}
    names = {part.hierarchy.names[node] for node in part.hierarchy.inner_nodes}
    assert names == {"thing", "bird", "tool"}  # "animal" had the single child "bird"


def test_overlapping_names_are_allowed_once():
    tree = oracle.zoo()
    assert allowed_classes(tree, ["bird", "heron"]) == allowed_classes(tree, ["bird"])


def test_order_and_hash_do_not_depend_on_the_order_of_names():
    tree = oracle.zoo()
    there, back = (
        pruned(tree, allowed_classes(tree, names)) for names in (["saw", "cat"], ["cat", "saw"])
    )
    assert there == back


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["herron", "cat"], "herron.*heron"),
        (["cat", "CAT "], "twice.*cat"),
        (["m", "m", "n"], "twice.*m"),
        (["cat"], "at least two allowed classes, got 1"),
        ([], "at least two allowed classes, got 0"),
    ],
)
def test_lists_that_cannot_be_meant(names, message):
    with pytest.raises(NBDTError, match=message):
        allowed_classes(oracle.zoo(), names)


def test_names_from_a_file_or_a_text(tmp_path):
    assert read_names("cat, house cat ,dog") == ["cat", "house cat", "dog"]
    (tmp_path / "names.txt").write_text("\ufeffcat  # ours\n\nhouse cat\n", encoding="utf-8")
    assert read_names(str(tmp_path / "names.txt")) == ["cat", "house cat"]
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for given_, message in (
        (str(tmp_path / "empty.txt"), "names no class"),
        (str(tmp_path / "binary.txt"), "not UTF-8"),
        (str(tmp_path / "missing.txt"), "no file"),
        (" , ", "names no class"),
    ):
        with pytest.raises(NBDTError, match=message):
            read_names(given_)


def test_the_reference_set_is_restricted_with_the_model(cifar10, tmp_path):
    part = cifar10.restrict(["vehicle", "cat", "dog"])
    tree = part.hierarchy
    assert tree.classes == ("airplane", "automobile", "cat", "dog", "ship", "truck")
    labels = [cifar10.hierarchy.classes[i] for i in cifar10.reference["labels"].tolist()]
    kept = [label for label in labels if label in tree.classes]
    assert [tree.classes[i] for i in part.reference["labels"].tolist()] == kept
    assert part.provenance["removed_classes"] == ["bird", "deer", "frog", "horse"]
    flat = part.reference["logits"].float().argmax(1) == part.reference["labels"].long()
    assert float(flat.double().mean()) > 0.93  # fewer classes to confuse
    part.save(tmp_path / "part")
    again = NBDT.load(tmp_path / "part")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(again(images), part(images))
    assert again.answer(images)[0].accuracy == 0.95


def test_a_model_that_is_restricted_twice_knows_all_that_is_gone(cifar10):
    once = cifar10.restrict(["vehicle", "cat", "dog"])
    twice = once.restrict(["cat", "ship", "truck"])
    gone = set(cifar10.hierarchy.classes) - {"cat", "ship", "truck"}
    assert set(twice.provenance["removed_classes"]) == gone
    assert len(twice.reference["removed.weight"]) == len(gone)


def test_classes_whose_names_differ_in_case_alone_can_be_allowed():
    from nbdt import Hierarchy

    tree = Hierarchy.from_paths(["all/Polish", "all/polish", "all/wax"])
    allowed = allowed_classes(tree, ["Polish", "wax"])
    assert [tree.classes[index] for index in allowed] == ["Polish", "wax"]


def test_a_restricted_model_in_onnx_runtime(cifar10, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    from nbdt.model.export import export

    part = cifar10.restrict(["vehicle", "cat", "dog"])
    written = export(part, tmp_path / "part.onnx", format="onnx", accuracy=0.95)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    session = runtime.InferenceSession(str(tmp_path / "part.onnx"))
    assert {"log_probs", "answer"} < {*written.outputs}
    log_probs, nodes = session.run(["log_probs", "answer"], {"images": images.numpy()})
    with torch.inference_mode():
        expected, answers = part(images), part.answer(images)
    torch.testing.assert_close(torch.tensor(log_probs), expected, atol=1e-4, rtol=1e-4)
    assert [part.hierarchy.ids[index] for index in nodes] == [a.node for a in answers]


def test_the_models_answers_are_those_of_its_head(cifar10):
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        given_ = cifar10.answer(images, accuracy=0.99)
        logits = cifar10.logits(images)
    rules = DecisionRules(cifar10.hierarchy, rule=cifar10.rule)
    for answer, row in zip(given_, rules(logits), strict=True):
        assert answer.path.class_index == int(row.argmax())
        assert answer.unknown in (True, False)
    tree = cifar10.hierarchy
    leaves = cifar10.answer(images, accuracy=None)
    assert all(answer.name in tree.classes and answer.accuracy is None for answer in leaves)


def test_an_edited_tree_has_thresholds_of_its_own(cifar10):
    from nbdt import Hierarchy

    flat = Hierarchy.from_paths([f"all/{name}" for name in cifar10.hierarchy.classes])
    other = cifar10.with_hierarchy(flat)
    assert other.calibration is not None
    assert not torch.equal(other.calibration.critical, cifar10.calibration.critical)
    assert math.isfinite(other.calibration.threshold(0.95))
