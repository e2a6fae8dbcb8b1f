"""Evaluation: two trees on the same logits against a plain loop, the kept logits, the command."""

import json
import math
import shutil
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt import NBDT, DecisionRules, Hierarchy, NBDTError
from nbdt.hierarchies import edit
from nbdt.hierarchies.measure.answers import Measurement, answer_record, group_record
from nbdt.hierarchies.measure.command import app, comparison_record, tree_record
from nbdt.hierarchies.measure.comparison import VERDICTS, Comparison, measure, quality
from nbdt.hierarchies.measure.logits import class_logits, unlabelled_logits
from nbdt.hierarchies.measure.report import picture
from nbdt.model import features
from nbdt.tree.labels import likeliest_under
from tests import oracle

CLASSES = ["cat", "dog", "car", "bus", "grey_wolf"]
OLD = Hierarchy.from_nested(
    {"animal": ["cat", {"canine": ["dog", "grey_wolf"]}], "vehicle": ["car", "bus"]}, CLASSES
)
NEW = Hierarchy.from_nested(
    {"animal": [{"canine": ["dog", "cat"]}, "grey_wolf"], "vehicle": ["car", "bus"]}, CLASSES
)


def random_logits(count=300, seed=0, spread=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (count,), generator=generator)
    logits = spread * torch.randn(count, 5, generator=generator)
    logits[torch.arange(count), labels] += 1.5
    return logits, labels


# ---- two trees on the same logits ----


def plainly(logits, labels, tree, rule):
    """Results of each inner node, an image and a node at a time."""
    found = {}
    log_probs = DecisionRules(tree, rule=rule).log_probs(logits)
    for row, label in zip(log_probs, labels.tolist(), strict=True):
        path = tree.path_of_class(label)
        for node, child in pairwise(path):
            best = max(tree.children[node], key=lambda other: row[other])
            found.setdefault(node, []).append((best == child, float(row[child])))
    return found


@pytest.mark.parametrize("rule", ["marginal", "representative"])
def test_nodes_are_measured_as_a_plain_loop_does(rule, monkeypatch):
    monkeypatch.setattr("nbdt.hierarchies.measure.comparison.CHUNK", 70)
    logits, labels = random_logits()
    found = measure(logits, labels, OLD, rule).nodes
    expected = plainly(logits, labels, OLD, rule)
    assert found.keys() == expected.keys()
    for node, rows in expected.items():
        assert found[node].images == len(rows)
        assert found[node].mistakes == sum(not right for right, _ in rows)
        assert found[node].accuracy == pytest.approx(sum(right for right, _ in rows) / len(rows))
        assert found[node].log_prob == pytest.approx(sum(lp for _, lp in rows) / len(rows))


@pytest.mark.parametrize("rule", ["marginal", "representative"])
def test_quality_is_that_of_each_answer(rule, monkeypatch):
    monkeypatch.setattr("nbdt.hierarchies.measure.comparison.CHUNK", 70)
    logits, labels = random_logits()
    found = quality(measure(logits, labels, OLD, rule))
    rules = DecisionRules(OLD, rule=rule)
    answers = {
        "flat": logits.argmax(1),
        "soft": rules(logits).argmax(1),
        "hard": rules.hard(logits),
    }
    for kind, answer in answers.items():
        pairs = zip(answer.tolist(), labels.tolist(), strict=True)
        climbs = [oracle.height_of_common_ancestor(OLD, *pair) for pair in pairs]
        mistakes = [climb for climb in climbs if climb]
        assert found[kind]["accuracy"] == pytest.approx(1 - len(mistakes) / 300)
        assert found[kind]["distance"] == pytest.approx(sum(climbs) / 300)
        assert found[kind]["severity"] == pytest.approx(sum(mistakes) / len(mistakes))
    for kind, table in {"flat": logits.softmax(1), "soft": rules(logits).exp()}.items():
        right = (answers[kind] == labels).tolist()
        expected = oracle.calibration_error(table.amax(1).tolist(), right, 15)
        assert found[kind]["calibration_error"] == pytest.approx(expected, abs=1e-6)
    assert "calibration_error" not in found["hard"]


