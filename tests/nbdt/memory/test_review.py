"""Suspicious rows: found, explained, and changed as a person says, or not at all."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from nbdt import DecisionRules, Hierarchy
from nbdt.errors import NBDTError
from nbdt.memory.attribution import Attribution
from nbdt.memory.memory import Memory
from nbdt.memory.preview import write_changes
from nbdt.memory.refit import examples_of, fit_head
from nbdt.memory.review import KEPT, parse_verdicts, suspects
from nbdt.memory.table import Rows, Table
from tests import oracle

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})


def made(labels, wrong=(), spread=0.7, seed=0, width=16):
    """Features around a centre for each label, and labels of which some are wrong."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(4, width, generator=draw)
    places = [TREE.classes.index(label) for label in labels]
    features = centres[places] + spread * torch.randn(len(labels), width, generator=draw)
    given = list(labels)
    for row in wrong:
        given[row] = TREE.classes[(places[row] + 1) % 4]
    return features, tuple(given)


def rows_of(features, labels, why=None):
    ids = tuple(f"{n:064x}" for n in range(len(features)))
    text, names = ("",) * len(ids), tuple(f"{n}.png" for n in range(len(ids)))
    active = np.ones(len(ids), bool)
    return Rows(
        ids, features.half().numpy(), labels, names, text, why or text, active, text, 1
    )  # fmt: skip


def ranked(rows, rule="marginal"):
    rules = DecisionRules(TREE, rule=rule)
    examples = examples_of(rows, rules)
    fitted = fit_head(examples, rules)
    return suspects(rows, Attribution(fitted, examples, rules)), fitted, examples


@pytest.mark.parametrize("rule", oracle.RULES)
def test_planted_labels_come_first_with_the_probability_of_the_reference(rule):
    wrong = (3, 10, 21, 37)
    features, labels = made(TREE.classes * 10, wrong)
    labels = (*labels[:39], TREE.ids[TREE.index("cold")])  # the last is green, as a group
    found, fitted, _ = ranked(rows_of(features, labels), rule)
    assert {int(one.id, 16) for one in found[:4]} == {*wrong}
    assert len(found) == 40
    for one in found[:4]:
        assert any(TREE.names[TREE.index(one.says)] in reason for reason in one.reasons)
    logs = oracle.leaf_log_probs(TREE, fitted.logits.double().numpy(), rule)
    for one in found:
        leaves = logs[int(one.id, 16)]
        under = TREE.classes_under(TREE.index(one.label))
        assert one.probability == pytest.approx(sum(np.exp(leaves[c]) for c in under), abs=1e-3)
        others = {TREE.classes[c]: np.exp(leaves[c]) for c in range(4) if c not in under}
        assert one.says_probability == pytest.approx(max(others.values()), abs=1e-3)
        assert others[one.says] == pytest.approx(max(others.values()), abs=1e-3)


def test_copies_with_two_labels_are_named_and_kept_rows_are_left_out():
    features, labels = made(TREE.classes * 10)
    features[5] = features[4] + 1e-3  # row 5 is orange, row 4 red
    why = ["", ""] * 20
    found, _, _ = ranked(rows_of(features, labels))
    said = {int(one.id, 16): " ".join(one.reasons) for one in found}
    assert "nearly the same as 5.png, which is labelled orange" in said[4]
    assert "nearly the same as 4.png, which is labelled red" in said[5]
    why[5] = KEPT
    assert 5 not in {int(one.id, 16) for one in ranked(rows_of(features, labels, tuple(why)))[0]}


def test_a_row_far_from_its_label_is_unlike_the_others():
    features, labels = made(TREE.classes * 15, spread=0.3)
    features[8] = -features[8]
    found, fitted, examples = ranked(rows_of(features, labels))
    unlike = {int(one.id, 16) for one in found if "unlike" in " ".join(one.reasons)}
    unit = (examples.features - fitted.fit.center).double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    near = np.empty(60)
    for label in range(4):
        own = range(label, 60, 4)
        for n in own:
            near[n] = oracle.cosine(sum(unit[m] for m in own if m != n), unit[n])
        near[label::4] -= sorted(near[label::4])[7]
    low, high = np.quantile(near, [0.25, 0.75])
    assert 8 in unlike
    assert unlike == {*np.flatnonzero(near < low - 3 * (high - low)).tolist()}


