"""`nbdt cascade`: the threshold that it fits, what it measures and writes, and what it refuses."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from nbdt import NBDT, NBDTError
from nbdt.explain import explain
from nbdt.hierarchies.measure import cascade_command as module
from nbdt.hierarchies.measure.calibrate import calibrate
from nbdt.hierarchies.measure.cascade import (
    check_promise,
    fit_cascade,
    fitted_threshold,
    in_cascade,
)
from nbdt.hierarchies.measure.logits import Logits, class_logits
from nbdt.images.labelled import LabelledImages
from nbdt.model.cascade import LARGE, SMALL, members, split
from nbdt.model.fingerprint import model_hash
from nbdt.train.fit.network import start_network
from nbdt.train.recipe import load_recipe
from tests import oracle
from tests.cascades import large, photographs, small

COUNT = 480


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of noise in folders by what the large model says of them: it is always right."""
    root = tmp_path_factory.mktemp("data")
    images = photographs(COUNT)
    with torch.inference_mode():
        batch = torch.stack([large().preprocess(photo) for photo in images])
        labels = [path.class_name for path in large().paths(batch)]
    for index, (photo, label) in enumerate(zip(images, labels, strict=True)):
        (root / label).mkdir(exist_ok=True)
        photo.save(root / label / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Both models saved; the small one's input is made of other units and pixels."""
    root = tmp_path_factory.mktemp("models")
    for name, model in (("small", small()), ("large", large())):
        model.save(root / name)
    return root


def run(*arguments):
    return CliRunner().invoke(module.app, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def made(models, data, tmp_path_factory):
    """A cascade and its record."""
    out = tmp_path_factory.mktemp("out") / "m"
    with pytest.MonkeyPatch.context() as patch:  # the two models cost the same
        patch.setattr(module, "costs", lambda *_: {"8": _cheap()})
        options = ("--data", data, "--out", out, "--agreement", 0.9, "--json")
        done = run(models / "small", models / "large", *options)
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout.splitlines()[-1])


def _cheap():
    return {"small_ms": 1.0, "large_ms": 4.0, "small": 0.25, "cascade": 0.5}


# ---- the threshold -------------------------------------------------------------------------------

CASES = st.lists(
    st.tuples(st.sampled_from([k / 16 for k in range(1, 17)]), st.booleans()), min_size=1
)


@given(CASES, st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_the_threshold_is_the_smallest_that_keeps_the_promise(case, agreement):
    confidence, same = zip(*case, strict=True)
    expected = oracle.smallest_threshold(confidence, same, agreement)
    values = torch.tensor(confidence, dtype=torch.float64), torch.tensor(same)
    if expected is None:
        with pytest.raises(NBDTError, match="add photographs or ask for less"):
            fitted_threshold(*values, agreement)
        return
    found = fitted_threshold(*values, agreement)
    sure = values[0] > found
    assert torch.equal(sure, values[0] > expected)
    assert float((~sure | values[1]).double().mean()) >= agreement


@given(st.integers(0, 2**16))
def test_new_images_agree_as_often_as_was_asked(seed):
    """On average over draws; each draw fits on 60 images and tests on 600."""
    draw, found = torch.Generator().manual_seed(seed), []
    for _ in range(20):
        chances = torch.rand(660, generator=draw, dtype=torch.float64)
        same = torch.rand(660, generator=draw) < chances
        threshold = fitted_threshold(chances[:60], same[:60], 0.9)
        found.append(float((~(chances > threshold) | same)[60:].double().mean()))
    assert sum(found) / len(found) >= 0.9 - 4 * 0.05 / math.sqrt(20)


# ---- what is fitted and measured -------------------------------------------------------------------


def both(data, model):
    return [class_logits(one, data) for one in members(model).values()]


def test_the_record_is_what_the_saved_cascade_does(made, data):
    out, record = made
    model = NBDT.load(out)
    images = torch.stack([model.preprocess(photo) for photo in photographs(COUNT)])
    with torch.inference_mode():
        logits = model.logits(images)
        alone = large().logits(images)
    rules = model.head.rules
    same = rules(logits).argmax(1) == rules(alone).argmax(1)
    by_small = torch.zeros(COUNT, dtype=torch.bool)
    by_small[split(model, images)[0].rows] = True
    assert split(model, images)[0].by == SMALL
    assert 0.2 < by_small.double().mean() < 1
    assert same[~by_small].all()
    assert same.double().mean() >= 0.9 - 0.02
    half = record["images"]
    assert half == COUNT - record["fitted_on"] == COUNT // 2
    # All photographs together lie between the fitted half and the measured one.
    assert record["answered_by_small"]["value"] == pytest.approx(
        float(by_small.double().mean()), abs=0.1
    )
    assert record["agreement"]["value"] == pytest.approx(float(same.double().mean()), abs=0.06)
    accuracy = record["accuracy"]["shown"]
    assert accuracy["large"]["value"] == 1  # the labels are its answers
    assert accuracy["cascade"]["value"] == pytest.approx(record["agreement"]["value"])
    share = record["agreement"]["value"]
    error = math.sqrt(share * (1 - share) / (half - 1))
    assert record["agreement"]["standard_error"] == pytest.approx(error, rel=1e-2)
    assert accuracy["cascade - large"]["value"] == pytest.approx(share - 1)


def test_the_folder_has_both_models_the_parents_and_the_curve(made):
    out, record = made
    model = NBDT.load(out)
    facts = model.provenance["cascade"]
    assert facts["parents"] == {SMALL: model_hash(small()), LARGE: model_hash(large())}
    assert facts["threshold"] == record["threshold"] == model.cascade.gate.threshold
    assert facts["temperature"] == record["temperature"]
    assert facts["asked"] == 0.9
    assert (out / "cascade.png").read_bytes().startswith(b"\x89PNG")
    first, last = record["curve"][0], record["curve"][-1]
    assert first["answered_by_small"]["value"] == 1
    assert (last["answered_by_small"]["value"], last["agreement"]["value"]) == (0, 1)
    assert len(model.reference["labels"]) == record["reference"] == COUNT // 2


def test_logits_of_photographs_are_those_of_the_cascade(made, data):
    model = NBDT.load(made[0])
    found = class_logits(model, data)
    places = {str(data / large_label / f"{i}.png"): i for large_label, i in _places(data)}
    images = torch.stack([model.preprocess(photo) for photo in photographs(COUNT)])
    with torch.inference_mode():
        expected = model.logits(images)[[places[file] for file in found.files]]
    torch.testing.assert_close(found.logits, expected, atol=1e-3, rtol=1e-3)


def _places(data):
    return [(file.parent.name, int(file.stem)) for file in data.rglob("*.png")]


def test_few_photographs_promise_nothing_of_answers(data):
    model, logits = in_cascade(small(), large()), both(data, in_cascade(small(), large()))
    assert model.calibration is not None
    some = torch.arange(len(logits[0].labels)) < 60
    record = fit_cascade(model, *(one.pick(some) for one in logits), agreement=0.8)
    assert record["reference"] == 0
    assert model.calibration is None
    assert large().calibration is not None


def test_depth_asks_for_the_first_decisions_alone(data):
    deep, upper = (in_cascade(small(), large()) for _ in range(2))
    records = [
        fit_cascade(model, *both(data, model), agreement=0.95, depth=depth)
        for model, depth in ((deep, None), (upper, 1))
    ]
    assert upper.cascade.gate.depth == records[1]["depth"] == 1
    shares = [record["answered_by_small"]["value"] for record in records]
    assert shares[1] > shares[0]


def test_a_cascade_can_be_calibrated_again(made, data):
    model = NBDT.load(made[0])
    before = class_logits(model, data)
    facts = calibrate(model, before)
    after = class_logits(model, data)
    scaled = before.logits / facts["temperature"]
    torch.testing.assert_close(after.logits, scaled, atol=1e-3, rtol=1e-3)
    assert torch.equal(model.reference["logits"], scaled.half())


def test_the_same_network_at_another_size(data, models, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "costs", lambda *_: {"8": _cheap()})
    out = tmp_path / "m"
    options = ("--small-size", 24, "--agreement", 0.9)
    done = run(models / "large", models / "large", "--data", data, "--out", out, *options)
    assert done.exit_code == 0, done.output
    assert "answered by the small model" in done.stdout
    assert "same path as the large model" in done.stdout
    assert NBDT.load(out).cascade.small.preprocess.size == 24


# ---- what is refused -----------------------------------------------------------------------------


def test_a_cascade_that_saves_nothing_is_not_written(models, data, tmp_path):
    """The two networks cost the same."""
    out = tmp_path / "m"
    twice = models / "large", models / "large", "--data", data, "--out", out, "--agreement", 0.9
    for more, said in ([], "the same model"), (["--small-size", 32], "Nothing is written"):
        done = run(*twice, *more)
        assert done.exit_code == 1
        assert said in str(done.exception)
        assert not out.exists()


def test_other_classes_are_named(models, data, tmp_path):
    large().restrict(large().hierarchy.classes[:8]).save(tmp_path / "few")
    done = run(tmp_path / "few", models / "large", "--data", data, "--out", tmp_path / "m")
    assert done.exit_code == 1
    assert "ship" in str(done.exception)
    assert "truck" in str(done.exception)


def test_too_few_photographs_are_refused(models, data, tmp_path):
    options = ("--data", data, "--out", tmp_path / "m", "--agreement", 0.999)
    done = run(models / "small", models / "large", *options)
    assert done.exit_code == 1
    assert "takes 1,998 photographs" in str(done.exception)
    found = str(done.exception).split("got ")[1].split(";")[0]
    most = float(str(done.exception).split("less, ")[1].split()[0])
    check_promise(most, int(found))
    with pytest.raises(NBDTError, match="ask for less"):
        check_promise(most + 0.001, int(found))


@pytest.mark.parametrize("agreement", [0, 1, 1.5])
def test_an_agreement_out_of_range_is_refused(agreement):
    rows = Logits((), torch.zeros(0), torch.zeros(0, 10), ())
    with pytest.raises(NBDTError, match="agreement"):
        fit_cascade(in_cascade(small(), large()), rows, rows, agreement=agreement)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("export", ["--out", "x.onnx"]),
        ("compress", ["--data", "{data}", "--out", "x"]),
        ("audit", ["--data", "{data}", "--out", "x"]),
        ("cascade", ["cifar10", "--data", "{data}", "--out", "x"]),
    ],
)
def test_commands_that_take_one_model_say_so(made, data, tmp_path, monkeypatch, command, arguments):
    from nbdt.__main__ import app

    monkeypatch.chdir(tmp_path)
    given = [one.format(data=data) for one in arguments]
    done = CliRunner().invoke(app, [command, str(made[0]), *given])
    assert done.exit_code == 1
    assert "cascade" in str(done.exception)
    assert not [*tmp_path.iterdir()]