def test_without_mistakes_there_is_no_severity():
    labels = torch.arange(5)
    found = quality(measure(20 * torch.eye(5), labels, OLD, "marginal"))
    assert found["hard"] == {"accuracy": 1.0, "distance": 0.0, "severity": 0.0}


def test_nodes_without_images_are_left_out():
    logits, _ = random_logits(20)
    found = measure(logits, torch.zeros(20, dtype=torch.int64), OLD, "marginal").nodes
    assert set(found) == {0, OLD.index("animal")}


@pytest.mark.parametrize("rule", ["marginal", "representative"])
def test_changed_images_are_those_whose_answer_or_path_differs(rule):
    logits, labels = random_logits()
    before, after = (measure(logits, labels, tree, rule) for tree in (OLD, NEW))
    found = Comparison(before, after)
    verdicts, counts = dict(found.images), comparison_record(found, [""] * len(logits))["verdicts"]
    old, new = (DecisionRules(tree, rule=rule) for tree in (OLD, NEW))
    paths = zip(*(one.paths(logits, one.hard(logits).tolist()) for one in (old, new)), strict=True)
    soft_changed = (old(logits).argmax(1) != new(logits).argmax(1)).tolist()
    for image, (one, two) in enumerate(paths):
        label, verdict = int(labels[image]), verdicts.get(image)
        if one.class_index != two.class_index:
            right = one.class_index == label, two.class_index == label
            words = {(True, False): "now wrong", (False, True): "now right"}
            assert verdict == words.get(right, "still wrong")
        elif one.class_name in {"cat", "grey_wolf"}:
            assert verdict == "other path"
        else:
            assert verdict == ("other soft answer" if soft_changed[image] else None)
    assert sum(counts.values()) == len(found.images)
    assert {"now right", "now wrong", "other path"} <= set(verdicts.values()) <= set(VERDICTS)
    assert (counts["other soft answer"] > 0) == (rule == "representative")


def test_marginal_soft_answers_never_change():
    logits, labels = random_logits()
    before, after = (measure(logits, labels, tree, "marginal") for tree in (OLD, NEW))
    assert torch.equal(before.soft, after.soft)
    assert before.accuracy["soft"] == after.accuracy["soft"]
    assert torch.equal(before.soft, logits.argmax(1))


def test_a_rename_changes_nothing():
    logits, labels = random_logits()
    nodes = tuple(
        node._replace(name="road vehicle") if node.name == "vehicle" else node for node in OLD.nodes
    )
    renamed = Hierarchy(nodes, OLD.classes)
    found = Comparison(*(measure(logits, labels, tree, "marginal") for tree in (OLD, renamed)))
    assert not found.images
    assert all(change.gain == 0 and change.before == change.after for change in found.nodes)


def test_nodes_got_easier_or_harder_where_the_edit_was():
    logits, labels = random_logits(2000)
    # Cats and dogs are confused with each other, wolves with no other class.
    pets = labels < 2
    logits[pets, 0] = logits[pets, 1] = 3.0
    logits += 0.01 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    found = Comparison(*(measure(logits, labels, tree, "marginal") for tree in (OLD, NEW)))
    gains = {change.name: change.gain for change in found.nodes}
    assert max(gains, key=gains.get) == "animal"
    assert min(gains, key=gains.get) == "canine"
    vehicle = next(change for change in found.nodes if change.name == "vehicle")
    assert vehicle.gain == 0
    assert vehicle.before == vehicle.after


def test_a_group_with_another_name_and_other_classes_is_still_the_same():
    logits, labels = random_logits()
    moved, _ = edit.move(OLD, "car", "canine")
    for name in ("canine", "pet"):
        after = edit.rename(moved, "canine", name)[0] if name != "canine" else moved
        found = Comparison(*(measure(logits, labels, tree, "marginal") for tree in (OLD, after)))
        change = next(change for change in found.nodes if change.name == name)
        assert change.before == found.before.nodes[OLD.index("canine")]
        assert change.before != change.after


