"""What an evaluation says about answers, and that no photograph sets its own threshold."""

import json

import pytest
import torch

from nbdt import DecisionRules
from nbdt.decide.answer import Calibration
from nbdt.decide.metrics import distance_at, reordered
from nbdt.decide.selective import RULES
from nbdt.decide.unknown import familiarity
from nbdt.hierarchies.measure.answers import (
    HALVES,
    OWN,
    Measurement,
    answer_record,
    halves,
    plan_of,
    shared_rows,
    without,
)
from nbdt.hierarchies.measure.comparison import measure
from tests import oracle

TREE = oracle.random_tree(30, seed=4, arity=(2, 5))


def drawn(count, seed):
    """Logits and labels of a calibrated classifier."""
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(count, TREE.num_classes, generator=generator)
    return z, z.softmax(1).multinomial(1, generator=generator)[:, 0]


def stored(z, labels):
    return {"logits": z.half(), "labels": labels.short()}


def planned(z, labels, reference):
    result = measure(z, labels, TREE, "marginal")
    measurement = Measurement(result.rules, z, labels)
    return measurement, plan_of(result, measurement, reference)


def test_logits_are_found_in_a_reference_set_that_rounds_them():
    z, labels = drawn(60, seed=1)
    same, where = shared_rows(z[20:] + 1e-5, stored(z, labels)["logits"][:40])
    assert same.tolist() == [True] * 20 + [False] * 20
    assert where[:20].tolist() == list(range(20, 40))
    near = z.clone()
    near[:, 0] += 0.1
    assert not shared_rows(near, z.half())[0].any()


def test_other_photographs_are_judged_by_the_models_own_thresholds():
    z, labels = drawn(100, seed=2)
    other = drawn(50, seed=3)
    measurement, plan = planned(z, labels, stored(*other))
    assert (plan.source, plan.shared) == (OWN, 0)
    [[(calibration, mask)]] = plan.repeats
    assert mask.all()
    rules = DecisionRules(TREE, rule="marginal")
    expected = Calibration.from_logits(rules, other[0].half().float(), other[1])
    assert torch.equal(calibration.critical, expected.critical)
    stops = measurement.masses.stop(expected.threshold(0.9))
    right = float((stops <= measurement.depth).double().mean())
    assert measurement.quality(plan.repeats, 0.9).right == pytest.approx(right)


def test_photographs_of_the_reference_set_do_not_calibrate_themselves():
    z, labels = drawn(100, seed=4)
    _, plan = planned(z[:60], labels[:60], stored(z, labels))
    assert (plan.source, plan.shared) == (OWN, 60)
    assert len(plan.repeats[0][0][0]) == 40
    measurement, plan = planned(z, labels, stored(z, labels))
    assert (plan.source, plan.shared) == (HALVES, 100)
    for parts in plan.repeats:
        covered = torch.zeros(100, dtype=torch.int64)
        for calibration, mask in parts:
            expected = measurement.critical[~mask].sort().values
            assert torch.equal(calibration.critical, expected)
            covered += mask
        assert covered.tolist() == [1] * 100
    assert not torch.equal(halves(measurement, 0)[0][1], halves(measurement, 1)[0][1])


def test_too_few_photographs_give_no_thresholds():
    z, labels = drawn(39, seed=5)
    for reference in ({}, stored(z, labels), stored(z[:19], labels[:19])):
        assert planned(z, labels, reference)[1] is None
    record = answer_record(measure(z, labels, TREE, "marginal"), {}, unknown=z)
    assert record["targets"] == []
    assert "calibration" not in record
    assert record["unknown"] == {"images": 39, "auroc": pytest.approx(0.5)}


@pytest.mark.parametrize("target", [0.9, 0.95])
def test_measured_coverage_is_what_was_asked_for(target):
    z, labels = drawn(3000, seed=6)
    measurement, plan = planned(z, labels, {})
    assert plan.source == HALVES
    assert measurement.quality(plan.repeats, target).right == pytest.approx(target, abs=0.003)
    thresholds = measurement.calibration(torch.ones(3000, dtype=torch.bool))
    assert thresholds.spread(target) < plan.repeats[0][0][0].spread(target)


def test_the_record_is_plain_data_and_its_parts_are_right(monkeypatch):
    monkeypatch.setattr("nbdt.hierarchies.measure.answers.CHUNK", 70)
    z, labels = drawn(200, seed=7)
    unknown = drawn(80, seed=8)[0] / 3
    result = measure(z, labels, TREE, "marginal")
    record = answer_record(result, {}, accuracy=0.8, better_mistakes=True, unknown=unknown)
    assert json.loads(json.dumps(record)) == json.loads(json.dumps(record))
    assert [row["target"] for row in record["targets"]] == [0.8, 0.9, 0.95, 0.99]
    kept = [row["information"] for row in record["targets"]]
    assert kept == sorted(kept, reverse=True)
    for row in record["targets"]:
        low, high = row["interval"]
        assert low <= row["right"] <= high
        assert row["classes"] + row["groups"] + row["root"] == pytest.approx(1)
    assert tuple(record["rules"]) == RULES
    for values in record["rules"].values():
        assert values["curve"][-1] == [0, 0]
        assert values["curve"][0][0] == pytest.approx(1)
    for kind, count in (("plain", 1), ("reordered", 8)):
        order = reordered(result.rules(z), TREE, count)
        row = record["lists"][kind]
        assert row["top5"] == pytest.approx(
            float((order[:, :5] == labels[:, None]).any(1).double().mean())
        )
        for k in (1, 5, 20):
            expected = float(distance_at(order, labels, TREE, k).mean())
            assert row[f"distance_at_{k}"] == pytest.approx(expected)
    plain, better = record["lists"].values()
    assert plain["distance_at_1"] == better["distance_at_1"]
    assert better["distance_at_5"] < plain["distance_at_5"]
    found = record["unknown"]
    assert found["auroc"] == pytest.approx(
        oracle.area_under_roc(familiarity(z).tolist(), familiarity(unknown).tolist())
    )
    assert found["flagged"] > found["false_alarms"]
    assert found["false_alarms"] == pytest.approx(0.05, abs=0.02)


def test_a_reference_set_without_some_photographs_has_the_others():
    logits = torch.randn(30, 6, generator=torch.Generator().manual_seed(3))
    reference = {"logits": logits.half(), "labels": torch.arange(30) % 6}
    left = without(reference, logits[4:9])
    others = [row for row in range(30) if not 4 <= row < 9]
    assert torch.equal(left["logits"], reference["logits"][others])
    assert torch.equal(left["labels"], reference["labels"][others])
    assert without({}, logits) == {}
