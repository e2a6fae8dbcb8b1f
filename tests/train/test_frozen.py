"""One's own photographs: features that are kept, a fit, a model with its memory."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.explain import explain
from nbdt.images.dataset import iter_images
from nbdt.model import features as kept
from nbdt.model.remember import make_memory
from nbdt.train import train
from nbdt.train.fit.picture import confusion, main_groups
from nbdt.train.recipe import Recipe, load_recipe
from tests.conftest import DATA
from tests.train.test_train import COLOURS, folder  # noqa: F401 - a fixture

RECIPE = Recipe(
    architecture="small_convnet", image_size=16, freeze_backbone=True, rule="marginal", workers=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nbdt" / "features"


# ---- features ----


def test_features_are_computed_once_for_each_image(folder, tmp_path, cache, monkeypatch):  # noqa: F811
    first = train(RECIPE, folder, tmp_path / "first")
    assert len(list(cache.glob("*/*.npy"))) == 1  # the test images are among the others
    monkeypatch.setattr(kept, "_pooled", lambda *_: pytest.fail("computed again"))
    again = train(RECIPE, folder, tmp_path / "again")
    assert torch.equal(first.head.linear.weight, again.head.linear.weight)
    other = dataclasses.replace(RECIPE, seed=1, rule="representative")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    model = train(other, folder, tmp_path / "other")  # random weights: of another network
    assert model.rule == "representative"
    assert len(list(cache.iterdir())) == 2


def test_damaged_features_are_computed_again(folder, tmp_path, cache):  # noqa: F811
    first = train(RECIPE, folder, tmp_path / "first")
    for path in cache.glob("*/*.npy"):
        path.write_bytes(path.read_bytes()[:-100])
    again = train(RECIPE, folder, tmp_path / "again")
    assert torch.equal(first.head.linear.weight, again.head.linear.weight)


# ---- a run ----


def test_a_frozen_run_ends_in_a_measured_model(folder, tmp_path):  # noqa: F811
    said = []
    model = train(RECIPE, folder, tmp_path / "run", command="nbdt train x", say=said.append)
    loaded = NBDT.load(tmp_path / "run" / "model")
    assert "42 images to train on, 12 for the test" in said[0]
    assert loaded.provenance["accuracy"]["test"]["soft"] >= 0.9
    assert set(loaded.provenance["accuracy"]) == {"cross-validated", "test"}
    assert loaded.reference["logits"].shape == (42, 3)
    assert len(loaded.memory) == 42
    assert loaded.fitted.key == loaded.memory.examples(loaded.head.rules).key
    assert not (tmp_path / "run" / ".memory").exists()
    assert loaded.reference["logits"].dtype == torch.float16
    assert not (tmp_path / "run" / "checkpoints").exists()
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "nbdt train x" in card
    assert (tmp_path / "run" / "summary.png").read_bytes().startswith(b"\x89PNG")
    images = torch.rand(2, 3, 16, 16)
    assert torch.allclose(model(images), loaded(images), atol=1e-5)


def test_the_memory_of_a_model_is_what_memory_build_would_make(folder, tmp_path, monkeypatch):  # noqa: F811
    train(RECIPE, folder, tmp_path / "run")
    model = NBDT.load(tmp_path / "run" / "model")
    built = make_memory(model, tmp_path / "built")
    built.add(list(iter_images(folder / "train")))
    ours, theirs = model.memory.rows, built.rows
    assert (ours.ids, ours.labels) == (theirs.ids, theirs.labels)
    assert np.allclose(ours.features, theirs.features, atol=5e-3)
    assert not (tmp_path / "run" / "evidence").exists()
    monkeypatch.chdir("/")  # the original is found from any working folder
    found = explain(model, Image.open(ours.references[0]))[0].evidence[0]
    assert max(found.chosen + found.rejected, key=lambda n: n.similarity).open().size[0] > 0


def test_groups_are_confused_as_counted_by_hand():
    tree = Hierarchy.from_nested(
        {"all": [{"animal": ["cat", "dog"]}, {"car": ["van", "bus"]}, "tree"]}
    )
    assert [tree.names[node] for node in main_groups(tree, most=3)] == ["animal", "car", "tree"]
    labels, answers = torch.tensor([0, 0, 1, 2, 4]), torch.tensor([1, 2, 1, 3, 0])
    counts = confusion(tree, main_groups(tree, most=3), answers, labels)
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert len(main_groups(tree, most=5)) == 5


def test_two_images_of_a_class_are_enough_and_one_is_not(folder, tmp_path):  # noqa: F811
    for name in COLOURS:
        (tmp_path / "few" / name).mkdir(parents=True)
        for index in range(2):
            shutil.copy(folder / "train" / name / f"{index}.png", tmp_path / "few" / name)
    model = train(RECIPE, tmp_path / "few", tmp_path / "run")
    assert set(model.provenance["accuracy"]) == {"cross-validated"}  # too few for a test
    (tmp_path / "few" / "red" / "1.png").unlink()
    with pytest.raises(NBDTError, match=r"'red' \(1, at least 2 needed\)"):
        train(RECIPE, tmp_path / "few", tmp_path / "other")


def test_unreadable_photographs_are_left_out_or_refused(folder, tmp_path):  # noqa: F811
    shutil.copytree(folder, tmp_path / "data")
    (tmp_path / "data" / "train" / "red" / "3.png").write_bytes(b"nothing")
    with pytest.raises(NBDTError, match="1 of 42 train images cannot be read: .*3.png"):
        train(RECIPE, tmp_path / "data", tmp_path / "run")
    said = []
    recipe = dataclasses.replace(RECIPE, skip_corrupt=True)
    model = train(recipe, tmp_path / "data", tmp_path / "other", say=said.append)
    assert len(model.reference["labels"]) == 41
    assert any(text.startswith("Left out, unreadable (train, 1)") for text in said)


def test_fine_tuning_starts_from_the_frozen_model(folder, tmp_path):  # noqa: F811
    recipe = dataclasses.replace(
        RECIPE,
        epochs=1,
        batch_size=12,
        held_out=2,
        augment="crop",
        tree_from=0.0,
        learning_rate=1e-6,
    )
    model = train(recipe, folder, tmp_path / "run", finetune=True)
    first = NBDT.load(tmp_path / "run" / "frozen" / "model")
    assert len(first.reference["labels"]) == 36  # those for choices took no part
    assert model.hierarchy == first.hierarchy
    assert torch.allclose(model.head.linear.weight, first.head.linear.weight, atol=1e-3)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    saved = str(tmp_path / "run" / "model")
    assert len(NBDT.load(saved).memory) == 36


def test_the_recipe_for_photographs_is_frozen_calibrated_and_as_large_as_its_network():
    recipe = load_recipe("photos")
    assert (recipe.freeze_backbone, recipe.rule, recipe.image_size) == (True, "marginal", 0)


def test_a_run_on_photographs_needs_no_lightning(folder, tmp_path):  # noqa: F811
    program = (
        "import sys\nsys.modules['lightning'] = None\n"
        "from nbdt.train import train\nfrom nbdt.train.recipe import parse_recipe\n"
        "import json\ntrain(parse_recipe(json.loads(sys.argv[1])), sys.argv[2], sys.argv[3])"
    )
    recipe = json.dumps(dataclasses.asdict(RECIPE))
    arguments = [recipe, str(folder), str(tmp_path / "run")]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


@pytest.mark.data
def test_photographs_of_animals_and_things_are_told_apart(tmp_path):
    """Four classes of Caltech, five photographs each, with the weights that are installed."""
    import tarfile

    with tarfile.open(DATA / "caltech33_s256_q90.tar") as archive:
        names = [name for name in archive.getnames() if name.startswith("train/")]
        classes = sorted({name.split("/")[1] for name in names})[:4]
        chosen = [
            member for name in classes
            for member in [item for item in names if item.startswith(f"train/{name}/")][:7]
        ]  # fmt: skip
        archive.extractall(tmp_path, [archive.getmember(name) for name in chosen], filter="data")
    recipe = dataclasses.replace(load_recipe("photos"), held_out_test=2)
    model = train(recipe, tmp_path / "train", tmp_path / "run")
    assert model.provenance["accuracy"]["test"]["soft"] >= 0.75
    assert model.preprocess.size == 260