def test_nodes_that_only_one_tree_has_are_listed():
    logits, labels = random_logits()
    flat = Hierarchy.from_nested({"all": CLASSES}, CLASSES)
    found = Comparison(*(measure(logits, labels, tree, "marginal") for tree in (OLD, flat)))
    gone = {change.name for change in found.nodes if change.after is None}
    assert gone == {"animal", "canine", "vehicle"}
    assert all(change.gain == 0 for change in found.nodes if change.after is None)


def test_other_classes_or_another_order_are_refused():
    logits, labels = random_logits()
    before = measure(logits, labels, OLD, "marginal")
    shuffled = Hierarchy(OLD.nodes, tuple(reversed(CLASSES)))
    with pytest.raises(NBDTError, match="another order: class 0 is 'grey_wolf' instead of 'cat'"):
        Comparison(before, measure(logits, labels, shuffled, "marginal"))
    other = Hierarchy.from_nested({"a": ["cat", "dog"], "b": ["car", "bus", "fox"]})
    with pytest.raises(NBDTError, match="lacks 'grey_wolf' and also has 'fox'"):
        Comparison(before, measure(logits, labels, other, "marginal"))


def test_records_are_plain_data():
    logits, labels = random_logits(50)
    found = Comparison(*(measure(logits, labels, tree, "marginal") for tree in (OLD, NEW)))
    files = [f"{index}.png" for index in range(50)]
    data = json.loads(json.dumps(comparison_record(found, files)))
    first, image = data["images"][0], next(iter(found.images))
    assert first["file"] == files[image]
    assert first["label"] == CLASSES[int(labels[image])]
    assert first["before"]["path"][-1] == first["before"]["hard"]
    assert tree_record(found.before)["hierarchy"] == OLD.hash


def test_pictures_take_any_name():
    strange = Hierarchy.from_nested({"$x^$ 犬 " + "y" * 90: ["a$", "b"], "z": ["c", "d", "e"]})
    logits, labels = random_logits(60)
    before = measure(logits, labels, strange, "marginal")
    record = {"images": 60, "answers": answer_record(before, {})}
    assert picture(record).startswith(b"\x89PNG")
    other = Hierarchy.from_nested({"$x": ["a$", "c"], "z": ["b", "d", "e"]}, strange.classes)
    after = measure(logits, labels, other, "marginal")
    trees = {"before": tree_record(before), "after": tree_record(after)}
    changes = comparison_record(Comparison(before, after), [""] * 60)
    assert picture(record | trees | {"changes": changes}).startswith(b"\x89PNG")


# ---- logits, kept ----


def photograph(path, seed):
    torch.manual_seed(seed)
    noise = torch.randint(0, 256, (36, 48, 3), dtype=torch.uint8).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path)


@pytest.fixture
def data(tmp_path):
    """A folder with two photographs of each of four classes, under several spellings."""
    names = ["cat", "Dog", "CAR", "Grey Wolf"]
    for place, name in enumerate(names):
        for number in range(2):
            photograph(tmp_path / "data" / name / f"{number}.png", 10 * place + number)
    return tmp_path / "data"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return NBDT.from_timm("small_convnet", OLD, rule="marginal").eval()


def test_logits_are_the_models_own(model, data):
    found = class_logits(model, data)
    assert found.labels.tolist() == [2, 2, 1, 1, 4, 4, 0, 0]  # by folder: CAR, Dog, Grey Wolf, cat
    for index, file in enumerate(found.files):
        image = model.preprocess(Image.open(file).convert("RGB"))[None]
        with torch.inference_mode():
            expected = model.head.linear(model.features(image))[0]
        assert torch.allclose(found.logits[index], expected, atol=1e-5)


