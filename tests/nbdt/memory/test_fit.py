"""The convex fit of a last layer: optimum, groups, starts, and the sum over its images."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbdt import DecisionRules
from nbdt.errors import NBDTError
from nbdt.memory import refit
from nbdt.memory.attribution import Attribution
from nbdt.memory.fit import Basis, Design
from nbdt.memory.refit import balanced, examples_of, fit_head
from nbdt.memory.table import Rows
from nbdt.memory.targets import Targets, TreeTerm, coefficients
from nbdt.memory.tuning import folds, left_out, tune
from nbdt.tree.labels import classes_below
from tests import oracle


def drawn(seed, images=40, width=6, classes=4, groups=0):
    """Features with some class structure, labels, and one group of two classes."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % classes
    centers = torch.randn(classes, width, generator=draw)
    features = centers[labels] + torch.randn(images, width, generator=draw)
    if groups:
        labels[torch.randperm(images, generator=draw)[:groups]] = -1
    members = torch.zeros(1, classes, dtype=torch.bool)
    members[0, :2] = True
    weights = torch.rand(images, generator=draw) + 0.5
    return features, Targets(labels, members, weights)


@given(
    seed=st.integers(0, 10_000), groups=st.integers(0, 8), strength=st.sampled_from([0.1, 1, 10])
)
@settings(deadline=None, max_examples=15)
def test_the_reference_function_does_not_fall_in_any_direction(seed, groups, strength):
    features, targets = drawn(seed, groups=groups)
    fit = Design(features).fit(targets, strength)

    def value(weight, bias):
        parts = (weight, bias, features - fit.center, targets.labels, targets.groups,
                 targets.weights)  # fmt: skip
        return oracle.penalised_loss(*(part.double().tolist() if part.is_floating_point()
                                       else part.tolist() for part in parts), strength)  # fmt: skip

    best = value(fit.weight, fit.bias)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(4):
        step = torch.randn(fit.weight.shape, generator=draw), torch.randn(4, generator=draw)
        for size in (1e-2, -1e-2):
            there = value(fit.weight + size * step[0], fit.bias + size * step[1])
            assert there > best - 1e-6 * abs(best)


@given(seed=st.integers(0, 10_000), groups=st.integers(0, 8))
@settings(deadline=None, max_examples=15)
def test_weights_are_a_sum_over_the_images(seed, groups):
    features, targets = drawn(seed, groups=groups)
    fit = Design(features).fit(targets, 3.0)
    pull = coefficients(fit.logits(features), targets)
    total = 3.0 * pull.T @ (features - fit.center)
    assert torch.allclose(total, fit.weight, rtol=1e-3, atol=1e-4 * float(fit.weight.abs().max()))
    assert torch.allclose(pull.sum(dim=0), torch.zeros(4), atol=1e-3)


def test_a_group_of_all_classes_says_nothing_and_a_group_of_one_is_a_class():
    logits = torch.randn(5, 3, dtype=torch.float64)
    members = torch.tensor([[True] * 3, [False, True, False]])
    everything = Targets(torch.full((5,), -1), members, torch.ones(5))
    assert torch.allclose(everything.losses(logits), torch.zeros(5, dtype=torch.float64))
    assert torch.allclose(coefficients(logits, everything), torch.zeros(5, 3, dtype=torch.float64))
    one = Targets(torch.full((5,), -2), members, torch.ones(5))
    same = Targets(torch.ones(5, dtype=torch.int64), members, torch.ones(5))
    assert torch.allclose(one.losses(logits), same.losses(logits))
    assert torch.allclose(coefficients(logits, one), coefficients(logits, same))


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_coefficients_are_minus_the_gradient(seed):
    features, targets = drawn(seed, groups=5)
    logits = features[:, :4].double().requires_grad_()
    (targets.losses(logits) @ targets.weights.double()).backward()
    assert torch.allclose(coefficients(logits, targets), -logits.grad, atol=1e-6)


