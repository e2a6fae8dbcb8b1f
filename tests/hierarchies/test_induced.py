"""Induced trees: against reference implementations, their invariants, their errors and the bars on ImageNet."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from torch import nn

from nbdt import NBDTHead
from nbdt.decide.metrics import accuracy
from nbdt.errors import NBDTError
from nbdt.hierarchies import names
from nbdt.hierarchies.induced import DEFAULTS, class_distances, induce
from nbdt.hierarchies.wordnet.database import wordnet

LINKAGES = ("average", "ward", "complete")
NET = wordnet()
PETS = ["cat", "dog", "horse", "truck", "car", "ship", "crane", "heron"]


def random_weights(size, features=6, seed=0):
    return np.random.default_rng(seed).normal(size=(size, features))


def parts(size):
    return [f"part A-{index:03d}" for index in range(size)]


def clusters(tree):
    """The class sets of the inner nodes."""
    return {frozenset(tree.classes_under(node)) for node in tree.inner_nodes}


def units(weights):
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


# Reference implementations.


def merged(distances, linkage, weights):
    """All clusters of agglomerative clustering, from the definitions: the nearest pair merges."""

    def far(a, b):
        pairs = [distances[i, j] for i in a for j in b]
        if linkage == "ward":
            rows = units(weights)
            gap = rows[sorted(a)].mean(axis=0) - rows[sorted(b)].mean(axis=0)
            return np.sqrt(2 * len(a) * len(b) / (len(a) + len(b))) * np.linalg.norm(gap)
        return max(pairs) if linkage == "complete" else sum(pairs) / len(pairs)

    current, found = [frozenset([i]) for i in range(len(distances))], set()
    while len(current) > 1:
        a, b = min(itertools.combinations(current, 2), key=lambda pair: far(*pair))
        current = [c for c in current if c not in (a, b)] + [a | b]
        found.add(a | b)
    return found


def jiang_conrath(a, b):
    def above(synset):
        return {synset, *NET.ancestors(synset)}

    content = NET.information_content
    return content[a] + content[b] - 2 * max(content[c] for c in above(a) & above(b))


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("seed", range(4))
def test_merges_are_those_of_the_definition(linkage, seed):
    weights = random_weights(12, seed=seed)
    rows = units(weights)
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    tree = induce(weights, parts(12), linkage=linkage, names=False)
    assert clusters(tree) == merged(distances, linkage, weights)


@pytest.mark.parametrize("semantics", [0.25, 1.0])
def test_mixed_distances_are_ranks_of_both_kinds(semantics):
    rows = units(random_weights(8))
    synsets = [NET.senses(name)[0] for name in PETS]
    synsets[3] = None
    pairs = list(itertools.combinations(range(8), 2))
    raw = np.array([np.linalg.norm(rows[i] - rows[j]) for i, j in pairs])
    known = np.array([3 not in pair for pair in pairs])
    meaning = [jiang_conrath(synsets[i], synsets[j]) for i, j in pairs if 3 not in (i, j)]
    expected = (rankdata(raw) - 0.5) / len(raw)
    ranks = (rankdata(np.round(meaning, 12)) - 0.5) / len(meaning)
    expected[known] += semantics * (ranks - expected[known])
    np.testing.assert_allclose(class_distances(rows, synsets, semantics), expected, atol=1e-12)


def test_distances_without_semantics_are_euclidean_whatever_the_block():
    rows = units(random_weights(700, 20))  # three blocks
    found = squareform(class_distances(rows, [None] * 700, 0.0))
    np.testing.assert_allclose(found, np.linalg.norm(rows[:, None] - rows[None], axis=2), atol=1e-6)


def test_ranks_of_a_million_pairs_keep_their_order():
    rows = units(random_weights(1500, 20))  # several parts, many pairs a bin
    plain = class_distances(rows, [None] * 1500, 0.0)
    synsets = [NET.senses("cat")[0], NET.senses("dog")[0], *[None] * 1498]
    ranks = class_distances(rows, synsets, 0.5)[1:]
    order = np.argsort(plain[1:])
    assert (np.diff(ranks[order]) >= 0).all()
    exact = rankdata(plain[1:]) / len(ranks)
    assert np.abs(ranks - exact).max() < 1e-4


# Branching.


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("branching", [3, 4, 8])
def test_branching_contracts_the_binary_tree_as_far_as_it_goes(linkage, branching):
    weights, classes = random_weights(60), parts(60)
    binary = induce(weights, classes, linkage=linkage, names=False)
    tree = induce(weights, classes, linkage=linkage, branching=branching, names=False)
    arity = [len(children) for children in tree.children]
    assert clusters(tree) < clusters(binary)
    assert max(arity) <= branching
    for node in tree.inner_nodes[1:]:
        assert arity[tree.parents[node]] + arity[node] - 1 > branching


@pytest.mark.parametrize("rule", [None, "marginal", "representative"])
def test_long_paths_are_shortened_unless_the_branching_is_given(rule):
    # Ever smaller steps along a line: each merge adds one class, the worst case.
    angles = 1.4 * 0.65 ** np.arange(30)
    weights = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    long = induce(weights, parts(30), rule=rule, branching=2, names=False)
    tree = induce(weights, parts(30), rule=rule, names=False)
    assert long.depth > 8 >= tree.depth
    assert clusters(tree) < clusters(long)
    assert max(map(len, tree.children)) <= 8


def test_branching_beyond_the_classes_gives_one_decision():
    assert induce(random_weights(9), parts(9), branching=9, names=False).depth == 1


def test_the_smallest_rise_is_contracted_first():
    # Two tight pairs; the pair of pairs is hardly farther than the second pair is wide.
    angles = np.radians([0, 10, 40, 58])
    weights = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    tree = induce(weights, list("abcd"), linkage="complete", branching=3, names=False)
    assert clusters(tree) == {frozenset({0, 1}), frozenset(range(4))}


def test_branching_spares_what_wordnet_names():
    weights = random_weights(8, 64)
    tree = induce(weights, PETS, branching=8, semantics=1.0, linkage="average")
    assert {"motor vehicle", "animal", "carnivore"} <= set(tree.names)
    plain = induce(weights, PETS, branching=8, semantics=1.0, linkage="average", names=False)
    assert len(plain.inner_nodes) == 1


# Invariants.

weight_arrays = st.integers(2, 14).flatmap(
    lambda size: hnp.arrays(
        np.float64, (size, 3), elements=st.floats(-1e6, 1e6, allow_subnormal=False)
    ).filter(lambda rows: (np.abs(rows).max(axis=1) > 0).all())
)


@given(weight_arrays, st.sampled_from(sorted(LINKAGES)), st.integers(2, 5), st.booleans())
@settings(max_examples=60)
def test_any_weights_give_a_tree_of_exactly_the_classes(weights, linkage, branching, named):
    classes = parts(len(weights))
    arguments = {"linkage": linkage, "branching": branching, "names": named}
    tree = induce(weights, classes, **arguments)
    assert tree.classes == tuple(classes)
    assert sorted(tree.classes_under(0)) == list(range(len(classes)))
    assert all(len(children) <= branching for children in tree.children)
    assert len(set(tree.names)) == tree.num_nodes
    assert induce(weights.copy(), classes, **arguments) == tree
    powers = 2.0 ** np.arange(len(weights))
    assert induce(weights * powers[:, None], classes, **arguments) == tree


@given(
    st.lists(st.sampled_from(PETS), min_size=2, unique=True),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 99),
)
@settings(max_examples=40)
def test_semantic_trees_hold_the_invariants_too(classes, semantics, seed):
    weights = random_weights(len(classes), seed=seed)
    tree = induce(weights, classes, semantics=semantics, branching=3)
    assert tree.classes == tuple(classes)
    assert all(len(children) <= 3 for children in tree.children)
    scale = np.random.default_rng(seed).uniform(0.1, 10, size=(len(classes), 1))
    assert induce(weights * scale, classes, semantics=semantics, branching=3) == tree


def test_equal_rows_and_huge_or_tiny_ones_are_no_problem():
    rows = np.array([[1e-300, 0], [1e300, 0], [0, 1e-200], [0, 3.0]])
    tree = induce(rows, list("abcd"), names=False)
    assert clusters(tree) == {frozenset({0, 1}), frozenset({2, 3}), frozenset(range(4))}


def test_semantics_one_is_wordnet_alone():
    trees = {induce(random_weights(8, seed=seed), PETS, semantics=1.0).hash for seed in range(3)}
    assert len(trees) == 1


def test_classes_without_meaning_give_the_tree_of_their_weights():
    weights, classes = random_weights(20), parts(20)
    tree = induce(weights, classes, rule="marginal")
    plain = induce(weights, classes, linkage=DEFAULTS["marginal"].linkage, branching=3, names=False)
    assert clusters(tree) == clusters(plain)
    assert tree.names[0] == "all classes"
    assert any(name.startswith("part A-0") and " + " in name for name in tree.names)


# Models and settings.


def test_a_rule_brings_its_settings_and_they_can_be_replaced():
    weights = random_weights(8)
    for rule in ("marginal", "representative"):
        chosen = DEFAULTS[rule]
        spelled = {
            "linkage": chosen.linkage,
            "branching": chosen.branching,
            "semantics": chosen.semantics,
        }
        assert induce(weights, PETS, rule=rule) == induce(weights, PETS, **spelled)
        replaced = induce(weights, PETS, rule=rule, branching=3)
        assert replaced == induce(weights, PETS, **(spelled | {"branching": 3}))


def test_models_layers_and_tensors_are_read_alike():
    linear = nn.Linear(6, 8)
    expected = induce(linear.weight.detach().numpy(), PETS)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), linear)
    for source in (linear, linear.weight, model):
        assert induce(source, PETS) == expected
    head = NBDTHead.from_linear(linear, expected, rule="marginal")
    for source in (head, nn.Sequential(nn.Linear(4, 6), head)):
        assert induce(source) == expected
    assert induce(linear.weight.to(torch.bfloat16), PETS).classes == tuple(PETS)


def test_a_model_carries_its_wordnet_ids():
    wnids = ["n02012849", "n02009912"]
    tree = induce(np.eye(2), ["crane", "egret"], wnids=wnids)
    assert tree.nodes[1].wnid == "n02012849"
    head = NBDTHead(2, tree, rule="marginal")
    assert [node.wnid for node in induce(head).nodes[1:]] == wnids


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"linkage": "single"}, "Unknown linkage 'single'; there are average, ward, complete"),
        ({"rule": "soft"}, "Unknown rule 'soft'; there are marginal, representative"),
        ({"branching": 1}, "branching of 2 or more children, got 1"),
        ({"branching": 2.5}, "branching of 2 or more children, got 2.5"),
        ({"branching": True}, "branching of 2 or more children, got True"),
        ({"semantics": 1.5}, r"number in \[0, 1\], got 1.5"),
        ({"semantics": float("nan")}, r"number in \[0, 1\], got nan"),
        ({"semantics": "much"}, r"number in \[0, 1\], got 'much'"),
        ({"wnids": ["n02012849"]}, "for each of 4 classes, got 1"),
        ({"wnids": [], "names": False}, "for each of 4 classes, got 0"),
        ({"wnids": ["dog", None, None, None]}, "such as 'n02084071', got 'dog'"),
        ({"semantics": 0.5}, "WordNet knows fewer than two of the classes"),
        ({"classes": None}, "Expected the names of the classes"),
        ({"classes": "abcd"}, "Expected a list of class names"),
        ({"classes": [1, 2, 3, 4]}, "Expected a list of class names"),
        ({"classes": parts(3)}, r"weights of shape \(3, features\)"),
        ({"weights": np.zeros((4, 6))}, "zero or not finite"),
        ({"weights": np.full((4, 6), np.nan)}, "zero or not finite"),
        ({"weights": np.ones((1, 6)), "classes": ["a"]}, "two or more classes, got 1"),
        ({"weights": np.ones((4, 0))}, "zero or not finite"),
        ({"weights": nn.Linear(6, 4), "classes": None}, "Linear does not know its classes"),
        ({"weights": nn.Sequential(nn.Linear(6, 5))}, "with 4 outputs"),
        ({"weights": nn.ReLU()}, "with 4 outputs"),
    ],
)
def test_errors_say_what_was_expected(arguments, message):
    given = {"weights": random_weights(4), "classes": parts(4)} | arguments
    with pytest.raises(NBDTError, match=message):
        induce(given.pop("weights"), given.pop("classes"), **given)


# ImageNet.


@pytest.fixture(scope="module")
def mobilenet(data_dir):
    """(state dict, wnids): timm's class order is the ascending one."""
    import tarfile

    path = data_dir / "weights" / "imagenet_mobilenetv2_100_tf2ptq_fp16.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    with tarfile.open(data_dir / "imagenet1000_s256_q90.tar") as archive:
        files = [name.rpartition("/")[2] for name in archive.getnames()]
    return state, sorted(name.split("_")[0] for name in files if name.endswith(".jpg"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("rule", "good", "bar"),
    [
        ("marginal", lambda row: row.named, 0.8),
        ("representative", lambda row: row.wnid is not None, 0.75),
    ],
)
def test_imagenet_trees_are_named(mobilenet, rule, good, bar):
    state, wnids = mobilenet
    tree = induce(state["classifier.weight"], wnids, wnids=wnids, rule=rule)
    assert sum(map(good, names(tree))) >= bar * len(tree.inner_nodes)
    assert len(set(tree.names)) == tree.num_nodes


@pytest.mark.data
@pytest.mark.slow
def test_imagenet_hard_accuracy_is_within_a_point_of_flat(mobilenet, data_dir):
    from nbdt import DecisionRules
    from nbdt.images.dataset import iter_images
    from nbdt.network.load import import_timm

    state, wnids = mobilenet
    model = import_timm().create_model("mobilenetv2_100", pad_type="same").eval()
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    logits, labels = [], []
    with torch.inference_mode():
        for source in iter_images(data_dir / "imagenet1000_s256_q90.tar"):
            image = source.open()
            left, top = (image.width - 224) // 2, (image.height - 224) // 2
            pixels = np.array(image.crop((left, top, left + 224, top + 224)))
            images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
            logits.append(model(images)[0])
            labels.append(wnids.index(source.reference.rpartition("!")[2].partition("_")[0]))
    logits, labels = torch.stack(logits), torch.tensor(labels)
    tree = induce(model, wnids, wnids=wnids, rule="marginal")
    hard = accuracy(DecisionRules(tree, rule="marginal").hard(logits), labels)
    assert hard >= accuracy(logits.argmax(dim=1), labels) - 0.01