def test_a_second_look_computes_nothing(model, data, monkeypatch):
    first = class_logits(model, data)
    monkeypatch.setattr(features, "_pooled", lambda *_: pytest.fail("computed again"))
    again = class_logits(model, data)
    assert again.files == first.files
    assert torch.equal(again.logits, first.logits)
    assert torch.equal(again.labels, first.labels)
    # Another tree or last layer on the same network is the point of keeping embeddings.
    model.head.rules = DecisionRules(NEW, rule="representative")
    assert torch.equal(class_logits(model, data).logits, first.logits)
    model.head.scale_logits(2)
    assert torch.allclose(class_logits(model, data).logits, 2 * first.logits)


def test_a_table_gives_the_logits_of_its_photographs(model, data, tmp_path):
    """They are computed again when a photograph changes, although the table does not."""
    files = sorted(data.rglob("*.png"))
    lines = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in files]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *lines]))
    found, expected = (
        class_logits(model, tmp_path / "t.csv"),
        class_logits(model, data),
    )
    assert found.labels.tolist() == expected.labels.tolist()
    assert torch.equal(found.logits, expected.logits)
    photograph(files[0], 99)
    again = class_logits(model, tmp_path / "t.csv")
    assert not torch.equal(again.logits[0], found.logits[0])
    assert torch.equal(again.logits[1:], found.logits[1:])


def test_labels_that_are_no_class_are_listed(model, data):
    photograph(data / "tiger" / "x.png", 1)
    photograph(data / "cta" / "x.png", 1)
    with pytest.raises(NBDTError, match=r"6 labels; 2 of them.*'cta', 'tiger'.*'cat'"):
        class_logits(model, data)


def test_files_named_by_wordnet_ids_need_no_folder(tmp_path):
    nodes = tuple(
        node._replace(wnid="n02121620") if node.id == "cat" else node for node in OLD.nodes
    )
    tree = Hierarchy(nodes, OLD.classes)
    model = NBDT.from_timm("small_convnet", tree, rule="marginal").eval()
    photograph(tmp_path / "n02121620_some_cat.png", 0)
    with tarfile.open(tmp_path / "flat.tar", "w") as archive:
        archive.add(tmp_path / "n02121620_some_cat.png", "n02121620_some_cat.png")
    assert class_logits(model, tmp_path / "flat.tar").labels.tolist() == [0]
    photograph(tmp_path / "cat.png", 0)
    with tarfile.open(tmp_path / "none.tar", "w") as archive:
        archive.add(tmp_path / "cat.png", "cat.png")
    with pytest.raises(NBDTError, match="expected class folders .*got none"):
        class_logits(model, tmp_path / "none.tar")


def test_photographs_of_other_things_need_no_labels(model, data, tmp_path):
    photograph(data / "tiger" / "x.png", 99)
    (data / "tiger" / "bad.png").write_bytes(b"no image")
    found = unlabelled_logits(model, data)
    assert found.labels.tolist() == [-1] * 9
    assert "bad.png" in found.failed[0]
    place = [file.endswith("x.png") for file in found.files].index(True)
    alone = unlabelled_logits(model, data / "tiger" / "x.png")
    assert torch.allclose(found.logits[place], alone.logits[0], atol=1e-5)
    (tmp_path / "list.csv").write_text("path\n" + f"{data}/tiger/x.png\n")
    listed = unlabelled_logits(model, tmp_path / "list.csv")
    assert torch.equal(listed.logits, alone.logits)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NBDTError):
        unlabelled_logits(model, tmp_path / "empty")


def test_unreadable_photographs_are_counted_not_fatal(model, data):
    (data / "cat" / "bad.png").write_bytes(b"no image")
    found = class_logits(model, data)
    assert len(found.files) == 8
    assert len(found.failed) == 1
    assert "bad.png" in found.failed[0]


# ---- the command ----


def invoke(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "160"})


def test_trees_go_by_name_too(data, tmp_path):
    found = invoke("cifar10", "--data", data, "--hierarchy", "nowhere", "--out", tmp_path / "out")
    assert "There is no tree 'nowhere'" in str(found.exception)