def with_tree(seed):
    """Logits, and targets under a tree's loss with two group labels."""
    tree = oracle.zoo()
    rules = DecisionRules(tree, rule="representative")
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(tree.num_classes, (12,), generator=draw)
    labels[:2] = -1 - torch.tensor(tree.inner_nodes[1:3])
    targets = balanced(labels, tree.num_classes, classes_below(tree))
    targets = replace(targets, nodes=labels, tree=TreeTerm(rules))
    targets.tree.means = targets.tree.means.double()
    targets = replace(targets, weights=targets.weights.double())
    return rules, labels, targets, torch.randn(12, tree.num_classes, generator=draw).double()


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_the_tree_loss_is_the_path_and_its_derivatives_are_exact(seed):
    rules, labels, targets, logits = with_tree(seed)
    flat = replace(targets, tree=None)
    probabilities = rules.log_probs(logits)
    tree = rules.hierarchy
    for row, label in enumerate(labels.tolist()):
        node = tree.leaf_nodes[label] if label >= 0 else -1 - label
        path = sum(float(probabilities[row, n]) for n in tree.path_to(node)[1:])
        added = float(targets.losses(logits)[row] - flat.losses(logits)[row])
        assert abs(added + path) < 1e-5

    def value(z):
        return targets.losses(z) @ targets.weights.double()

    wide = logits.requires_grad_()
    (slope,) = torch.autograd.grad(value(wide), wide)
    assert torch.allclose(coefficients(logits, targets), -slope, atol=1e-5)
    change = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed)).double()
    _, curved = torch.autograd.functional.hvp(value, logits, change)
    found = targets.curve(targets.states(logits), change)
    assert torch.allclose(found, curved, atol=1e-5)


def test_the_tree_loss_makes_representative_decisions_right():
    tree = oracle.zoo()
    draw = torch.Generator().manual_seed(2)
    labels = torch.arange(tree.num_classes).repeat(8)
    centers = torch.randn(tree.num_classes, 30, generator=draw)
    features, test = (centers[labels] + torch.randn(len(labels), 30, generator=draw) for _ in "ab")
    rules = DecisionRules(tree, rule="representative")
    names = tuple(tree.classes[label] for label in labels)
    examples = examples_of(rows_of(tree, features, names), rules)
    fitted = fit_head(examples, rules)
    design, flat = Design(examples.features), replace(examples.targets, tree=None)
    without = design.fit(flat, fitted.fit.strength)
    taught, untaught = (
        float((rules(fit.logits(test)).argmax(dim=1) == labels).float().mean())
        for fit in (fitted.fit, without)
    )
    assert taught > untaught + 0.1


def test_the_start_and_the_basis_do_not_change_the_optimum():
    features, targets = drawn(3)
    design = Design(features)
    first = design.fit(targets, 2.0)
    some = torch.ones(len(features), dtype=torch.bool)
    some[4] = False
    cold = Design(features[some]).fit(targets[some], 2.0)
    warm = design.fit(targets, 2.0, start=first, among=some)
    logits = [fit.logits(features) for fit in (cold, warm)]
    assert torch.allclose(*logits, atol=1e-3)
    again = Design(features[some], design.basis)
    assert again.basis is design.basis


@pytest.mark.parametrize("rule", oracle.RULES)
def test_a_fit_whose_images_are_almost_certain_comes_to_its_end(rule):
    tree = oracle.family()
    labels = tuple(tree.classes) * 8
    place = torch.arange(4).repeat(8)
    draw = torch.Generator().manual_seed(0)
    features = 2 * torch.randn(4, 12, generator=draw)[place] + torch.randn(32, 12, generator=draw)
    examples = examples_of(rows_of(tree, features, labels), DecisionRules(tree, rule=rule))
    fit = Design(examples.features).fit(examples.targets, 60.0)
    assert fit.error < 1e-4
    assert float(fit.bias.mean().abs()) < 0.5


def test_a_basis_that_misses_a_direction_is_made_again():
    draw = torch.Generator().manual_seed(0)
    flat = torch.randn(30, 6, generator=draw)
    flat[:, 3] = 0
    basis = Basis.of(flat)
    assert basis.directions.shape == (6, 5)
    assert Design(torch.randn(30, 6, generator=draw), basis).basis.directions.shape == (6, 6)


def test_scikit_learn_finds_the_same_optimum():
    from sklearn.linear_model import LogisticRegression

    features, targets = drawn(5, images=60)
    theirs = LogisticRegression(C=0.7, tol=1e-8, max_iter=2000).fit(
        features.numpy(), targets.labels.numpy(), sample_weight=targets.weights.numpy()
    )
    ours = Design(features).fit(targets, 0.7).logits(features).softmax(dim=1)
    assert np.allclose(ours, theirs.predict_proba(features.numpy()), atol=1e-3)


def test_certain_answers_stay_finite():
    features = torch.eye(4).repeat(5, 1) * 1e3
    targets = Targets(torch.arange(20) % 4, torch.zeros(0, 4, dtype=torch.bool), torch.ones(20))
    fit = Design(features).fit(targets, 1e6)
    assert fit.weight.isfinite().all()
    assert (fit.logits(features).argmax(dim=1) == targets.labels).all()


def test_a_class_without_images_is_refused():
    features, targets = drawn(1)
    with pytest.raises(NBDTError, match="index 3"):
        Design(features).fit(targets, 1.0, among=targets.labels != 3)


