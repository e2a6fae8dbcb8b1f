"""Training in small: a recipe, a folder of real files, a model that explains."""

import dataclasses
import json
import shutil

import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.network.load import create_timm
from nbdt.train import train
from nbdt.train.command import app
from nbdt.train.data.class_order import ClassOrder
from nbdt.train.fit.network import start_network, with_classes
from nbdt.train.fit.trainer import make_schedule
from nbdt.train.recipe import Recipe, available, load_recipe, parse_recipe

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
RECIPE = Recipe(
    train="train", test="test", classes=tuple(COLOURS), architecture="small_convnet",
    image_size=16, epochs=3, batch_size=12, learning_rate=0.05, held_out=2, tree_from=0.3,
    early_size=12, early_until=0.3, workers=0,
)  # fmt: skip
TREE = Hierarchy.from_nested({"warm": ["red", "blue"], "leaf": ["green"]}, collapse=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for split, count in (("train", 14), ("test", 4)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("RGB", (20, 16), colour)
                ImageDraw.Draw(image).rectangle((index % 9, 2, index % 9 + 4, 6), "white")
                image.putpixel((19, 15 - index), (index, 0, 0))  # no two files are the same
                image.save(root / split / name / f"{index}.png")
    return root


def test_a_run_ends_in_a_saved_model_that_has_learnt(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, said = [], []
    model = train(
        RECIPE, folder, tmp_path / "run", command="nbdt train x",
        report=lambda found: rows.append(dict(found[-1])), say=said.append,
    )  # fmt: skip
    again = NBDT.load(tmp_path / "run" / "model")
    assert again.hierarchy == model.hierarchy
    assert len(again.hierarchy.inner_nodes) == 2
    assert again.provenance["accuracy"]["test"]["soft"] >= 0.75
    assert len(again.reference["labels"]) == 6
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "nbdt train x" in card
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert "soft" not in rows[0]  # no tree yet
    assert set(rows[2]) == {"epoch", "steps", "train_loss", "flat", "soft", "hard", "minutes"}
    assert said[0].startswith("3 classes, in the order of the recipe. 36 images to train on, 6 for")
    with pytest.raises(NBDTError, match="finished model already"):
        train(RECIPE, folder, tmp_path / "run")


def test_the_recipe_shapes_the_induced_tree(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, tree_from=0.0, branching=3, semantics=1.0)
    assert len(train(recipe, folder, tmp_path / "run").hierarchy.inner_nodes) == 1
    with pytest.raises(NBDTError, match="branching.*at least 2, .*got 1"):
        dataclasses.replace(RECIPE, branching=1)


def test_semantics_of_classes_without_meaning_are_refused_before_the_run(folder, tmp_path):
    named = tmp_path / "data"
    shutil.copytree(folder, named)
    names = ["xq-17", "xq-18", "xr-02"]
    for split in ("train", "test"):
        for old, new in zip(COLOURS, names, strict=True):
            (named / split / old).rename(named / split / new)
    recipe = dataclasses.replace(RECIPE, classes=tuple(names), semantics=0.5)
    with pytest.raises(NBDTError, match=r"fewer than two .*; give wnids, or semantics=0"):
        train(recipe, named, tmp_path / "run")
    assert not list((tmp_path / "run").glob("**/*.ckpt"))


def figures(model):
    return model.provenance["accuracy"]["held_out"].keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "marginal", "schedule": "cosine", "optimizer": "adamw", "learning_rate": 2e-3},
        {
            "rule": "marginal",
            "alpha": 0.5,
            "branching": 3,
            "semantics": 0.5,
            "balance_classes": True,
            "clip_norm": 1.0,
        },
        {"freeze_norms": True, "optimizer": "adamw", "learning_rate": 1e-4, "tree_from": 0.0},
        {
            "whiten": 0.001,
            "refresh_every_epochs": 1,
            "ema_decay": 0.5,
            "precision": "bf16",
        },
        {
            "augment": "crop",
            "calibrate": True,
            "cutmix_alpha": 0.5,
            "mixup_alpha": 0.2,
            "accumulate_batches": 2,
        },
    ],
    ids="-".join,
)
def test_every_way_to_train_runs(folder, tmp_path, changes):
    recipe = dataclasses.replace(RECIPE, **{"epochs": 2, **changes})
    model = train(recipe, folder, tmp_path / "run")
    assert model.rule == recipe.rule
    assert figures(model) == {"flat", "soft", "hard"}
    assert torch.isfinite(model.reference["logits"]).all()
    assert ("logits_scaled_by" in model.provenance) == recipe.calibrate