def test_the_command_compares_two_trees(model, data, tmp_path):
    model.save(tmp_path / "model")
    NEW.save(tmp_path / "new.json")
    out = tmp_path / "out"
    found = invoke(
        tmp_path / "model", "--data", data, "--against", tmp_path / "new.json", "--out", out
    )
    assert found.exit_code == 0, found.output
    assert "before" in found.stdout
    assert "photographs changed" in found.stdout
    assert "1 of 5 classes have no photograph" in found.stdout
    assert "never soft ones" in found.stdout
    record = json.loads((out / "evaluation.json").read_text())
    assert record["images"] == 8
    assert record["before"]["soft"] == record["after"]["soft"] == record["flat"]
    assert record["after"]["hierarchy"] == NEW.hash
    assert (out / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert math.isclose(
        record["after"]["hard"] - record["before"]["hard"],
        (record["changes"]["verdicts"]["now right"] - record["changes"]["verdicts"]["now wrong"])
        / 8,
    )


def test_the_command_measures_one_tree(model, data, tmp_path):
    model.save(tmp_path / "model")
    NEW.save(tmp_path / "new.json")
    out = tmp_path / "out"
    found = invoke(
        tmp_path / "model", "--data", data, "--hierarchy", tmp_path / "new.json", "--out", out
    )
    assert found.exit_code == 0, found.output
    record = json.loads((out / "evaluation.json").read_text())
    assert record["before"]["hierarchy"] == NEW.hash
    assert "calibration error" in found.stdout
    assert [*record["before"]["quality"]] == ["flat", "soft", "hard"]
    assert "after" not in record
    assert "most mistakes" in found.stdout


def test_groups_as_labels_are_measured_beside_classes(model, data, tmp_path):
    for number in range(45):
        photograph(data / "unknown-canine" / f"{number}.png", 500 + number)
    model.save(tmp_path / "model")
    out = tmp_path / "out"
    found = invoke(tmp_path / "model", "--data", data, "--out", out)
    assert found.exit_code == 0, found.output
    assert "8 photographs that have a class" in found.stdout
    assert "45 photographs that have a group" in found.stdout
    record = json.loads((out / "evaluation.json").read_text())
    photographs = class_logits(model, data)
    rows = photographs.labels < 0
    logits, names = photographs.logits[rows], OLD.classes
    inside = [names.index("dog"), names.index("grey_wolf")]
    rules = DecisionRules(OLD, rule="marginal")
    answers = {
        "flat": logits.argmax(1),
        "soft": rules(logits).argmax(1),
        "hard": rules.hard(logits),
    }
    for kind, answer in answers.items():
        right = [value in inside for value in answer.tolist()]
        assert record["groups"][kind] == pytest.approx(sum(right) / 45)
    assert record["images"] == 8
    assert [row["target"] for row in record["groups"]["targets"]] == [0.9, 0.95, 0.99]
    for name in ("cat", "Dog", "CAR", "Grey Wolf"):
        shutil.rmtree(data / name)
    only = invoke(tmp_path / "model", "--data", data, "--out", tmp_path / "only")
    assert only.exit_code == 0, only.output
    again = json.loads((tmp_path / "only" / "evaluation.json").read_text())
    assert again["groups"] == record["groups"]
    assert again["images"] == 0
    renamed = Hierarchy.from_nested(
        {"animal": ["cat", "dog", "grey_wolf"], "b": ["car", "bus"]}, CLASSES
    )
    renamed.save(tmp_path / "new.json")  # without this group
    other = invoke(
        tmp_path / "model", "--data", data, "--hierarchy", tmp_path / "new.json", "--out", out
    )
    assert "'unknown-canine'" in str(other.exception)


def test_what_contradicts_a_group_is_wrong():
    tree = oracle.random_tree(12, seed=3, arity=(2, 3))
    rng = np.random.default_rng(5)
    logits = torch.tensor(rng.normal(size=(80, 12)) * 3).float()
    nodes = rng.choice([node for node in tree.inner_nodes if node], size=80)
    found = group_record(logits, torch.tensor(-1 - nodes), tree, "marginal", {})
    rules = DecisionRules(tree, rule="marginal")
    likeliest = likeliest_under(logits, torch.tensor(-1 - nodes), tree)
    measured = Measurement(rules, logits, likeliest)
    for level in (-0.2, 0.3, 1.0):
        stops = measured.masses.stop(level)
        for row, depth in enumerate(stops.tolist()):
            answer = int(measured.masses.nodes[row, depth])
            label = int(nodes[row])
            agrees = label in tree.path_to(answer) or answer in tree.path_to(label)
            assert bool(stops[row] <= measured.depth[row]) == agrees
    for row in found["targets"]:
        assert row["right"] == pytest.approx(row["target"], abs=0.06)


def test_the_command_measures_answers_and_unknown_things(model, data, tmp_path):
    for place, name in enumerate(["cat", "Dog", "CAR", "Grey Wolf"]):
        for number in range(2, 12):
            photograph(data / name / f"{number}.png", 100 * place + number)
    photograph(tmp_path / "other" / "a.png", 1)
    (tmp_path / "other" / "bad.png").write_bytes(b"no image")
    model.save(tmp_path / "model")
    options = ["--unknown", tmp_path / "other", "--accuracy", 0.8, "--better-mistakes"]
    found = invoke(tmp_path / "model", "--data", data, *options, "--out", tmp_path / "out")
    assert found.exit_code == 3, found.output
    assert "bad.png" in found.stderr
    for words in (
        "random halves",
        "area",
        "AUROC",
        "better mistakes",
        "calibration error by depth",
    ):
        assert words in found.stdout
    answers = json.loads((tmp_path / "out" / "evaluation.json").read_text())["answers"]
    assert [row["target"] for row in answers["targets"]] == [0.8, 0.9, 0.95, 0.99]
    assert answers["unknown"]["images"] == 1
    assert [*answers["lists"]] == ["plain", "reordered"]
    for bad in (0, 1.2):
        refused = invoke(tmp_path / "model", "--data", data, "--accuracy", bad)
        assert "between 0 and 1" in str(refused.exception)


def test_a_damaged_reference_set_is_refused(model, data, tmp_path):
    model.reference = {"logits": torch.zeros(30, 5), "labels": torch.full((30,), 7)}
    model.save(tmp_path / "model")
    found = invoke(tmp_path / "model", "--data", data, "--out", tmp_path / "out")
    assert isinstance(found.exception, NBDTError)
    assert "reference set is damaged" in str(found.exception)


def test_unreadable_photographs_have_exit_status_3(model, data, tmp_path):
    model.save(tmp_path / "model")
    (data / "cat" / "bad.png").write_bytes(b"no image")
    for _ in range(2):  # the second time from the kept logits
        found = invoke(tmp_path / "model", "--data", data, "--out", tmp_path / "out")
        assert found.exit_code == 3
        assert "error: " in found.stderr
        assert "bad.png" in found.stderr


def test_a_tree_of_other_classes_is_refused(model, data, tmp_path):
    model.save(tmp_path / "model")
    Hierarchy.from_paths(["a/b", "a/c", "d"]).save(tmp_path / "other.json")
    for option in ("--hierarchy", "--against"):
        found = invoke(
            tmp_path / "model", "--data", data, option, tmp_path / "other.json", "--out", tmp_path
        )
        assert isinstance(found.exception, NBDTError)
        assert "other.json" in str(found.exception)
        assert "not the model's" in str(found.exception)


def test_hostile_names_do_not_reach_the_terminal(model, data, tmp_path):
    model.save(tmp_path / "model")
    Path(data / "cat" / "0.png").rename(data / "cat" / "[red]\x1b[2J.png")
    NEW.save(tmp_path / "new.json")
    found = invoke(
        tmp_path / "model",
        "--data",
        data,
        "--against",
        tmp_path / "new.json",
        "--out",
        tmp_path / "o",
    )
    assert found.exit_code == 0, found.output
    assert "\x1b[2J" not in found.output
