"""Learning from corrections: each at the node it is about, all else held, nothing guessed."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.correction import Correction, picture_hash, write_corrections
from nbdt.explain.maps.log_odds import log_odds
from nbdt.images.image import open_image
from nbdt.network.load import create_timm
from nbdt.progress import read_progress
from nbdt.train import fit_corrections
from nbdt.train.command import app
from nbdt.train.corrections.examples import find_targets, open_photographs
from nbdt.train.corrections.fit import CorrectionLoss, CorrectionSettings, region_shares
from nbdt.train.data.dataset import Images
from nbdt.tree.index import TreeIndex
from tests import oracle

ZOO = oracle.zoo()
IMAGE = "ab" * 32


def step(node, child, tree=ZOO, **changes):
    ids = {"node": tree.ids[tree.index(node)], "child": tree.ids[tree.index(child)]}
    return Correction(**{"kind": "step", "image": IMAGE, **ids, **changes})


def at(node, child):
    """The ids as they are, known or not."""
    return Correction("step", IMAGE, node=node, child=child)


# ---- where a correction belongs ----


def test_ids_survive_renames_and_new_nodes_in_between():
    fish = ZOO.index("fish")
    renamed = [n._replace(name="swimmer") if i == fish else n for i, n in enumerate(ZOO.nodes)]
    tree = Hierarchy(tuple(renamed), ZOO.classes)
    (target,), left_out = find_targets([step("animal", "ray")], tree)  # a step two levels down
    assert not left_out
    assert (target.node, target.child) == (tree.index("animal"), tree.index("swimmer"))
    assert target.nodes(tree) == [tree.index("animal")]


def test_what_has_no_place_is_reported_and_not_guessed():
    records = [
        at("gone", "saw"),
        at(ZOO.ids[ZOO.index("tool")], "gone"),
        at("saw", "axe"),
        step("animal", "tool"),
        Correction("label", IMAGE, label="heorn"),
        Correction("label", IMAGE, label="heron"),
    ]
    targets, left_out = find_targets(records, ZOO)
    assert [target.label for target in targets] == [ZOO.index("heron")]
    reasons = {item.correction: item.reason for item in left_out}
    assert "no node with the id 'gone'" in reasons[records[0]]
    assert "no node with the id 'gone'" in reasons[records[1]]
    assert "'saw' is a leaf: it decides nothing" in reasons[records[2]]
    assert "is not under" in reasons[records[3]]
    assert reasons[records[4]] == (
        "there is no node with the id 'heorn' in this hierarchy. Did you mean 'heron'?"
    )


def test_of_two_statements_about_one_decision_the_latest_counts():
    old = step("animal", "fish", time="2026-01-01T00:00:00+00:00")
    new = step("animal", "bird", time="2026-01-02T00:00:00+00:00")
    other = step("animal", "cat", image="cd" * 32)
    targets, left_out = find_targets([new, old, other], ZOO)
    assert {target.correction for target in targets} == {new, other}
    assert [item.correction for item in left_out] == [old]


def test_the_latest_is_so_by_the_clock_not_by_its_text():
    old = step("animal", "fish", time="2026-01-01T13:30:00+02:00")
    new = step("animal", "bird", time="2026-01-01T12:00:00+00:00")
    targets, _ = find_targets([new, old], ZOO)
    assert [target.correction for target in targets] == [new]


# ---- the losses against their reference implementations ----


@pytest.mark.parametrize("rule", oracle.RULES)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1.0, 30.0, 1e4]))
def test_the_losses_equal_their_definitions(rule, seed, size):
    rng = np.random.default_rng(seed)
    inner = list(ZOO.inner_nodes)
    records, said = [], []
    for row in range(6):
        node = int(rng.choice(inner))
        child = int(rng.choice(ZOO.children[node]))
        label = int(rng.integers(1, ZOO.num_nodes))
        if row % 2:
            record = Correction("label", f"{row:064x}", label=ZOO.ids[label])
            said.append(("label", label))
        else:
            record = Correction("step", f"{row:064x}", node=ZOO.ids[node], child=ZOO.ids[child])
            said.append(("step", child))
        records.append(record)
    z = rng.normal(size=(6, ZOO.num_classes)) * size
    targets, _ = find_targets(records, ZOO)
    targets.sort(key=lambda target: target.correction.image)
    found = CorrectionLoss(ZOO, rule, targets)(torch.tensor(z))
    expected = [
        oracle.correction_loss(ZOO, rule, row, what) for row, what in zip(z, said, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_region_share_is_of_the_decisions_own_map(rule):
    rng = np.random.default_rng(1)
    maps = torch.tensor(rng.normal(size=(2, 7, 3, 4)), requires_grad=True)
    linear = nn.Linear(7, ZOO.num_classes).double()
    logits = linear(maps.mean(dim=(2, 3)))
    region = torch.zeros(2, 3, 4, dtype=torch.float64)
    region[:, :2, 1:3] = 0.5
    nodes = torch.tensor([ZOO.index("fish"), ZOO.index("crane")])
    found = region_shares(logits, nodes, maps, linear.weight, region, TreeIndex(ZOO), rule)
    for row, node in enumerate(nodes.tolist()):
        # Grad-CAM by definition: the log-odds' gradient at the map, times the map.
        own = maps.detach()[row : row + 1].requires_grad_()
        z = linear(own.mean(dim=(2, 3)))
        (slope,) = torch.autograd.grad(log_odds(z, TreeIndex(ZOO), rule)[0, node], own)
        mass = (slope * own).sum(dim=1).abs()[0]
        expected = float((mass * region[row]).sum().detach() / mass.sum().detach())
        assert float(found[row].detach()) == pytest.approx(expected, rel=1e-6)
    assert torch.autograd.grad(found.sum(), maps)[0].abs().sum() > 0
    record = Correction("region", IMAGE, node=ZOO.ids[0], region=(0, 0, 1, 0.5))
    loss = CorrectionLoss(ZOO, rule, find_targets([record], ZOO)[0])
    with pytest.raises(ValueError, match="need feature maps"):
        loss(torch.zeros(1, 10))


# ---- fit ----

TREE = Hierarchy.from_nested({"warm": ["red", "pink"], "cold": ["blue", "green"]})
COLOURS = {
    "red": (200, 30, 30),
    "pink": (220, 120, 140),
    "blue": (30, 30, 200),
    "green": (30, 200, 30),
}


def picture(name, seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(-25, 25, (16, 16, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photos():
    return {name: [picture(name, 100 * i + j) for j in range(20)] for i, name in enumerate(COLOURS)}


@pytest.fixture(scope="module")
def data(photos):
    pixels = [np.array(image) for images in photos.values() for image in images]
    labels = torch.arange(4).repeat_interleave(20)
    return Images(labels, pixels=torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2).contiguous())


@pytest.fixture(scope="module")
def model(data):
    """Right on everything but pink, which it takes for red."""
    torch.manual_seed(0)
    tree = TREE if TREE.classes == tuple(COLOURS) else None
    assert tree is not None
    network = create_timm("small_convnet", 4)
    made = NBDT.from_network(network, "small_convnet", tree, rule="marginal").eval()
    made.preprocess = dataclasses.replace(made.preprocess, size=16, crop_pct=1.0)
    inputs = (
        data.pixels.float() / 255 - torch.tensor(made.preprocess.mean)[:, None, None]
    ) / torch.tensor(made.preprocess.std)[:, None, None]
    with torch.no_grad():
        features = made.features(inputs)
    wrong = data.labels.clone()
    wrong[20:36] = 0
    optimizer = torch.optim.Adam(made.head.linear.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made.head.linear(features), wrong).backward()
        optimizer.step()
    return made


def answers(model, images):
    with torch.no_grad():
        return model.head.hard(model.features(torch.stack([model.preprocess(i) for i in images])))


def saved(folder, images):
    """Files, and a record's hash and reference for each."""
    found = []
    for index, image in enumerate(images):
        image.save(folder / f"{index}.png")
        found.append({"image": picture_hash(image), "reference": f"{index}.png"})
    return found