@given(
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=6),
    struck=st.integers(0, 100), seed=st.integers(0, 99),
)  # fmt: skip
def test_striking_out_moves_no_other_row_to_another_fold(counts, struck, seed):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    active = torch.ones(len(labels), dtype=torch.bool)
    before = folds(labels, active)
    for label in range(len(counts)):
        assert len(before[labels == label].unique()) > 1
    active[struck % len(labels)] = False
    after = folds(labels, active)
    moved = (before[active] != after).nonzero()[:, 0]
    left = torch.bincount(labels[active], minlength=len(counts))[labels[active][moved]]
    assert (left < 5).all()  # only where a label would be in one fold alone


def test_each_image_is_answered_by_a_fit_without_it():
    features, targets = drawn(7)
    fold = folds(targets.labels, torch.ones(len(features), dtype=torch.bool))
    design = Design(features)
    tuned = left_out(design, targets, fold, 1.0)
    for number in range(5):
        alone = design.fit(targets, 1.0, among=fold != number, tolerance=1e-2)
        here = fold == number
        assert torch.allclose(tuned.logits[here], alone.logits(features[here]), atol=1e-3)
    best = tune(design, targets, fold)
    assert best.factor > 0
    assert best.logits.shape == (40, 4)


def rows_of(hierarchy, features, labels):
    ids = tuple(f"{n:064x}" for n in range(len(features)))
    active = np.ones(len(features), bool)
    text = ("",) * len(features)
    return Rows(ids, features.half().numpy(), labels, ids, text, text, active, text, 1)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_contributions_add_up_to_the_log_odds(rule):
    tree = oracle.family()
    draw = torch.Generator().manual_seed(0)
    labels = tuple(tree.classes) * 8 + (tree.ids[1],) * 3
    place = [tree.classes.index(x) if x in tree.classes else 0 for x in labels]
    features = torch.randn(4, 12, generator=draw)[place] + torch.randn(35, 12, generator=draw)
    rules = DecisionRules(tree, rule=rule)
    examples = examples_of(rows_of(tree, features, labels), rules)
    fitted = fit_head(examples, rules)
    attribution = Attribution(fitted, examples, rules)
    query = torch.randn(12, generator=draw)
    logits = fitted.weight @ query + fitted.bias
    (path,) = rules.paths(logits[None])
    pairs = [
        (tree.index(d.child_ids[d.chosen]), tree.index(d.child_ids[d.runner_up])) for d in path
    ]
    found = attribution.contributions(query, pairs)
    log_odds = [d.log_probs[d.chosen] - d.log_probs[d.runner_up] for d in path]
    total = found.rows.sum(dim=1) + found.bias + found.entropy
    assert np.allclose(total, log_odds, rtol=1e-3, atol=1e-3)
    assert np.allclose(found.log_odds, log_odds, atol=1e-4)
    self_made = (
        fitted.fit.strength
        * fitted.factor
        * coefficients(fitted.fit.logits(examples.features), examples.targets)
    )
    difference = _difference(rules, logits, pairs[0])
    for row in (0, 17, 34):
        value = oracle.contribution(
            self_made[row].double().tolist(), difference, (examples.features[row] - fitted.fit.center)
            .double().tolist(), (query - fitted.fit.center).double().tolist(),
        )  # fmt: skip
        assert abs(value - float(found.rows[0, row])) < 1e-3 * max(1, abs(value))


def _difference(rules, logits, pair):
    """Derivatives of the difference of two scores by the class logits, by finite differences."""
    tree = rules.hierarchy

    def score(values, node):
        under = values[tree.classes_under(node)]
        return under.mean() if rules.rule == "representative" else under.logsumexp(dim=0)

    wide, step = logits.double(), 1e-6
    return [
        float(
            (score(wide + step * unit, pair[0]) - score(wide + step * unit, pair[1])
             - score(wide - step * unit, pair[0]) + score(wide - step * unit, pair[1])) / (2 * step)
        )
        for unit in torch.eye(len(wide), dtype=torch.float64)
    ]  # fmt: skip


@pytest.mark.parametrize("counts", [(2, 3), (3, 2), (2, 12)], ids=str)
def test_a_refit_starts_at_a_fit_that_had_another_number_of_folds(counts):
    tree = oracle.family()
    rules = DecisionRules(tree, rule="marginal")
    features, start = torch.randn(12 * 4, 5, generator=torch.Generator().manual_seed(0)), None
    for count in counts:
        labels = tuple(tree.classes) * count
        examples = examples_of(rows_of(tree, features[: len(labels)], labels), rules)
        start = fit_head(examples, rules, start, choose=False)
        assert len(start.fold_fits) == min(5, count)
    cold = left_out(Design(examples.features), examples.targets, examples.fold, start.fit.strength)
    assert torch.allclose(cold.logits * cold.factor, start.logits.float(), atol=0.1)


