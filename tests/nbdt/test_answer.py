"""Where an answer stops, what it guarantees, and what is unknown."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbdt import DecisionRules, Hierarchy, NBDTError
from nbdt.decide import stopping as module
from nbdt.decide.answer import Calibration, answers, promise
from nbdt.decide.stopping import PathMasses, information
from nbdt.decide.unknown import familiarity, rarity
from tests import oracle

LEVELS = [-3.0, -0.4, 0.0, 0.2, 1.0, 7.0, 300.0]


@st.composite
def cases(draw):
    tree = draw(oracle.trees())
    z = oracle.logits(
        tree, batch=4, scale=draw(st.sampled_from([0.1, 1.0, 6.0])), seed=draw(st.integers(0, 99))
    )
    return DecisionRules(tree, rule=draw(st.sampled_from(oracle.RULES))), z


@given(cases(), st.sampled_from(LEVELS))
def test_an_answer_has_the_largest_score_on_the_path(case, threshold):
    rules, z = case
    masses = PathMasses(rules, torch.tensor(z))
    stops = masses.stop(threshold)
    for row, depth in enumerate(stops.tolist()):
        nodes, chances = oracle.path_masses(rules.hierarchy, rules.rule, z[row])
        scores = oracle.stopping_scores(rules.hierarchy, nodes, chances, threshold)
        node = int(masses.nodes[row, depth])
        assert node in nodes
        assert scores[nodes.index(node)] == pytest.approx(max(scores), rel=1e-9, abs=1e-9)
        np.testing.assert_allclose(masses.log_mass[row].exp()[: len(nodes)], chances, rtol=1e-6)


@given(cases(), st.sampled_from(LEVELS[2:]), st.floats(0.8, 1.2))
def test_with_the_needed_share_the_answer_goes_on(case, threshold, factor):
    """Checked by giving the child that share, at the expense of its siblings."""
    rules, z = case
    tree, masses = rules.hierarchy, PathMasses(rules, torch.tensor(z))
    stops = masses.stop(threshold)
    needed = masses.needed(stops, torch.full((len(z),), threshold, dtype=torch.float64))
    for row, depth in enumerate(stops.tolist()):
        nodes, chances = oracle.path_masses(tree, rules.rule, z[row])
        share = factor * float(needed[row])
        if depth + 1 >= len(nodes) or not 0 < share < 1 or abs(factor - 1) < 1e-6:
            continue
        grown = [*chances[: depth + 1], *(c / chances[depth + 1] for c in chances[depth + 1 :])]
        grown[depth + 1 :] = [chances[depth] * share * c for c in grown[depth + 1 :]]
        scores = oracle.stopping_scores(tree, nodes, grown, threshold)
        assert (max(scores[depth + 1 :]) > scores[depth]) == (factor > 1)


@given(cases(), st.integers(0, 10**6))
def test_the_critical_value_is_where_the_label_comes_under_the_answer(case, seed):
    rules, z = case
    tree = rules.hierarchy
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, tree.num_classes, len(z)))
    masses = PathMasses(rules, torch.tensor(z))
    right = masses.true_depth(labels, rules)
    critical = masses.critical.gather(1, right[:, None])[:, 0]
    assert (masses.critical[:, 1:] <= masses.critical[:, :-1]).all()
    for row, value in enumerate(critical.tolist()):
        shared = set(tree.path_of_class(int(labels[row]))) & set(masses.nodes[row].tolist())
        node = int(masses.nodes[row, right[row]])
        assert tree.depths[node] == max(tree.depths[other] for other in shared)
        if math.isfinite(value):
            assert masses.stop(value)[row] <= right[row]
            assert masses.stop(value - 1e-9 * max(1, abs(value)))[row] > right[row]
        else:  # the leaf is right, or no λ is large enough for probabilities that are equal
            assert value == math.inf or masses.nodes[row, masses.stop(-1e300)[row]] == node


def test_blocks_do_not_change_critical_values(monkeypatch):
    rules = DecisionRules(oracle.caterpillar(40), rule="marginal")
    z = torch.tensor(oracle.logits(rules.hierarchy, batch=5, scale=3.0))
    whole = PathMasses(rules, z).critical
    monkeypatch.setattr(module, "BLOCK", 1)
    assert torch.equal(PathMasses(rules, z).critical, whole)


def test_information_is_none_at_the_root_and_all_at_a_leaf():
    tree = oracle.zoo()
    facts = dict(zip(tree.names, information(tree).tolist(), strict=True))
    assert facts["thing"] == 0
    assert facts["axe"] == 1
    assert facts["tool"] == pytest.approx(1 - math.log(3) / math.log(10))


def drawn(count, seed, tree=None):
    """Logits and labels of a calibrated classifier."""
    tree = tree or oracle.random_tree(60, seed=4, arity=(2, 5))
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(count, tree.num_classes, generator=generator, dtype=torch.float64)
    labels = z.softmax(1).multinomial(1, generator=generator)[:, 0]
    return DecisionRules(tree, rule="marginal"), z, labels


@pytest.mark.parametrize("accuracy", [0.8, 0.9, 0.95])
def test_the_guarantee_holds_on_average_and_is_not_wasteful(accuracy):
    rules, z, labels = drawn(100 * 240, seed=1)
    masses = PathMasses(rules, z)
    right = masses.true_depth(labels, rules)
    shares = []
    for part in range(100):
        here = slice(240 * part, 240 * part + 120)
        calibration = Calibration.from_logits(rules, z[here], labels[here])
        new = slice(240 * part + 120, 240 * part + 240)
        stops = PathMasses(rules, z[new]).stop(calibration.threshold(accuracy))
        shares.append(float((stops <= right[new]).double().mean()))
    # at most 1 / (n + 1) above the target, and three standard errors of the mean of 100 parts
    assert accuracy - 0.012 <= np.mean(shares) <= accuracy + 1 / 121 + 0.012
    expected = math.hypot(calibration.spread(accuracy), math.sqrt(accuracy * (1 - accuracy) / 120))
    assert np.std(shares) == pytest.approx(expected, rel=0.25)


def test_a_target_that_the_images_cannot_support_gives_the_root():
    rules, z, labels = drawn(50, seed=2)
    calibration = Calibration.from_logits(rules, z, labels)
    assert calibration.threshold(0.99) == math.inf
    given = answers(rules, z[:5], calibration, 0.99)
    assert {answer.node for answer in given} == {rules.hierarchy.ids[0]}
    assert all(answer.probability == 1 and not answer.is_leaf for answer in given)


def test_the_threshold_is_the_order_statistic_of_split_conformal_prediction():
    calibration = Calibration(torch.arange(1, 20, dtype=torch.float64), torch.zeros(19))
    assert calibration.threshold(0.9) == 18  # ⌈20 · 0.9⌉
    assert calibration.threshold(0.95) == 19
    assert calibration.threshold(0.951) == math.inf


@pytest.mark.parametrize("rule", oracle.RULES)
def test_images_in_a_group_and_the_others_have_thresholds_of_their_own(rule):
    tree = oracle.random_tree(16, seed=3, arity=(2, 4))
    rules = DecisionRules(tree, rule=rule)
    z = 3 * torch.randn(200, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = z.softmax(1).multinomial(1, generator=torch.Generator().manual_seed(0))[:, 0]
    group = torch.arange(tree.num_classes) % 2 == 0
    found = Calibration.from_logits(rules, z, labels, group)
    leaves = [int(np.argmax(oracle.leaf_log_probs(tree, row[None], rule))) for row in z.numpy()]
    for side in (True, False):
        rows = [row for row, leaf in enumerate(leaves) if bool(group[leaf]) == side]
        alone = Calibration.from_logits(rules, z[rows], labels[rows])
        own = torch.tensor([leaves[rows[0]]])
        assert found.thresholds(0.9, own).tolist() == [alone.threshold(0.9)]
    given = answers(rules, z, found, 0.9)
    limits = found.thresholds(0.9, torch.tensor(leaves)).tolist()
    for row, answer in enumerate(given):
        alone = PathMasses(rules, z[row : row + 1]).stop(limits[row])
        assert answer.depth == min(int(alone), len(answer.path))
    said = promise(found, 0.9)
    assert found.group_name in said
    assert all(f"{len(part):,}" in said for part in found.parts)


def test_a_group_with_too_few_images_on_one_side_is_refused_or_left_out():
    rules = DecisionRules(oracle.zoo(), rule="marginal")
    z, labels = 9 * torch.eye(10).repeat(5, 1), torch.arange(10).repeat(5)
    group = torch.arange(10) < 3  # 15 images
    with pytest.raises(NBDTError, match="either side .* got 15 .* 35 others"):
        Calibration.from_logits(rules, z, labels, group)
    reference = {"logits": z, "labels": labels, "group": group}
    assert Calibration.from_reference(rules, reference).group is None


def test_answers_say_what_they_are():
    rules, z, labels = drawn(400, seed=3)
    calibration = Calibration.from_logits(rules, z, labels)
    paths = rules.paths(z[:50], rules(z[:50]).argmax(1))
    given = answers(rules, z[:50], calibration, 0.9)
    assert {answer.is_leaf for answer in given} == {True, False}
    for answer, path in zip(given, paths, strict=True):
        assert answer.path == path
        assert answer.accuracy == 0.9
        on_path = [rules.hierarchy.ids[0], *(d.child_ids[d.chosen] for d in path)]
        assert on_path[answer.depth] == answer.node
        chance = math.exp(sum(d.log_probs[d.chosen] for d in path.decisions[: answer.depth]))
        assert answer.probability == pytest.approx(chance)
        assert answer.to_dict()["answer"]["node"] == answer.node
        assert answer.name in answer._repr_html_()
    for plain in (answers(rules, z[:50], None), answers(rules, z[:50], calibration, None)):
        assert all(a.is_leaf and a.accuracy is None and a.depth == len(a.path) for a in plain)
    assert answers(rules, z[:1], None)[0].unknown is None


def test_names_in_an_answers_html_are_text():
    tree = Hierarchy.from_paths(["<b>x/a", "<b>x/c", "y"])
    rules = DecisionRules(tree, rule="marginal")
    html = answers(rules, torch.zeros(1, 3), None)[0]._repr_html_()
    assert "<b>x" not in html


@pytest.mark.parametrize("accuracy", [0, 1, -0.5, 95, math.nan])
def test_a_target_outside_0_to_1_is_refused(accuracy):
    rules, z, labels = drawn(40, seed=5)
    calibration = Calibration.from_logits(rules, z, labels)
    with pytest.raises(NBDTError, match="between 0 and 1.*0.95"):
        answers(rules, z, calibration, accuracy)


def test_too_few_images_are_refused():
    rules, z, labels = drawn(19, seed=6)
    with pytest.raises(NBDTError, match="at least 20 labelled images.* 19"):
        Calibration.from_logits(rules, z, labels)


@pytest.mark.parametrize("classes", [2, 10, 99, 100, 101, 1000])
def test_familiarity_against_the_reference_implementation(classes):
    z = torch.randn(6, classes, generator=torch.Generator().manual_seed(classes)) * 4
    expected = [oracle.familiarity(row) for row in z.double().tolist()]
    torch.testing.assert_close(familiarity(z), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(familiarity(z.double() + 17.5), familiarity(z.double()))


def test_rarity_is_a_conformal_p_value():
    known = torch.tensor([1.0, 2.0, 2.0, 5.0])
    found = rarity(torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0]), known)
    assert found.tolist() == pytest.approx([1 / 5, 2 / 5, 4 / 5, 4 / 5, 1])


def test_noise_is_unknown_and_few_known_images_are():
    _, z, _ = drawn(4000, seed=7, tree=oracle.star(200))
    z[:, 0] += 20  # something that each image shows clearly
    calibration = Calibration(torch.zeros(2000), familiarity(z[:2000]).sort().values)
    assert 0.035 <= float(calibration.unknown(z[2000:]).double().mean()) <= 0.065
    noise = 3 * torch.randn(500, 200, generator=torch.Generator().manual_seed(8))
    assert float(calibration.unknown(noise).double().mean()) > 0.9