def opener(folder):
    return lambda targets: open_photographs(targets, folder)


@pytest.mark.parametrize("learn", ["shift", "head"])
def test_a_step_is_learnt_and_the_rest_is_held(model, data, photos, tmp_path, learn):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pink = saved(tmp_path, photos["pink"][:10])
    warm = TREE.ids[TREE.index("warm")]
    records = [Correction("step", node=warm, child="pink", **facts) for facts in pink]
    settings = CorrectionSettings(strength=10.0, learn=learn, steps=60, batch_size=40)
    found = fit_corrections(model, records, data, settings, open_photos=opener(tmp_path))
    assert found.met_before < 0.5 < found.met_after
    assert found.loss_after < found.loss_before / 2
    assert set(found.applied) == set(records)
    assert (answers(found.model, photos["pink"]) == 1).float().mean() >= 0.8
    for index, name in ((2, "blue"), (3, "green")):
        assert (answers(found.model, photos[name]) == index).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    after = found.model.backbone.state_dict()
    assert all(torch.equal(v, after[name]) for name, v in model.backbone.state_dict().items())


def test_labels_are_learnt_too(model, data, photos, tmp_path):
    pink = saved(tmp_path, photos["pink"][:10])
    records = [Correction("label", label="pink", **facts) for facts in pink]
    settings = CorrectionSettings(strength=3.0, learn="head", steps=60)
    found = fit_corrections(model, records, data, settings, open_photos=opener(tmp_path))
    assert found.met_before < 0.5 < found.met_after


