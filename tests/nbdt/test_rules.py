"""Both rules against their slow float64 reference implementations, on every kind of tree, scale and precision."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from nbdt import DecisionRules, Hierarchy, NBDTError
from nbdt.tree.index import TreeIndex
from tests import oracle

# Sizes on both sides of every limit of the fast path: sums in blocks of 32 and 1,024 leaves,
# path sums in stages of 32 levels, descents by comparison up to 16 children and by ranking above.
TREES = {
    "family": oracle.family,
    "zoo": oracle.zoo,
    "two classes": lambda: oracle.star(2),
    "star of 16": lambda: oracle.star(16),
    "star of 17": lambda: oracle.star(17),
    "star of 1,500": lambda: oracle.star(1500),
    "32 levels": lambda: oracle.caterpillar(32),
    "33 levels": lambda: oracle.caterpillar(33),
    "200 levels": lambda: oracle.caterpillar(200),
    "binary of 33": lambda: oracle.random_tree(33),
    "binary of 128": lambda: oracle.random_tree(128, seed=1),
    "uneven of 300": lambda: oracle.random_tree(300, seed=2, arity=(2, 6), uneven=True),
    "wide of 1,100": lambda: oracle.random_tree(1100, seed=3, arity=(2, 40), uneven=True),
}
SCALES = (1e-3, 1.0, 30.0, 1e4)
SMALL = ["zoo", "32 levels", "33 levels", "star of 17", "binary of 33", "binary of 128"]


@cache
def rules_on(tree, rule):
    return DecisionRules(TREES[tree](), rule=rule)


def sample(h, scale, dtype=torch.float64, batch=3):
    """Logits in `dtype` whose widest is `scale`, and the same numbers in float64."""
    z = oracle.logits(h, batch, seed=h.num_classes)
    z = torch.tensor(z * scale / np.abs(z).max()).to(dtype)
    return z, z.double().numpy()


def assert_near(answer, expected, z, unit=1e-5):
    """To `unit` times the largest of 1, the image's widest logit and the log-probability."""
    tolerance = unit * np.maximum(np.maximum(1, np.abs(z).max(axis=1))[:, None], np.abs(expected))
    worst = np.abs(answer.detach().double().numpy() - expected) / tolerance
    assert worst.max() <= 1, f"{worst.max():.3g} times the tolerance"


def assert_same_leaves(rules, given, z, unit=1e-5):
    """The same class wherever no decision on the path is nearly a tie; return how many are not."""
    reached, margins = oracle.descend(rules.hierarchy, z, rules.rule)
    clear = margins > unit * np.maximum(1, np.abs(z).max(axis=1))
    assert (rules.hard(given).numpy() == reached)[clear].all()
    return clear.sum()