def test_the_row_that_misleads_has_the_largest_part_of_the_sum():
    features, labels = made(TREE.classes * 12, wrong=(6, 7), spread=1.2, seed=2)
    rules = DecisionRules(TREE, rule="marginal")
    found, fitted, examples = ranked(rows_of(features, labels))
    attribution = Attribution(fitted, examples, rules)
    centred = (examples.features - fitted.fit.center).double().tolist()
    expected = Counter()
    for one in found:
        row = int(one.id, 16)
        near = sorted(range(48), key=lambda n: -oracle.cosine(centred[n], centred[row]))
        support = sum(labels[n] == labels[row] for n in near if n != row and n in near[:6])
        if one.says_probability < one.probability or support <= 2:
            continue
        wrong, right = (TREE.path_to(TREE.index(node)) for node in (one.says, one.label))
        fork = next(pair for pair in zip(wrong, right, strict=True) if pair[0] != pair[1])
        parts = attribution.contributions(examples.features[row], [fork]).rows[0].tolist()
        expected[max((n for n in range(48) if n != row), key=parts.__getitem__)] += 1
    assert expected
    for one in found:
        times = expected[int(one.id, 16)]
        text = " ".join(one.reasons)
        assert ("wrong side" in text) == bool(times)
        assert times < 2 or f"{times} mistakes" in text


@pytest.fixture
def memory(tmp_path):
    features, labels = made(TREE.classes * 5)
    table = Table.create(str(tmp_path / "memory"), 16, {"note": "x"})
    records = [
        {"id": f"{n:064x}", "label": label, "reference": f"{n}.png", "active": True, "by": "ann",
         "why": "", "picture": b"p"} for n, label in enumerate(labels)
    ]  # fmt: skip
    table.add(records, features.half().numpy())
    return Memory(table, TREE, None, None)


def said(row, verdict, **more):
    return {"id": f"{row:064x}", "verdict": verdict, **more}


def test_verdicts_are_one_version_and_touch_nothing_else(memory):
    before, features = memory.version, memory.rows.features.copy()
    table = [
        said(0, "strike"), said(1, "Relabel cold"), said(2, "unsure"), said(3, "keep"), said(4, ""),
        said(5, " relabel  green ", label="orange"),
    ]  # fmt: skip
    changes = parse_verdicts(memory, table, "ben")
    assert len(changes) == 4
    write_changes(memory, changes)
    assert memory.version == before + 1
    rows = memory.rows
    assert rows.active.tolist() == [False] + [True] * 19
    cold = TREE.ids[TREE.index("cold")]
    assert [rows.labels[n] for n in (0, 1, 3, 5)] == ["red", cold, "green", "green"]
    assert [rows.by[n] for n in (0, 1, 2, 3, 4, 5)] == ["ben", "ben", "ann", "ben", "ann", "ben"]
    assert rows.why[3] == KEPT
    assert np.array_equal(rows.features, features)
    assert memory.table.picture(rows.ids[1]) == b"p"
    memory.restore(before)
    assert memory.rows.active.all()


@pytest.mark.parametrize(
    ("wrong", "fact"),
    [
        (said(0, "remove"), "strike"),
        (said(0, "relabel"), "relabel NODE"),
        (said(0, "relabel purple"), "purple"),
        (said(0, "strike it"), "strike it"),
        (said(99, "strike"), f"{99:064x}"),
        (said(1, "keep"), "row 1: there is another"),
        (said(0, "strike", label="green"), "'red' now"),
    ],
    ids=str,
)
def test_one_wrong_verdict_changes_nothing(memory, wrong, fact):
    before = memory.version
    table = [said(1, "relabel blue"), wrong]
    with pytest.raises(NBDTError) as raised:
        write_changes(memory, parse_verdicts(memory, table))
    assert fact.replace("row 1", "row 2") in str(raised.value)
    assert memory.version == before
    assert json.dumps(memory.rows.labels[:2]) == '["red", "orange"]'


def test_no_verdict_is_no_version(memory):
    before = memory.version
    write_changes(memory, parse_verdicts(memory, [said(0, "unsure"), said(1, "")]))
    assert memory.version == before
