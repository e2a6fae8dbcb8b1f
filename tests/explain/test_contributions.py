"""Decisions as sums over the photographs of a memory: exact, saved, shown, and gone after a change."""

import io
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, DecisionRules, Hierarchy
from nbdt.decide.head import NBDTHead
from nbdt.explain import Explanation, explain
from nbdt.explain.evidence.contributions import AGAINST, FOR
from nbdt.explain.result.contributions import Contribution, DecisionContributions, signed
from nbdt.explain.result.html import to_html
from nbdt.images.image import ImageError
from nbdt.images.sources import ImageSource
from nbdt.model.features import Features
from nbdt.model.remember import make_memory
from tests import oracle

TREE = Hierarchy.from_nested({"warm": ["red", "orange"], "cold": ["blue", "green"]})
COLOURS = {
    "red": (220, 30, 30),
    "orange": (230, 140, 20),
    "blue": (30, 40, 220),
    "green": (20, 180, 50),
}


def photograph(name, number):
    draw = np.random.default_rng([number, *name.encode()])
    pixels = np.array(COLOURS[name]) + draw.normal(0, 40, (40, 40, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module", params=oracle.RULES)
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    made = NBDT.from_timm("resnet10t", TREE, rule=request.param).eval()
    made.use_memory(tmp_path_factory.mktemp("memory") / "memory")
    memory = make_memory(made, made.memory_place)
    for name in COLOURS:
        memory.add([photograph(name, n) for n in range(6)], name, pictures=True)
    made.refit()
    return made


@pytest.fixture(scope="module")
def explanation(model):
    return explain(model, photograph("red", 50))[0]


def test_the_parts_of_every_decision_add_up_to_the_number_on_the_branch(model, explanation):
    assert len(explanation.contributions) == len(explanation.path) == 2
    for decision, found in zip(explanation.path, explanation.contributions, strict=True):
        assert found.log_odds == pytest.approx(decision.margin, rel=1e-3, abs=1e-3)
        assert len(found.supporting) <= FOR
        assert len(found.opposing) <= AGAINST
        assert len(found.supporting) + len(found.opposing) + found.others == 24
        values = [one.value for one in found.supporting]
        assert values == sorted(values, reverse=True)
        assert all(one.value < 0 for one in found.opposing)
        assert {one.label for one in found.supporting} <= {*COLOURS}
        assert (found.entropy == 0) == (model.rule == "representative" or decision.node != "root")


def test_the_largest_parts_are_shown(model, explanation):
    image = photograph("red", 50)
    features = model.features(model.preprocess(image)[None])[0]
    attribution = model.memory.attribution(model.fitted, model.head.rules)
    (first, *_), path = explanation.contributions, explanation.path
    pair = [
        model.hierarchy.index(path.decisions[0].child_ids[child])
        for child in (path.decisions[0].chosen, path.decisions[0].runner_up)
    ]
    rows = attribution.contributions(features, [tuple(pair)]).rows[0].tolist()
    assert [one.value for one in first.supporting] == pytest.approx(
        sorted((v for v in rows if v > 0), reverse=True)[:FOR], rel=1e-4
    )
    assert model.memory.attribution(model.fitted, model.head.rules) is attribution


def test_pictures_are_those_of_the_memory(explanation):
    picture = explanation.contributions[0].supporting[0].open()
    assert picture.size[0] == picture.size[1] > 32


def test_they_are_saved_loaded_and_shown(explanation, tmp_path):
    explanation.save(tmp_path / "saved")
    again = Explanation.load(tmp_path / "saved")
    assert again.contributions == explanation.contributions
    assert again.contributions[0].supporting[0].open().mode == "RGB"
    page = (tmp_path / "saved" / "index.html").read_text()
    for found in explanation.contributions:
        assert found.words in page
    assert "not what would happen" in page
    assert all(found.words in explanation._repr_html_() for found in explanation.contributions)
    record = explanation.to_dict()["contributions"]
    assert record[0]["supporting"][0]["row"] == explanation.contributions[0].supporting[0].row


def test_a_memory_that_changed_since_the_fit_says_so_until_it_is_fitted(model, tmp_path):
    image, version = photograph("blue", 51), model.memory.version
    model.memory.strike(model.memory.rows.ids[0], "to see")
    changed = explain(model, image)[0]
    assert changed.contributions == ()
    assert "nbdt memory refit" in changed.no_contributions
    assert changed.no_contributions.count(". ") == 0  # one sentence
    changed.save(tmp_path / "saved")
    again = Explanation.load(tmp_path / "saved")
    for shown in (to_html(again), to_html(changed), again._repr_html_()):
        assert shown.count(changed.no_contributions) == 1
    assert again.to_dict()["no_contributions"] == changed.no_contributions
    model.refit()
    fitted = explain(model, image)[0]
    assert fitted.contributions[0].others == 23 - FOR - AGAINST
    assert not fitted.no_contributions
    model.memory.restore(version)
    model.refit()


def test_a_model_without_memory_has_none(cifar10):
    alone = explain(cifar10, photograph("red", 1))[0]
    assert alone.contributions == ()
    assert not alone.no_contributions
    assert "Contributed" not in to_html(alone)


def test_settings_that_are_none_are_not_listed(explanation):
    made = {**explanation.made, "nothing": None, "deep": {"none": None, "some": 3}}
    page = to_html(replace(explanation, made=made))
    assert "nothing" not in page
    assert "deep some" in page
    assert ">None<" not in page


def one(value):
    def gone():
        raise ImageError("none")

    return Contribution("x.png", "red", value, "ab", gone)


def test_the_rounded_parts_in_words_add_up():
    draw = np.random.default_rng(0)
    for _ in range(50):
        values = draw.normal(0, 1, 10)
        found = DecisionContributions(
            tuple(one(abs(v)) for v in values[:5]), tuple(one(-abs(v)) for v in values[5:7]),
            412, *values[7:].tolist(),
        )  # fmt: skip
        numbers = [
            float(text.replace("−", "-")) for text in re.findall(r"[+−]?\d+\.\d", found.words)
        ]
        assert numbers[0] == pytest.approx(sum(numbers[1:]), abs=1e-9)
        assert numbers[0] == pytest.approx(found.log_odds, abs=0.0501)
        assert "412 others" in found.words


def test_words_name_what_there_is():
    alone = DecisionContributions((one(1.04),), (), 0, 0.0, 0.0, 0.0)
    assert alone.words == "Of +1.0: +1.0 from this one, 0.0 from no photograph."
    assert signed(-0.04) == "0.0"


# ---- on real photographs -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def caltech(imagenet, data_dir, tmp_path_factory):
    """A model over 33 classes with a memory of five photographs each; 200 others, as features."""
    with tarfile.open(data_dir / "caltech33_s256_q90.tar") as archive:
        names = sorted(item.name for item in archive if item.isfile())
        classes = sorted({name.split("/")[1] for name in names})
        training = [n for c in classes for n in names if n.startswith(f"train/{c}/")]
        chosen = [n for c in classes for n in [t for t in training if f"/{c}/" in t][:5]]
        tests = [n for n in names if n.startswith("test/")]
        chosen += tests[:: len(tests) // 200][:200]

        def features(name):
            image = Image.open(io.BytesIO(archive.extractfile(name).read()))
            return imagenet.features(imagenet.preprocess(image)[None])[0]

        with torch.inference_mode():
            values = torch.stack([features(name) for name in chosen])
    groups = [[f"group {n % 6}", f"part {n % 12}", name] for n, name in enumerate(classes)]
    tree = Hierarchy.from_paths(groups)
    count = 5 * len(classes)
    head = NBDTHead(values.shape[1], tree, rule="marginal")
    model = NBDT(imagenet.backbone, head, imagenet.architecture, imagenet.preprocess).eval()
    memory = make_memory(model, tmp_path_factory.mktemp("caltech") / "memory")
    sources = [source(name) for name in chosen[:count]]
    keys = [n.to_bytes(32, "big") for n in range(count)]
    known = Features(values[:count], sources, range(count), keys, [None] * count, ())
    memory.insert(known, [each.label for each in sources])
    model.use_memory(memory.table.place)
    return model, values[count:]


def source(name):
    return ImageSource(name, name.split("/")[1], lambda: None)


@pytest.mark.data
@pytest.mark.parametrize("rule", oracle.RULES)
def test_every_decision_of_200_photographs_is_the_sum_of_its_parts(caltech, rule):
    model, photographs = caltech
    assert len(photographs) == 200
    tree, memory = model.hierarchy, model.memory
    rules = DecisionRules(tree, rule=rule)
    fitted = memory.fit(rules, None, choose=True)
    attribution = memory.attribution(fitted, rules)
    examples = attribution.examples
    total = decisions = 0
    weight, bias = fitted.weight.double(), fitted.bias.double()
    for number, features in enumerate(photographs):
        logits = (features.double() @ weight.T + bias).numpy()[None]
        path = rules.paths(torch.from_numpy(logits))[0]
        pairs = [
            (tree.index(d.child_ids[d.chosen]), tree.index(d.child_ids[d.runner_up])) for d in path
        ]
        found = attribution.contributions(features, pairs)
        scores = oracle.node_scores(tree, logits, rule)[0]
        for row, (chosen, other) in enumerate(pairs):
            parts = found.row(row)
            summed = float(parts.rows.double().sum() + parts.bias + parts.entropy)
            expected = scores[chosen] - scores[other]
            # Float32 holds no more: 5e-5 of log-odds below 0.05.
            assert summed == pytest.approx(expected, rel=1e-3, abs=5e-5), (number, row)
            decisions += 1
            total += abs(summed - expected)
    assert decisions > 400
    assert total / decisions < 5e-5
    assert len(examples.features) == 165
