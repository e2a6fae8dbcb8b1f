"""Training in small: a recipe, a folder of real files, a model that explains."""

import dataclasses

import pytest
import torch
from PIL import Image, ImageDraw

from nbdt import NBDT, NBDTError
from nbdt.train.config import Recipe, available, load_recipe, parse_recipe
from nbdt.train.data import AugmentedBatches, Labelled, hold_out, read_split

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
RECIPE = Recipe(
    train="train", test="test", classes=tuple(COLOURS), architecture="small_resnet",
    image_size=16, epochs=3, batch_size=12, learning_rate=0.05, held_out=2, tree_from=0.3,
    early_size=12, early_until=0.3,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 14), ("test", 4)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (20, 16), colour)
                ImageDraw.Draw(image).rectangle((index % 9, 2, index % 9 + 4, 6), "white")
                image.save(root / split / name / f"{index}.png")
    return root


def test_a_run_ends_in_a_saved_model_that_has_learnt(folder, tmp_path, monkeypatch):
    from nbdt.train import train

    monkeypatch.chdir(tmp_path)
    model = train(RECIPE, folder, tmp_path / "run", command="nbdt train x")
    again = NBDT.load(tmp_path / "run" / "model")
    assert again.hierarchy == model.hierarchy
    assert len(again.hierarchy.inner_nodes) == 2
    assert again.provenance["accuracy"]["test"]["soft"] >= 0.75
    assert len(again.reference["labels"]) == 6
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "nbdt train x" in card
    with pytest.raises(NBDTError, match="finished model already"):
        train(RECIPE, folder, tmp_path / "run")


def test_shipped_recipes_parse():
    assert "cifar10" in available()
    for name in available():
        assert isinstance(load_recipe(name), Recipe)


def test_overrides_are_typed():
    recipe = load_recipe("cifar10", ["epochs=3", "rule=marginal", "learning_rate=1e-3"])
    assert (recipe.epochs, recipe.rule, recipe.learning_rate) == (3, "marginal", 1e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "Unknown key 'epoch' in the recipe. Did you mean 'epochs'"),
        ("epochs=many", "'epochs' must be of type int, got 'many'"),
        ("epochs", "Expected key=value"),
        ("flip=1", "'flip' must be of type bool"),
    ],
)
def test_bad_overrides_are_explained(override, message):
    with pytest.raises(NBDTError, match=message):
        load_recipe("cifar10", [override])


def test_an_incomplete_or_missing_recipe_is_explained():
    with pytest.raises(NBDTError, match="incomplete: .*architecture"):
        parse_recipe({"train": "a", "test": "b", "classes": ["x", "y"]})
    with pytest.raises(NBDTError, match="no recipe 'cifar11'; shipped: .*Did you mean 'cifar10'"):
        load_recipe("cifar11")


def test_labels_follow_the_recipes_class_order(folder):
    data = read_split(folder, "train", RECIPE)
    means = torch.stack([data.images[data.labels == k].float().mean((0, 2, 3)) for k in range(3)])
    assert means.argmax(1).tolist() == [0, 1, 2]  # red, green, blue


def test_classes_that_do_not_match_are_listed(folder):
    recipe = dataclasses.replace(RECIPE, classes=("red", "green", "violet"))
    with pytest.raises(NBDTError, match="unknown 'blue', missing 'violet'"):
        read_split(folder, "train", recipe)
    with pytest.raises(NBDTError, match="holds nothing that matches 'validation'"):
        read_split(folder, "validation", RECIPE)
    with pytest.raises(NBDTError, match="no data folder"):
        read_split(folder / "none", "train", RECIPE)


def test_held_out_images_are_balanced_and_disjoint():
    labels = torch.arange(3).repeat_interleave(10)
    data = Labelled(torch.arange(30).view(30, 1, 1, 1).expand(30, 3, 2, 2).to(torch.uint8), labels)
    kept, out = hold_out(data, 4, seed=1)
    assert torch.bincount(out.labels).tolist() == [4, 4, 4]
    ids = [set(part.images[:, 0, 0, 0].tolist()) for part in (kept, out)]
    assert len(ids[0] | ids[1]) == 30
    assert not ids[0] & ids[1]


def test_augmented_batches_are_the_same_in_every_run_and_differ_between_epochs():
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
    data = Labelled(images, torch.arange(40))

    def first_epochs():
        batches = AugmentedBatches(data, RECIPE)
        return [torch.cat([x for x, _ in batches]) for _ in range(2)]

    one, two = first_epochs(), first_epochs()
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[0], one[1])