def test_a_group_is_learnt_without_a_word_on_its_classes(model, data, photos, tmp_path):
    pink = saved(tmp_path, photos["pink"][:10])
    cold = TREE.ids[TREE.index("cold")]
    records = [Correction("label", label=cold, **facts) for facts in pink]
    settings = CorrectionSettings(strength=10.0)
    found = fit_corrections(model, records, data, settings, open_photos=opener(tmp_path))
    assert found.loss_after < 0.8 * found.loss_before
    images = torch.stack([model.preprocess(image) for image in photos["pink"]])
    before, after = (m(images).log_softmax(1) for m in (model, found.model))
    for group in (TREE.classes_under(TREE.index("cold")), TREE.classes_under(TREE.index("warm"))):
        old, new = (chances[:, group].log_softmax(1) for chances in (before, after))
        torch.testing.assert_close(old, new, atol=1e-3, rtol=0)  # no decision inside moved
    root = Correction("label", IMAGE, label=TREE.ids[0])
    (left,) = find_targets([root], TREE)[1]
    assert "is the root" in left.reason


def test_an_irrelevant_region_loses_its_mass(model, data, photos, tmp_path):
    (facts,) = saved(tmp_path, photos["red"][:1])
    record = Correction("region", node=TREE.ids[0], region=(0.0, 0.0, 0.5, 1.0), **facts)
    settings = CorrectionSettings(
        strength=3.0, learn="head", steps=60, batch_size=40, learning_rate=1e-2
    )
    found = fit_corrections(model, [record], data, settings, open_photos=opener(tmp_path))
    with pytest.raises(NBDTError, match="an offset moves no map; learn a region with"):
        fit_corrections(model, [record], data, open_photos=opener(tmp_path))
    assert found.met_before != found.met_before  # nothing that a path could follow
    assert found.loss_after < 0.8 * found.loss_before


def test_photographs_that_are_gone_or_others_are_reported(model, data, photos, tmp_path):
    first, second = saved(tmp_path, photos["pink"][:2])
    records = [
        Correction("label", label="pink", **first),
        Correction("label", label="pink", image="12" * 32, reference=second["reference"]),
        Correction("label", label="pink", image="cd" * 32, reference="no.png", note="a"),
        Correction("label", label="pink", image="ef" * 32),
    ]
    settings = CorrectionSettings(steps=1)
    found = fit_corrections(model, records, data, settings, open_photos=opener(tmp_path))
    assert found.applied == (records[0],)
    reasons = " ".join(item.reason for item in found.left_out)
    for part in ("'1.png' is another picture than", "'no.png': expected", "names no photograph"):
        assert part in reasons
    with pytest.raises(NBDTError, match=r"None of the corrections can be used:\n- 1 × "):
        fit_corrections(model, records[1:2], data, settings, open_photos=opener(tmp_path))
    empty = data.pick(torch.arange(0))
    with pytest.raises(NBDTError, match="no images to replay"):
        fit_corrections(model, records, empty)