def test_a_saved_model_learns_on_under_an_edited_tree(folder, tmp_path):
    first = train(dataclasses.replace(RECIPE, epochs=1), folder, tmp_path / "first")
    (one, *others) = first.hierarchy.classes
    edited = Hierarchy.from_paths([one, *(f"others/{name}" for name in others)])
    recipe = dataclasses.replace(RECIPE, epochs=1, whiten=0.001, learning_rate=1e-9, tree_from=0.0)
    weights = tmp_path / "first" / "model"
    second = train(recipe, folder, tmp_path / "second", hierarchy=edited, weights=weights)
    assert second.hierarchy == edited
    for name, value in first.backbone.named_parameters():  # also the stem: it is not whitened again
        assert torch.allclose(value, second.backbone.get_parameter(name), atol=1e-3), name
    assert torch.allclose(first.head.linear.weight, second.head.linear.weight, atol=1e-3)


def test_a_given_hierarchy_is_the_models_and_gives_the_order(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, classes=(), epochs=1, tree_from=0.0)
    model = train(recipe, folder, tmp_path / "run", hierarchy=TREE)
    assert model.hierarchy == TREE  # with the names that its author gave
    assert model.hierarchy.classes == ("red", "blue", "green")
    named = train(recipe, folder, tmp_path / "readable", hierarchy="readable")
    assert named.hierarchy.classes == ("blue", "green", "red")
    assert all(named.hierarchy.class_wnids)


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "marginal", "tree_from": 0.0},
        {"mixup_alpha": 0.2, "label_smoothing": 0.1, "balance_classes": True},
        {"augment": "crop", "freeze_backbone": True, "rule": "marginal"},
    ],
    ids=["flat", "mixed", "frozen"],
)
def test_folders_may_be_named_after_groups(folder, tmp_path, changes, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    (data / "train" / "unknown-warm").mkdir()
    for index in range(4, 10):
        shutil.move(data / "train" / "red" / f"{index}.png", data / "train" / "unknown-warm")
    shutil.copytree(data / "test" / "red", data / "test" / "Warm")
    recipe = dataclasses.replace(RECIPE, classes=(), **{"epochs": 2, **changes})
    said = []
    model = train(recipe, data, tmp_path / "run", hierarchy=TREE, say=said.append)
    assert any("6 of the images to train on have a group as their label" in line for line in said)
    assert any("12 for the test" in line for line in said)  # of the folder "Warm" none is right
    assert (model.reference["labels"] >= 0).all()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    with pytest.raises(NBDTError, match="unknown class 'unknown-warm'"):
        train(dataclasses.replace(recipe, classes=tuple(COLOURS)), data, tmp_path / "other")


def test_a_run_stops_when_nothing_gets_better_and_keeps_the_best(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=12, early_stop_epochs=2, tree_from=0.0)
    rows = []
    model = train(recipe, folder, tmp_path / "run", report=lambda r: rows.append(dict(r[-1])))
    soft = [row["soft"] for row in rows]
    best = soft.index(max(soft))
    assert len(soft) == min(12, best + 3)
    assert model.provenance["accuracy"]["held_out"]["soft"] == pytest.approx(max(soft), abs=0.17)


def test_the_best_epoch_is_kept_with_the_tree_that_it_had(folder, tmp_path):
    recipe = dataclasses.replace(
        RECIPE, epochs=6, early_stop_epochs=2, tree_from=0.0, refresh_every_epochs=1,
        rule="representative",
    )  # fmt: skip
    model = train(recipe, folder, tmp_path / "run")
    assert NBDT.load(tmp_path / "run" / "model").hierarchy == model.hierarchy


def test_diverged_training_is_explained(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, learning_rate=1e20, early_size=0, tree_from=1.0)
    with pytest.raises(NBDTError, match="diverged.*--set learning_rate=1e"):
        train(recipe, folder, tmp_path / "run")


# ---- the command ----


def test_the_command_shows_epochs_and_a_table_and_what_comes_next(folder, tmp_path):
    done = CliRunner().invoke(
        app,
        [
            *("cifar10", "--data", str(folder), "--out", str(tmp_path / "run")),
            *("--set", "train=train", "--set", "test=test", "--set", "classes=[]"),
            *("--set", "epochs=1", "--set", "image_size=16", "--set", "held_out=2"),
            *("--set", "early_size=0", "--set", "batch_size=12", "--set", "workers=0"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "epoch   1" in done.stderr
    assert "3 classes, in the order of the data's labels, sorted" in done.stderr
    for word in ("flat", "soft", "hard", "held_out", "test"):
        assert word in done.stdout
    assert f"saved: {tmp_path / 'run' / 'model'}" in done.stdout
    assert "nbdt demo --model" in done.stderr.splitlines()[-1]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["recipe"]["epochs"] == 1


def test_an_unknown_hierarchy_is_explained(folder, tmp_path):
    done = CliRunner().invoke(app, ["cifar10", "--data", str(folder), "--hierarchy", "induce-it"])
    assert isinstance(done.exception, NBDTError)
    assert "readable" in str(done.exception)


# ---- recipes ----


def test_shipped_recipes_parse_and_say_what_they_are():
    assert {"cifar10", "cifar10-resnet18", "photos", "photos-resnet101", "imagenet-resnet101"} <= {
        *available()
    }
    for name in available():
        assert isinstance(load_recipe(name), Recipe)


def test_overrides_are_typed():
    recipe = load_recipe("cifar10", ["epochs=3", "rule=marginal", "learning_rate=1e-3"])
    assert (recipe.epochs, recipe.rule, recipe.learning_rate) == (3, "marginal", 1e-3)
    assert load_recipe("cifar10", ["precision=32"]).precision == "32"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "Unknown key 'epoch' in the recipe. Did you mean 'epochs'"),
        ("epochs=many", "'epochs' must be of type int, got 'many'"),
        ("epochs", "Expected key=value"),
        ("flip=1", "'flip' must be of type bool"),
        ("classes=[1, 2]", "'classes' must be of type tuple"),
        ("schedule=cosin", "Unknown schedule 'cosin'; there are linear, cosine. Did you mean"),
        ("warmup=2", "'warmup' must be at least 0 and at most 1, got 2"),
        ("epochs=0", "'epochs' must be at least 1, got 0"),
        ("held_out=0", "'held_out' .*must be above 0: choices are made"),
        ("held_out_test=0.0", "'held_out_test' must be above 0"),
        ("memory_gigabytes=inf", "'memory_gigabytes' must be at least 0, got inf"),
        ("omega_end=5", "have no effect under weight_schedule 'constant'"),
        ("batch_size=251", None),
    ],
)
def test_bad_overrides_are_explained(override, message):
    if message is None:
        with pytest.raises(NBDTError, match="needs an even batch_size, got 251"):
            load_recipe("cifar10", [override, "mixup_alpha=0.2"])
        return
    with pytest.raises(NBDTError, match=message):
        load_recipe("cifar10", [override])


def test_an_incomplete_or_missing_recipe_is_explained(tmp_path):
    with pytest.raises(NBDTError, match="incomplete: .*architecture"):
        parse_recipe({"train": "a", "test": "b", "classes": ["x", "y"]})
    with pytest.raises(NBDTError, match="no recipe 'cifar11'; shipped: .*Did you mean 'cifar10'"):
        load_recipe("cifar11")
    (tmp_path / "r.toml").write_text("epochs = = 3")
    with pytest.raises(NBDTError, match="r.toml' is not TOML"):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_learning_rate_rises_and_falls_to_nothing(schedule):
    recipe = dataclasses.replace(RECIPE, schedule=schedule, warmup=0.2, learning_rate=0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = make_schedule(optimizer, recipe, 50)
    rates = []
    for step in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if hasattr(schedule, "step_update"):
            schedule.step_update(step + 1)
        else:
            schedule.step()
    top = rates.index(max(rates))
    assert 8 <= top <= 11
    assert max(rates) == pytest.approx(0.5, rel=0.06)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[0] <= 0.06
    assert rates[-1] < 0.02


def test_unknown_optimizers_are_explained(folder, tmp_path):
    with pytest.raises(NBDTError, match="no optimizer 'adamv'. Did you mean 'adam'"):
        train(dataclasses.replace(RECIPE, optimizer="adamv"), folder, tmp_path / "run")


# ---- networks ----


def order(count):
    names = tuple(f"thing {i}" for i in range(count))
    return ClassOrder(names, (None,) * count, "a test")


def test_weights_from_a_file_keep_all_but_a_classifier_of_other_classes(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(1)
    source = create_timm("small_convnet", 10)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    recipe = dataclasses.replace(RECIPE, pretrained=True)

    def make_network(recipe, order, weights):
        return with_classes(start_network(recipe, weights), order)

    other, knows_classes = make_network(recipe, order(3), tmp_path / "w.safetensors")
    assert other.fc.out_features == 3
    assert torch.equal(other.stem[0].weight, source.stem[0].weight)
    same, knows_classes = make_network(recipe, order(10), tmp_path / "w.safetensors")
    assert torch.equal(same.fc.weight, source.fc.weight)
    assert not knows_classes  # as many classes need not be the same ones
    bare = {name: value for name, value in source.state_dict().items() if "fc." not in name}
    save_file(bare, tmp_path / "bare.safetensors")
    headless, knows_classes = make_network(recipe, order(3), tmp_path / "bare.safetensors")
    assert (headless.fc.out_features, knows_classes) == (3, False)
    assert torch.equal(headless.stem[0].weight, source.stem[0].weight)
    wrong = dataclasses.replace(recipe, architecture="resnet18_32px")
    with pytest.raises(NBDTError, match="do not fit the network: missing.*Name the arch") as caught:
        start_network(wrong, tmp_path / "w.safetensors")
    assert len(str(caught.value)) < 600
    with pytest.raises(NBDTError, match="no weights file"):
        start_network(recipe, tmp_path / "none.safetensors")


def test_a_saved_model_is_a_start_and_its_classes_are_put_in_order(tmp_path):
    tree = Hierarchy.from_paths(["warm/red", "warm/pink", "sky_blue"])
    source = NBDT.from_timm("small_convnet", tree, rule="marginal")
    source.save(tmp_path / "model")
    names = ("pink", "Sky blue", "red")
    recipe = dataclasses.replace(RECIPE, architecture="resnet18_32px")  # the model's counts
    start = start_network(recipe, tmp_path / "model")
    assert (start.recipe.architecture, start.recipe.image_size) == ("small_convnet", 32)
    same, knows_classes = with_classes(start, ClassOrder(names, (None,) * 3, "a test"))
    assert knows_classes
    rows = [tree.classes.index(name) for name in ("pink", "sky_blue", "red")]
    assert torch.equal(same.fc.weight, source.head.linear.weight[rows])
    assert torch.equal(same.stem[0].weight, source.backbone.stem[0].weight)
    other, knows_classes = with_classes(start_network(recipe, tmp_path / "model"), order(3))
    assert not knows_classes
    assert not torch.equal(other.fc.weight, source.head.linear.weight)
    assert torch.equal(other.stem[0].weight, source.backbone.stem[0].weight)


def test_without_a_network_the_remedy_is_a_file(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    recipe = dataclasses.replace(RECIPE, architecture="resnet18", pretrained=True)
    with pytest.raises(NBDTError, match="could not be fetched.*--weights"):
        start_network(recipe)


@pytest.mark.parametrize("name", ["resnet18_32px"])
def test_networks_for_32_pixels_keep_their_resolution(name):
    network = create_timm(name, 10)
    assert network.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    assert sum(value.numel() for value in network.parameters()) == 11_173_962
