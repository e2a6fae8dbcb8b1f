"""Calibration on somebody's own photographs: what it fits, what it refuses, what it writes."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, DecisionRules, Hierarchy, NBDTError
from nbdt.hierarchies.measure.answers import TARGETS
from nbdt.hierarchies.measure.calibrate import (
    PROMISE,
    app,
    calibrate,
    classes_of_group,
    cross_conformal,
    fitted_temperature,
)
from nbdt.hierarchies.measure.logits import Logits, class_logits
from tests import oracle

CLASSES = ["cat", "dog", "car", "bus", "grey_wolf"]
TREE = Hierarchy.from_nested(
    {"animal": ["cat", {"canine": ["dog", "grey_wolf"]}], "vehicle": ["car", "bus"]}, CLASSES
)


def drawn(tree, count, seed, temperature=1.0):
    """Logits and labels of a classifier that needs this temperature."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(count, tree.num_classes, generator=generator)
    return temperature * z, z.softmax(1).multinomial(1, generator=generator)[:, 0]


def loss(rules, logits, labels, temperature):
    """Cross-entropy of "the first answer is right" with Platt's targets, an image at a time."""
    rows = []
    for z, label in zip(logits.double().numpy(), labels.tolist(), strict=True):
        log_probs = oracle.leaf_log_probs(rules.hierarchy, z[None] / temperature, rules.rule)[0]
        best = int(np.argmax(log_probs))
        rows.append((min(math.exp(log_probs[best]), 1), best == label))
    hits = sum(right for _, right in rows)
    wanted = {True: (hits + 1) / (hits + 2), False: 1 / (len(rows) - hits + 2)}
    total = 0.0
    for chance, right in rows:
        target = wanted[right]
        total -= target * math.log(chance) + (1 - target) * math.log(max(1 - chance, 1e-40))
    return total / len(rows)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_the_temperature_has_the_smallest_loss(rule):
    rules = DecisionRules(oracle.zoo(), rule=rule)
    z, _ = drawn(rules.hierarchy, 80, seed=1)
    labels = rules(z).exp().multinomial(1, generator=torch.Generator().manual_seed(1))[:, 0]
    z *= 1.7
    found = fitted_temperature(rules, z, labels)
    best = loss(rules, z, labels, found)
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert best <= loss(rules, z, labels, found * factor) + 1e-6


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    rules = DecisionRules(oracle.zoo(), rule="marginal")
    z, labels = drawn(rules.hierarchy, 6000, seed=2, temperature=temperature)
    assert fitted_temperature(rules, z, labels) == pytest.approx(temperature, rel=0.08)


def test_photographs_that_are_all_right_do_not_make_it_certain():
    rules = DecisionRules(oracle.zoo(), rule="marginal")
    z, _ = drawn(rules.hierarchy, 30, seed=3)
    labels = z.argmax(1)
    assert fitted_temperature(rules, z, labels) > 0.3  # without Platt's targets e⁻², the bound


def test_cross_conformal_coverage_is_what_was_asked_for():
    tree = oracle.random_tree(30, seed=4, arity=(2, 5))
    rules = DecisionRules(tree, rule="marginal")
    z, labels = drawn(tree, 3000, seed=5, temperature=2.0)
    found = cross_conformal(rules, z, labels, labels >= 0)
    for target in TARGETS:
        assert found[target][0].right == pytest.approx(target, abs=0.01)
    assert found[0.9][0].information > found[0.99][0].information


def test_each_side_of_a_group_has_the_coverage_that_was_asked_for():
    tree = oracle.random_tree(30, seed=4, arity=(2, 5))
    rules = DecisionRules(tree, rule="marginal")
    z, labels = drawn(tree, 3000, seed=5)
    group = classes_of_group(tree, tree.ids[tree.children[0][0]])
    noisy = group[labels]  # in the group most labels are wrong
    draw = torch.Generator().manual_seed(6)
    wrong = torch.randint(0, 30, (3000,), generator=draw)
    labels[noisy] = torch.where(torch.rand(3000, generator=draw) < 0.5, wrong, labels)[noisy]
    one, two = (cross_conformal(rules, z, labels, labels >= 0, g) for g in (None, group))
    assert one[0.9][1] == []
    for target in (0.9, 0.95):
        assert two[target][1] == pytest.approx([target, target], abs=0.02)


# ---- a model ----


@pytest.fixture
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", TREE, rule="marginal").eval()