# Equal to the reference implementations.


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", TREES)
def test_soft_and_hard_equal_the_reference_in_every_precision(tree, rule):
    rules, compared = rules_on(tree, rule), Counter()
    for scale in SCALES:
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            given, z = sample(rules.hierarchy, scale, dtype)
            expected = oracle.leaf_log_probs(rules.hierarchy, z, rule)
            answer = rules(given)
            assert answer.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            unit = 1e-11 if dtype == torch.float64 else 1e-5
            assert_near(answer, expected, z, unit)
            compared[dtype] += assert_same_leaves(rules, given, z, unit)
            assert (answer.double().exp().sum(dim=1) - 1).abs().max() < 1e-5
    assert compared[torch.float64] == 3 * len(SCALES)  # none of these is a tie in float64
    assert min(compared.values()) >= 3


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", ["zoo", "star of 17", "33 levels", "wide of 1,100"])
def test_autocast_does_not_lower_the_precision(tree, rule):
    rules = rules_on(tree, rule)
    given, z = sample(rules.hierarchy, 30.0, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer, log_probs = rules(given), rules.log_probs(given)
        assert assert_same_leaves(rules, given, z)
    assert answer.dtype == torch.float32
    assert_near(answer, oracle.leaf_log_probs(rules.hierarchy, z, rule), z)
    assert_near(log_probs, oracle.decisions(rules.hierarchy, z, rule), z, unit=1e-11)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_ten_thousand_classes(rule):
    h = oracle.random_tree(10_000, seed=4, arity=(2, 8), uneven=True)
    rules = DecisionRules(h, rule=rule)
    for scale in (1.0, 1e4):
        given, z = sample(h, scale, torch.float32, batch=2)
        answer = rules(given)
        assert_near(answer, oracle.leaf_log_probs(h, z, rule), z)
        assert_same_leaves(rules, given, z)
        assert (answer.exp().sum(dim=1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", TREES)
def test_log_probs_equal_the_reference(tree, rule):
    rules = rules_on(tree, rule)
    for scale in (1.0, 1e4):
        given, z = sample(rules.hierarchy, scale, torch.float32)
        found = rules.log_probs(given)
        assert found.dtype == torch.float64
        assert found.shape == (3, rules.hierarchy.num_nodes)
        assert_near(found, oracle.decisions(rules.hierarchy, z, rule), z, unit=1e-11)


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", ["family", "zoo", "star of 17", "33 levels", "uneven of 300"])
def test_paths_equal_the_reference(tree, rule):
    rules = rules_on(tree, rule)
    h = rules.hierarchy
    given, z = sample(h, 5.0)
    steps, leaves = oracle.decisions(h, z, rule), oracle.leaf_log_probs(h, z, rule)
    shown = oracle.shown_paths(h, z, rule)
    for image, (path, (nodes, margins)) in enumerate(zip(rules.paths(given), shown, strict=True)):
        assert path.class_name == h.classes[path.class_index] == h.nodes[nodes[-1]].id
        assert path.log_prob == pytest.approx(leaves[image].max(), abs=1e-9)
        assert [d.child_ids[d.chosen] for d in path] == [h.nodes[node].id for node in nodes]
        assert [d.log_probs[d.chosen] for d in path] == pytest.approx(steps[image, nodes], abs=1e-9)
        assert [d.margin for d in path] == pytest.approx(margins, abs=1e-9)
        assert [d.is_likeliest for d in path] == [margin >= 0 for margin in margins]
        assert all(np.exp(d.log_probs).sum() == pytest.approx(1) for d in path)


def test_the_path_leads_to_the_most_probable_class():
    """On any tree, ties included; some paths go against the likeliest child, and say so."""
    seen = Counter()

    @settings(max_examples=100, derandomize=True)  # whether every kind is seen must not be luck
    @given(oracle.trees(), st.data(), st.sampled_from(oracle.RULES))
    def check(h, data, rule):
        whole = st.lists(st.integers(-3, 3), min_size=h.num_classes, max_size=h.num_classes)
        z = torch.tensor(data.draw(st.lists(whole, min_size=1, max_size=3))).float()
        rules = DecisionRules(h, rule=rule)
        log_probs, hard = rules(z), rules.hard(z)
        best = oracle.leaf_log_probs(h, z.double().numpy(), rule).max(axis=1)
        for image, path in enumerate(rules.paths(z)):
            assert path.class_index == int(log_probs[image].argmax())
            steps = sum(decision.log_probs[decision.chosen] for decision in path)
            assert steps == pytest.approx(path.log_prob, abs=1e-9)
            assert path.log_prob == pytest.approx(best[image], abs=1e-5)
            likeliest = all(decision.is_likeliest for decision in path)
            seen[likeliest, path.class_index == int(hard[image])] += 1

    check()
    assert seen[True, True]
    assert seen[False, False]
    assert not seen[False, True]  # greedy descent takes no step against the likeliest child


@settings(max_examples=40)
@given(oracle.trees(), st.integers(0, 2**31), st.sampled_from(SCALES))
def test_any_tree_equals_the_reference(h, seed, scale):
    z = np.float32(oracle.logits(h, scale=scale, seed=seed)).astype(float)
    for rule in oracle.RULES:
        rules = DecisionRules(h, rule=rule)
        assert_near(rules(torch.tensor(z).float()), oracle.leaf_log_probs(h, z, rule), z)
        assert_near(rules.log_probs(torch.tensor(z)), oracle.decisions(h, z, rule), z, unit=1e-11)
        reached, margins = oracle.descend(h, z, rule)
        clear = margins > 1e-5 * np.maximum(1, np.abs(z).max(axis=1))
        assert (rules.hard(torch.tensor(z).float()).numpy() == reached)[clear].all()


def test_paths_of_given_classes():
    rules = rules_on("zoo", "representative")
    given, z = sample(rules.hierarchy, 5.0)
    wanted = [7, 0, 3]
    found = rules.paths(given, classes=wanted)
    leaves = oracle.leaf_log_probs(rules.hierarchy, z, "representative")
    assert [path.class_index for path in found] == wanted
    assert [path.log_prob for path in found] == pytest.approx(leaves[range(3), wanted])
    assert min(decision.margin for decision in found[0]) < 0  # the model would go elsewhere


# What the rules mean.


def test_equal_logits_favour_shallow_leaves_under_representative():
    h = oracle.caterpillar(3)  # classes: last, then one leaf a level
    equal = torch.zeros(1, 4)
    representative = DecisionRules(h, rule="representative")(equal).exp()
    marginal = DecisionRules(h, rule="marginal")(equal).exp()
    assert torch.allclose(representative, torch.tensor([[1 / 8, 1 / 2, 1 / 4, 1 / 8]]))
    assert torch.allclose(marginal, torch.full((1, 4), 1 / 4))


@pytest.mark.parametrize("tree", TREES)
def test_marginal_path_product_is_the_flat_softmax(tree):
    rules = rules_on(tree, "marginal")
    h = rules.hierarchy
    given, _ = sample(h, 30.0)
    steps = rules.log_probs(given)
    product = torch.stack([steps[:, path].sum(dim=1) for path in oracle.paths(h)], dim=1)
    assert torch.allclose(product, given.log_softmax(dim=1), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_answers_are_valid_logits(rule):
    answer = rules_on("zoo", rule)(sample(oracle.zoo(), 30.0)[0])
    assert torch.allclose(answer.log_softmax(dim=1), answer)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_shifting_an_image_changes_nothing(rule):
    rules = rules_on("uneven of 300", rule)
    given, _ = sample(rules.hierarchy, 5.0)
    assert torch.allclose(rules(given + 1e3), rules(given), atol=1e-9)
    assert torch.equal(rules.hard(given + 1e3), rules.hard(given))


# Gradients.


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", SMALL)
def test_gradient_of_soft(tree, rule):
    rules = rules_on(tree, rule)
    given = sample(rules.hierarchy, 3.0, batch=1)[0].requires_grad_()
    assert gradcheck(rules, given)


@pytest.mark.parametrize("tree", SMALL)
def test_sums_equal_loops_and_have_their_gradient(tree):
    h = TREES[tree]()
    compiled = TreeIndex(h)
    nodes = compiled.node_of_edge.tolist()
    leaves = torch.randn(h.num_classes, 2, dtype=torch.float64, requires_grad=True)
    edges = torch.randn(len(nodes), 2, dtype=torch.float64, requires_grad=True)
    below = oracle.classes_below(h)
    down = torch.stack([leaves[below[node]].sum(dim=0) for node in nodes])
    up = torch.stack([edges[[nodes.index(n) for n in path]].sum(dim=0) for path in oracle.paths(h)])
    assert torch.allclose(compiled.node_sums(leaves), down)
    assert torch.allclose(compiled.path_sums(edges), up)
    assert gradcheck(compiled.node_sums, leaves[:, :1])
    assert gradcheck(compiled.path_sums, edges[:, :1])


@pytest.mark.parametrize("rule", oracle.RULES)
def test_second_derivatives_of_soft(rule):
    given = sample(oracle.zoo(), 3.0, batch=1)[0].requires_grad_()
    assert gradgradcheck(rules_on("zoo", rule), given)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_gradients_are_finite_at_wide_logits(rule):
    rules = rules_on("200 levels", rule)
    given = sample(rules.hierarchy, 1e4, torch.float32)[0].requires_grad_()
    rules(given)[:, 5].sum().backward()
    assert given.grad.isfinite().all()


# Batches.


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", ["zoo", "star of 17", "33 levels", "wide of 1,100"])
def test_one_image_and_none(tree, rule):
    rules = rules_on(tree, rule)
    h = rules.hierarchy
    given, _ = sample(h, 5.0)
    assert torch.allclose(rules(given[1:2]), rules(given)[1:2], rtol=0, atol=1e-12)
    assert torch.equal(rules.hard(given[1:2]), rules.hard(given)[1:2])
    assert rules(given[:0]).shape == (0, h.num_classes)
    assert rules.log_probs(given[:0]).shape == (0, h.num_nodes)
    assert rules.hard(given[:0]).shape == (0,)
    assert rules.hard(given[:0]).dtype == torch.int64
    assert rules.paths(given[:0]) == []


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("tree", ["uneven of 300", "wide of 1,100"])
def test_a_large_batch_equals_its_parts(tree, rule):
    rules = rules_on(tree, rule)
    images = torch.randn(
        700, rules.hierarchy.num_classes, generator=torch.Generator().manual_seed(0)
    )
    soft = torch.cat([rules(part) for part in images.split(50)])
    hard = torch.cat([rules.hard(part) for part in images.split(50)])
    assert torch.allclose(rules(images), soft, rtol=0, atol=1e-5)
    assert torch.equal(rules.hard(images), hard)


def test_strided_logits_are_welcome():
    rules = rules_on("zoo", "representative")
    wide = torch.randn(10, 6, dtype=torch.float64)
    columns = wide.t()[::2]
    assert torch.allclose(rules(columns), rules(columns.clone()))
    assert torch.equal(rules.hard(columns), rules.hard(columns.clone()))


# What is refused.

ANSWERS = ("forward", "hard", "log_probs", "paths")


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 5), (4,), (1, 2, 4), ()])
def test_another_shape_is_refused(answer, shape):
    with pytest.raises(NBDTError, match=r"Expected class logits of shape \(batch, 4\), got"):
        getattr(rules_on("family", "representative"), answer)(torch.zeros(shape))


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_another_type_is_refused(answer, dtype):
    with pytest.raises(NBDTError, match=f"Expected floating-point logits, got {dtype}"):
        getattr(rules_on("family", "marginal"), answer)(torch.zeros(2, 4, dtype=dtype))


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_passes_forward_and_is_never_an_answer(rule, value):
    rules = rules_on("zoo", rule)
    given, _ = sample(rules.hierarchy, 5.0)
    spoiled = given.clone()
    spoiled[1, 4] = value
    answer = rules(spoiled)
    assert not answer[1].isfinite().all()
    assert torch.allclose(answer[[0, 2]], rules(given)[[0, 2]])
    for refuses in (rules.hard, rules.log_probs, rules.paths):
        with pytest.raises(NBDTError, match=r"image 1 in the batch are not finite \(1 of 3"):
            refuses(spoiled)


def test_finite_logits_whose_sum_overflows_are_answered():
    rules = rules_on("family", "representative")
    wide = torch.tensor([[1e38, 3e38, 1e38, 2e38]])
    assert rules.hard(wide).tolist() == [1]


def test_classes_of_paths_are_checked():
    rules = rules_on("family", "marginal")
    with pytest.raises(NBDTError, match="Expected 2 class indices, one an image, got 1"):
        rules.paths(torch.zeros(2, 4), classes=[0])
    with pytest.raises(NBDTError, match="Class index 4 is outside 0 to 3"):
        rules.paths(torch.zeros(1, 4), classes=[4])
    with pytest.raises(NBDTError, match="Class index -1 is outside 0 to 3"):
        rules.paths(torch.zeros(1, 4), classes=torch.tensor([-1]))


def test_an_unknown_rule_is_refused_with_the_choices():
    with pytest.raises(NBDTError, match="Unknown rule 'mean'; choose 'representative'.*'marginal'"):
        DecisionRules(oracle.family(), rule="mean")


# Memory.


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gives back."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(
    "h",
    [
        oracle.star(20_000),
        oracle.random_tree(20_000),
        oracle.random_tree(20_000, arity=(2, 30), uneven=True),
        oracle.caterpillar(500),
    ],
    ids=Hierarchy.__repr__,
)
def test_memory_grows_with_the_nodes_and_not_with_their_square(h):
    z = torch.randn(2, h.num_classes)
    for rule in oracle.RULES:
        rules = DecisionRules(h, rule=rule)
        assert sum(buffer.numel() for buffer in rules.buffers()) < 100 * h.num_nodes
        with Largest() as largest:
            rules(z), rules.hard(z), rules.log_probs(z)
        assert 2 * h.num_classes <= largest.elements < 100 * h.num_nodes
