"""What striking a photograph out would do: as a fit from nothing without it, and nothing written."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nbdt.decide.head import DecisionRules
from nbdt.errors import NBDTError
from nbdt.images.sources import ImageSource
from nbdt.memory import refit
from nbdt.memory.fit import Design
from nbdt.memory.memory import Memory
from nbdt.memory.preview import Change, effect_of, preview
from nbdt.memory.refit import balanced
from nbdt.memory.table import Table
from nbdt.model.features import Features
from nbdt.tree.labels import classes_below
from tests import oracle

TREE = oracle.family()
WIDTH = 12


def drawn(seed, a_class=8):
    draw = torch.Generator().manual_seed(seed)
    middles = 0.7 * torch.randn(TREE.num_classes, WIDTH, generator=draw)
    place = torch.arange(TREE.num_classes).repeat(a_class)
    return middles[place] + torch.randn(len(place), WIDTH, generator=draw), place


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    place = str(tmp_path_factory.mktemp("memory") / "rows")
    features, labels = drawn(0)
    count = len(labels)
    sources = [ImageSource(f"{n}.jpg", None, lambda: None) for n in range(count)]
    keys = [n.to_bytes(32, "big") for n in range(count)]
    found = Features(features, sources, range(count), keys, [None] * count, ())
    made = Memory(Table.create(place, WIDTH, {}), TREE, None, None)
    made.insert(found, [TREE.classes[int(n)] for n in labels])
    return made


@pytest.fixture(scope="module", params=oracle.RULES)
def rules(request):
    return DecisionRules(TREE, rule=request.param)


@pytest.fixture(scope="module")
def fitted(memory, rules):
    return memory.fit(rules, None, choose=True)


def state(memory):
    files = sorted(path for path in Path(memory.table.place).rglob("*") if path.is_file())
    return memory.version, [(path.name, path.stat().st_size) for path in files]


def test_the_effect_is_that_of_a_cold_fit_without_the_photograph(memory, rules, fitted):
    before = state(memory)
    found = effect_of(memory, rules, fitted, [Change(memory.rows.ids[3])])
    assert state(memory) == before  # no version, no head, no file
    rows = memory.rows
    others = preview(memory, [Change(rows.ids[3])]).examples(rules)
    cold = Design(others.features).fit(others.targets, fitted.fit.strength)
    assert len(others.features) == len(rows) - 1
    after, cold, now = (
        fit.logits(others.features).softmax(dim=1) for fit in (found.after.fit, cold, fitted.fit)
    )
    assert torch.allclose(after, cold, atol=1e-5)
    assert not torch.allclose(after, now, atol=1e-4)


def test_a_float64_optimiser_finds_the_same_answer_without_the_photograph(memory):
    from scipy.optimize import minimize

    rules = DecisionRules(TREE, rule="marginal")
    fitted = memory.fit(rules, None, choose=True)
    found = effect_of(memory, rules, fitted, [Change(memory.rows.ids[5])])
    examples = found.memory.examples(rules)
    x = (examples.features - found.after.fit.center).double()
    weights = balanced(examples.labels, TREE.num_classes, classes_below(TREE)).weights.double()
    shape = TREE.num_classes, WIDTH

    def value(flat):
        flat = torch.from_numpy(flat).requires_grad_()
        w, b = flat[: -shape[0]].reshape(shape), flat[-shape[0] :]
        losses = torch.nn.functional.cross_entropy(x @ w.T + b, examples.labels, reduction="none")
        total = losses @ weights + w.square().sum() / (2 * fitted.fit.strength)
        total.backward()
        return total.item(), flat.grad.numpy()

    best = minimize(value, np.zeros(shape[0] * (WIDTH + 1)), jac=True, options={"gtol": 1e-9}).x
    w, b = torch.from_numpy(best[: -shape[0]]).reshape(shape), torch.from_numpy(best[-shape[0] :])
    query = torch.randn(WIDTH, generator=torch.Generator().manual_seed(7))
    logits = ((query - found.after.fit.center).double() @ w.T + b) * found.after.factor
    (expected,) = rules.paths(logits[None])
    _, after = found.paths(rules, query)
    assert after.class_name == expected.class_name
    assert np.allclose([d.probability for d in after], [d.probability for d in expected], atol=1e-3)


def test_accuracy_and_changed_answers_are_of_the_photographs_that_stay(memory, rules, fitted):
    ids = memory.rows.ids[:6]
    found = effect_of(memory, rules, fitted, [Change(key) for key in ids])
    assert found.photographs == len(memory) - 6
    labels = found.after.labels
    right = rules(found.after.logits.float()).argmax(dim=1) == labels
    assert found.accuracy[1] == pytest.approx(float(right.float().mean()))
    for one in found.changed:
        assert one.before != one.after
        assert one.row not in ids


def test_of_a_sampled_memory_those_count_that_both_samples_have(memory, rules, monkeypatch):
    monkeypatch.setattr(refit, "MOST", 6 * TREE.num_classes)  # of eight a class
    sampled = Memory(memory.table, TREE, None, None)
    fitted = sampled.fit(rules, None, choose=True)
    row = memory.rows.ids[0]
    label = next(name for name in TREE.classes if name != memory.rows.labels[0])
    found = effect_of(sampled, rules, fitted, [Change(row, label)])
    places = [one.examples(rules).places.tolist() for one in (sampled, found.memory)]
    both = {*places[0]} & {*places[1]} - {0}
    assert found.photographs == len(both) == len(places[0]) - 2  # it and one other
    rest = [n for n, place in enumerate(places[1]) if place in both]
    right = rules(found.after.logits[rest].float()).argmax(dim=1) == found.after.labels[rest]
    assert found.accuracy[1] == pytest.approx(float(right.float().mean()))


def test_another_label_changes_the_answer_at_the_photograph(memory, rules, fitted):
    row = 4
    features = torch.from_numpy(memory.rows.features[row]).float()
    label = next(name for name in TREE.classes if name != memory.rows.labels[row])
    found = effect_of(memory, rules, fitted, [Change(memory.rows.ids[row], label)])
    index = TREE.classes.index(label)
    before, after = (
        float(rules((head.weight @ features + head.bias)[None]).exp()[0, index])
        for head in (found.before, found.after)
    )
    assert after > before


def test_an_unknown_label_is_refused(memory, rules, fitted):
    with pytest.raises(NBDTError, match="no such class"):
        effect_of(memory, rules, fitted, [Change(memory.rows.ids[1], "no such class")])


def test_a_class_that_would_lose_its_photographs_is_named(memory, rules, fitted):
    gone = TREE.classes[1]
    ids = [key for key, label in zip(memory.rows.ids, memory.rows.labels, strict=True)
           if label == gone]  # fmt: skip
    with pytest.raises(NBDTError, match=gone):
        effect_of(memory, rules, fitted, [Change(key) for key in ids])


def test_a_preview_cannot_be_written(memory):
    other = preview(memory, [Change(memory.rows.ids[0])])
    with pytest.raises(NBDTError, match="preview"):
        other.strike(memory.rows.ids[1], "why")
    assert memory.rows.active.all()