def test_settings_are_checked():
    with pytest.raises(NBDTError, match="strength and learning_rate above 0"):
        CorrectionSettings(strength=0)
    for bad in ({"learning_rate": 0.0}, {"learning_rate": -1e-3}, {"strength": float("nan")}):
        with pytest.raises(NBDTError, match="learning_rate above 0"):
            CorrectionSettings(**bad)
    with pytest.raises(NBDTError, match="'haed'.*'head'"):
        CorrectionSettings(learn="haed")


# ---- command ----


def test_the_command_ends_in_a_model(model, photos, tmp_path):
    for name, images in photos.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for index, image in enumerate(images):
            image.save(tmp_path / "data" / name / f"{index:02}.png")
    warm = TREE.ids[TREE.index("warm")]
    records = [
        Correction(
            "step", picture_hash(image), f"data/pink/{index:02}.png", node=warm, child="pink"
        )
        for index, image in enumerate(photos["pink"][:10])
    ]
    write_corrections([*records, Correction("label", IMAGE, label="mauve")], tmp_path / "c.jsonl")
    model.save(tmp_path / "old")
    arguments = [
        "--corrections", str(tmp_path / "c.jsonl"), "--model", str(tmp_path / "old"),
        "--data", str(tmp_path / "data"), "--out", str(tmp_path / "new"),
        "--set", "strength=3", "--set", "learn=head",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "1 × there is no node with the id 'mauve'" in done.stderr
    assert "10 corrections" in done.stdout
    new = NBDT.load(tmp_path / "new" / "model")
    facts = new.provenance["corrected"]
    assert (facts["applied"], facts["left_out"]) == (10, 1)
    assert facts["accuracy"]["after"]["hard"] >= facts["accuracy"]["before"]["hard"]
    assert json.dumps(facts["settings"])
    assert (answers(new, photos["pink"]) == 1).float().mean() >= 0.8
    with pytest.raises(NBDTError, match="exists already"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_for_another_process_every_line_of_stdout_is_an_event(tmp_path):
    write_corrections([Correction("label", IMAGE, label="cat")], tmp_path / "c.jsonl")
    done = CliRunner().invoke(
        app,
        ["--corrections", str(tmp_path / "c.jsonl"), "--data", str(tmp_path / "no"),
         "--model", "cifar10", "--out", str(tmp_path / "out"), "--progress", "json"],
    )  # fmt: skip
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    *_, last = events = list(read_progress(lines))
    assert len(events) == len(lines)
    assert last.event == "error"
    assert "no data folder" in last.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RECIPE"),
        (["cifar10", "--corrections", "c"], "RECIPE"),
        (["cifar10", "--model", "m"], "--model and --progress belong to --corrections"),
        (["cifar10", "--progress", "json"], "--model and --progress belong to"),
        (["--corrections", "c", "--resume"], "belong to a RECIPE"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(arguments, message):
    done = CliRunner().invoke(app, [*arguments, "--data", "d"])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", "").split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strength", "Expected key=value"),
        ("strngth=1", "Unknown key 'strngth' in the settings.*Did you mean 'strength'"),
        ("steps=many", "'steps' must be of type int, got 'many'"),
    ],
)
def test_settings_on_the_command_line_are_checked(text, message):
    from nbdt.train.corrections.run import settings_from

    with pytest.raises(NBDTError, match=message):
        settings_from([text])
    assert settings_from(["learning_rate=1e-4", "learn=head"]).learning_rate == 1e-4


def test_a_small_folder_teaches_a_model_whose_recipe_held_out_more_than_it_has(tmp_path):
    """The bundled model's recipe holds 500 images a class out; a visitor has a dozen."""
    from nbdt.train.corrections.run import correct

    bundled, rng = NBDT.load("cifar10"), np.random.default_rng(0)
    for name in bundled.hierarchy.classes:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    photo = tmp_path / "data" / "cat" / "0.png"
    said = Correction("label", picture_hash(open_image(photo)), reference=str(photo), label="cat")
    write_corrections([said], tmp_path / "said.jsonl")
    found = correct(
        bundled,
        tmp_path / "said.jsonl",
        tmp_path / "data",
        tmp_path / "out",
        CorrectionSettings(steps=2),
    )
    assert found.applied == (said,)
    assert (tmp_path / "out" / "model" / "config.json").is_file()