def test_a_large_memory_is_fitted_on_as_many_of_each_label_and_on_what_counts_more(monkeypatch):
    tree = oracle.family()
    rules = DecisionRules(tree, rule="marginal")
    labels = tuple(tree.classes[min(n // 3, 3)] for n in range(60))  # 3, 3, 3 and 51
    rows = rows_of(tree, torch.randn(60, 5), labels)
    rows.weights[59], rows.active[20] = 4, False
    assert len(examples_of(rows, rules).places) == 59
    monkeypatch.setattr(refit, "MOST", 40)
    found = examples_of(rows, rules)
    assert found.places.tolist() == [*range(19), 59]  # ten of the class that has more
    assert len(found.features) == len(found.labels) == len(found.fold) == 20
    rows.active[18] = False
    assert examples_of(rows, rules).places.tolist() == [*range(18), 19, 59]


def test_attribution_refuses_a_memory_that_changed():
    tree = oracle.family()
    rules = DecisionRules(tree, rule="marginal")
    features, labels = torch.randn(16, 5), tuple(tree.classes) * 4
    examples = examples_of(rows_of(tree, features, labels), rules)
    fitted = fit_head(examples, rules)
    other = examples_of(rows_of(tree, features, labels[1:] + labels[:1]), rules)
    with pytest.raises(NBDTError, match="refit"):
        Attribution(fitted, other, rules)


# ---- as a classifier ----


def blobs(counts, spread=1.0, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = torch.randn(len(counts), width, generator=generator)
    noise = torch.randn(len(labels), width, generator=generator)
    return centres[labels] + spread * noise + 3, labels, centres + 3


def fitted_on(features, labels, count, below=None):
    """A tuned fit, and its cross-validation."""
    design, targets = Design(features), balanced(labels, count, below)
    fold = folds(labels, torch.ones(len(labels), dtype=torch.bool))
    tuned = tune(design, targets, fold)
    return design.fit(targets, tuned.strength), tuned


@pytest.mark.parametrize("counts", [[20] * 6, [2] * 6, [2, 30, 5], [9, 12]], ids=str)
def test_the_fit_is_as_good_as_scikit_learns(counts):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    features, labels, centres = blobs(counts, spread=1.5)
    fit, tuned = fitted_on(features, labels, len(counts))
    test = torch.arange(len(counts)).repeat_interleave(200)
    draw = torch.Generator().manual_seed(9)
    drawn = centres[test] + 1.5 * torch.randn(len(test), 40, generator=draw)
    ours = (fit.logits(drawn).argmax(1) == test).float().mean().item()
    search = GridSearchCV(
        LogisticRegression(max_iter=500), {"C": [0.03, 0.1, 0.3, 1, 3, 10]}, cv=min(5, *counts)
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")
        search.fit(features.numpy(), labels.numpy())
    assert ours >= search.score(drawn.numpy(), test.numpy()) - 0.03
    assert tuned.logits.shape == (len(labels), len(counts))


def test_images_of_a_group_teach_the_border_between_groups():
    features, labels, centres = blobs([3] * 6, spread=2.5)
    draw = torch.Generator().manual_seed(4)
    more = torch.arange(6).repeat_interleave(100)
    extra = centres[more] + 2.5 * torch.randn(600, 40, generator=draw)
    test = torch.arange(6).repeat_interleave(200)
    drawn = centres[test] + 2.5 * torch.randn(1200, 40, generator=draw)
    below = torch.arange(6)[None] // 3 == torch.arange(2)[:, None]  # two groups of three classes

    def right(fit):
        return float((fit.logits(drawn).argmax(1) // 3 == test // 3).float().mean())

    alone, _ = fitted_on(features, labels, 6)
    both = torch.cat([labels, -1 - more // 3])
    taught, _ = fitted_on(torch.cat([features, extra]), both, 6, below)
    assert right(taught) > right(alone) + 0.02


def test_left_out_logits_say_how_sure_one_may_be():
    features, labels, _ = blobs([60] * 4, spread=2.0)
    fit, tuned = fitted_on(features, labels, 4)
    chances, answers = (tuned.logits * tuned.factor).softmax(1).max(1)
    right = (answers == labels).float()
    assert 0.5 < right.mean() < 0.98
    assert float(chances.mean()) == pytest.approx(float(right.mean()), abs=0.04)
    own = (fit.logits(features).argmax(1) == labels).float().mean()
    assert own > right.mean()  # they are not the fit's own