def test_training_does_not_start_from_a_cascade(made):
    with pytest.raises(NBDTError, match="cannot be trained"):
        start_network(load_recipe("cifar10"), made[0])


@pytest.mark.data
def test_photographs_of_a_thousand_classes(imagenet, data_dir):
    """The default network at 160 pixels, then at 260; 325 validation photographs."""
    few = imagenet.with_hierarchy(imagenet.hierarchy)
    few.preprocess = replace(imagenet.preprocess, size=160)
    model = in_cascade(few, imagenet)
    sources = [*LabelledImages(data_dir / "imagenet_val650_227.tar", model.hierarchy)][::2]
    record = fit_cascade(model, *both(sources, model), agreement=0.95)
    same, by_small = record["agreement"], record["answered_by_small"]["value"]
    assert same["value"] >= 0.95 - 3 * same["standard_error"]
    assert 0.3 < by_small < 1
    gain = record["accuracy"]["shown"]["cascade - large"]
    assert abs(gain["value"]) <= 3 * gain["standard_error"]
    photos = [source.open() for source in sources[:8]]
    found = explain(model, photos, level="fast", evidence=False)
    with torch.inference_mode():
        paths = model.paths(torch.stack([model.preprocess(photo) for photo in photos]))
    assert [one.path.class_name for one in found] == [path.class_name for path in paths]