def photograph(path, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


@pytest.fixture
def data(tmp_path):
    """24 photographs: five of each of four classes, four of a group."""
    for place, name in enumerate(["cat", "Dog", "CAR", "Grey Wolf", "Vehicle"]):
        for number in range(4 if name == "Vehicle" else 5):
            photograph(tmp_path / "data" / name / f"{number}.png", 10 * place + number)
    return tmp_path / "data"


def test_a_calibrated_model_has_the_photographs_as_its_reference_set(model, data):
    photographs = class_logits(model, data)
    facts = calibrate(model, photographs)
    again = class_logits(model, data)
    torch.testing.assert_close(
        model.reference["logits"].float(), again.logits, rtol=2e-3, atol=2e-3
    )
    torch.testing.assert_close(again.logits * facts["temperature"], photographs.logits)
    assert len(model.calibration) == facts["images"] == 24
    assert facts["labelled_with_groups"] == 4
    assert facts["classes"] == 4
    assert model.provenance["calibration"] == facts
    for row in facts["targets"]:
        assert row["spread"] == model.calibration.spread(row["target"])


def test_a_group_as_label_becomes_the_likeliest_class_in_it(model):
    z, labels = drawn(TREE, 40, seed=6)
    given = labels.clone()
    given[:10] = -1 - TREE.index("vehicle")
    files = tuple(map(str, range(40)))
    calibrate(model, Logits(files, given, z, ()))
    found = model.reference["labels"].long()
    assert torch.equal(found[10:], labels[10:])
    vehicles = torch.tensor([CLASSES.index("car"), CLASSES.index("bus")])
    assert torch.equal(found[:10], vehicles[z[:10, vehicles].argmax(1)])


def test_twenty_photographs_are_enough(model):
    z, labels = drawn(TREE, 20, seed=8)
    facts = calibrate(model, Logits(("a",) * 20, labels, z, ()))
    assert model.answer(torch.zeros(1, 3, 8, 8), 0.99)[0].node == TREE.ids[0]
    assert facts["targets"][-1]["root"] == 1  # what 20 photographs can promise at 99 %


def test_a_group_has_thresholds_of_its_own_which_are_saved(model, tmp_path):
    z, labels = drawn(TREE, 300, seed=9)
    labels[z.argmax(1) >= 3] = 0  # among vehicles and wolves many answers are wrong
    facts = calibrate(model, Logits(("a",) * 300, labels, z, ()), "animal")
    assert facts["group"]["name"] == "animal"
    assert facts["group"]["images"] + facts["group"]["others"] == 300
    model.save(tmp_path / "m")
    loaded = NBDT.load(tmp_path / "m").calibration
    assert loaded.group_name == "animal"
    leaves = torch.tensor([0, 2])
    limits = loaded.thresholds(0.8, leaves)
    assert limits[0] != limits[1]
    assert torch.equal(limits, model.calibration.thresholds(0.8, leaves))
    part = model.restrict(["animal", "bus"]).calibration
    assert part.group.tolist() == [True, True, False, True]
    flat = Hierarchy.from_nested({"things": CLASSES[:3], "rest": CLASSES[3:]}, CLASSES)
    assert model.with_hierarchy(flat).calibration.group_name == "3 classes such as cat"


@pytest.mark.parametrize("name", ["wolf pack", "cat", TREE.ids[0]])
def test_what_is_no_group_of_some_classes_is_refused(name):
    with pytest.raises(NBDTError, match="no node|it is a class|it is the root"):
        classes_of_group(TREE, name)


def test_a_side_with_few_photographs_is_refused_and_nothing_changes(model):
    z, labels = drawn(TREE, 100, seed=7)
    z[:85, 2:4] -= 30  # no vehicle is likely but in fifteen photographs
    z[85:, 2] += 30
    before = model.head.linear.weight.clone()
    with pytest.raises(NBDTError, match="either side of the group 'vehicle', got 15 .* 85 others"):
        calibrate(model, Logits(("a",) * 100, labels, z, ()), "vehicle")
    assert torch.equal(model.head.linear.weight, before)
    assert not model.reference


def test_few_photographs_are_refused(model):
    z, labels = drawn(TREE, 19, seed=7)
    before = model.head.linear.weight.clone()
    with pytest.raises(NBDTError, match="at least 20 labelled photographs.* got 19"):
        calibrate(model, Logits(("a",) * 19, labels, z, ()))
    assert torch.equal(model.head.linear.weight, before)
    assert not model.reference


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_writes_a_new_model_and_says_what_to_expect(model, data, tmp_path):
    model.save(tmp_path / "model")
    (data / "cat" / "bad.png").write_bytes(b"no image")
    out = tmp_path / "new"
    found = invoke(tmp_path / "model", "--data", data, "--out", out)
    assert found.exit_code == 3, found.output
    assert "bad.png" in found.stderr
    assert "24 photographs are few" in found.stderr
    assert PROMISE in found.stdout
    loaded = NBDT.load(out)
    facts = loaded.provenance["calibration"]
    assert f"temperature {facts['temperature']:.3f}" in found.stdout
    assert len(loaded.calibration) == 24
    images = torch.randn(3, 3, loaded.preprocess.size, loaded.preprocess.size)
    expected = model.logits(images) / facts["temperature"]
    torch.testing.assert_close(loaded.logits(images), expected, rtol=1e-4, atol=1e-5)
    assert all(answer.accuracy == 0.8 for answer in loaded.answer(images, 0.8))
    again = invoke(tmp_path / "model", "--data", data, "--out", out)
    assert "exists already" in str(again.exception)


def test_unknown_labels_are_listed_and_nothing_is_written(model, data, tmp_path):
    model.save(tmp_path / "model")
    photograph(data / "tiger" / "x.png", 99)
    photograph(data / "vehicel" / "x.png", 98)
    found = invoke(tmp_path / "model", "--data", data, "--out", tmp_path / "new")
    assert isinstance(found.exception, NBDTError)
    for word in ("'tiger'", "'vehicel'", "classes or groups"):
        assert word in str(found.exception)
    assert not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
