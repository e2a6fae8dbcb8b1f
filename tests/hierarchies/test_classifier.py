"""Any pretrained classifier as a tree: labels, sources, options, saving, real weights."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nbdt import NBDT, Hierarchy, NBDTError
from nbdt.hierarchies.classifier import class_labels, from_classifier
from nbdt.hierarchies.library import open_model
from nbdt.network.load import create_timm, parse_architecture

MOBILENET = "timm:mobilenetv2_100,pad_type=same,mean=0.5,std=0.5"


def weights_of(architecture, classes, path, seed=0):
    """A weights file for a random network, and the network."""
    torch.manual_seed(seed)
    network = create_timm(architecture, classes).eval()
    torch.save(network.state_dict(), path)
    return network


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(model, network, file) of a random small network with 1,000 classes."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    network = weights_of("small_convnet", 1000, path)
    return from_classifier("timm:small_convnet", weights=path), network, path


# ---- labels ----


def test_imagenets_names_are_the_everyday_ones_and_carry_ids():
    names, wnids = class_labels(1000, {})
    assert (names[0], wnids[0]) == ("tench", "n01440764")
    assert (names[134], names[517]) == ("crane (bird)", "construction crane")
    assert len({name.casefold() for name in names}) == len(set(wnids)) == 1000


def test_names_of_ids_are_unique_whatever_their_case():
    ids = ["n02012849", "n03126707", "n02113186", "n02963159"]
    names, wnids = class_labels(4, {"label_names": ids})
    assert names[:2] == ["crane (bird)", "crane (lifting device)"]
    assert names[2].startswith("Cardigan (")
    assert names[3].startswith("cardigan (")
    assert wnids == ids


@pytest.mark.slow
def test_imagenet_12k_has_labels_too():
    names, wnids = class_labels(11821, {})
    assert len(set(names)) == 11821
    assert sum(wnid is not None for wnid in wnids) > 11000


def test_a_models_own_labels_come_first():
    assert class_labels(2, {"label_names": ["cat", "dog"]}).names == ["cat", "dog"]
    described = {"label_names": ["a", "b"], "label_descriptions": {"a": "tabby, tabby cat"}}
    assert class_labels(2, described) == (["tabby", "b"], [None, None])
    ids = class_labels(2, {"label_names": ["n02084071", "n02121620"]})
    assert ids == (["dog", "cat"], ["n02084071", "n02121620"])
    assert class_labels(3, {"label_names": ["cat", "dog"]}).names[0] == "class 0"


def test_repeated_labels_without_ids_are_numbered():
    assert class_labels(3, {"label_names": ["bolt", "nut", "bolt"]}).names == [
        "bolt (1)", "nut", "bolt (2)"
    ]  # fmt: skip


# ---- the model ----


def test_the_tree_is_of_the_classifiers_classes_and_its_answers_stay(small):
    model, network, _ = small
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = network(images).log_softmax(1)
        assert torch.allclose(model(images), expected, atol=1e-5)
    tree = model.hierarchy
    assert tree.nodes[tree.leaf_nodes[134]].wnid == "n02012849"
    assert model.rule == "marginal"
    assert not model.training
    assert len(set(tree.names)) == tree.num_nodes


def test_other_class_counts_are_read_from_the_file(tmp_path):
    weights_of("small_convnet", 7, tmp_path / "w.pth")
    model = from_classifier("small_convnet", weights=tmp_path / "w.pth")
    assert model.hierarchy.classes == tuple(f"class {index}" for index in range(7))
    assert all("class" in model.hierarchy.names[node] for node in model.hierarchy.inner_nodes)


def test_a_given_hierarchy_is_used_if_its_classes_are_the_models(small, tmp_path):
    model, _, path = small
    again = from_classifier("timm:small_convnet", weights=path, hierarchy=model.hierarchy)
    assert again.hierarchy == model.hierarchy
    few = Hierarchy.from_paths(["animal/cat", "animal/dog", "car"])
    with pytest.raises(NBDTError, match="1000 classes, the hierarchy has 3"):
        from_classifier("timm:small_convnet", weights=path, hierarchy=few)
    classes = list(model.hierarchy.classes)
    classes[0], classes[1] = classes[1], classes[0]
    swapped = Hierarchy(model.hierarchy.nodes, tuple(classes))
    with pytest.raises(NBDTError, match="Class 0 is 'goldfish'.*in the model's order"):
        from_classifier("timm:small_convnet", weights=path, hierarchy=swapped)


def test_classifiers_that_are_no_linear_layer_are_refused(tmp_path):
    network = create_timm("deit_tiny_distilled_patch16_224", 3)
    torch.save(network.state_dict(), tmp_path / "d.pth")
    with pytest.raises(NBDTError, match="No linear layer of .* gives its logits"):
        from_classifier("deit_tiny_distilled_patch16_224", weights=tmp_path / "d.pth")


def test_without_weights_to_fetch_the_message_says_so():
    with pytest.raises(NBDTError, match="no pretrained weights for 'small_convnet'"):
        from_classifier("timm:small_convnet")
    with pytest.raises(NBDTError, match=r"no pretrained weights 'resnet18\.nope'.*resnet18\.a1"):
        from_classifier("timm:resnet18.nope")


# ---- options in the text ----


def test_options_reach_the_network_and_its_input():
    network = create_timm("mobilenetv2_100,pad_type=same,mean=0.5,std=0.1/0.2/0.3,size=96", 4)
    assert type(network.conv_stem).__name__ == "Conv2dSame"
    model = NBDT.from_network(
        network, "x", Hierarchy.from_paths(["a/b", "a/c", "d/e", "d/f"]), rule="marginal"
    )
    assert model.preprocess.mean == (0.5, 0.5, 0.5)
    assert model.preprocess.std == (0.1, 0.2, 0.3)
    assert model.preprocess.size == 96


def test_options_survive_saving(tmp_path):
    tree = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
    name = "mobilenetv2_035,pad_type=same,mean=0.5,std=0.5,size=64"
    model = NBDT.from_timm(name, tree, rule="marginal").eval()
    model.save(tmp_path / "model")
    again = NBDT.load(tmp_path / "model")
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(images), model(images))
    assert again.preprocess == model.preprocess
    # What the padding does is seen: the same weights without it answer otherwise.
    plain = NBDT.from_timm("mobilenetv2_035", tree, rule="marginal").eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain(images), model(images), atol=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet18,pad=same", "unknown option 'pad'. Options are: pad_type"),
        ("resnet18,pad_tpye=same", "unknown option 'pad_tpye'. Did you mean 'pad_type'"),
        ("resnet18,checkpoint_path=/etc/passwd", "unknown option 'checkpoint_path'"),
        ("resnet18,mean=0.5,mean=0.4", "repeats option 'mean'"),
        ("resnet18,mean=0.5/0.4", "expected mean to be one number, or three"),
        ("resnet18,mean=nan", "expected mean"),
        ("resnet18,std=0", "expected std to be one number above 0"),
        ("resnet18,pad_type=smae", "expected pad_type to be 'same' or 'valid', got 'smae'"),
        ("resnet18,size=0", "expected size to be a number of pixels from 1 to 4096"),
        ("resnet18,size=10000000", "expected size"),
        ("resnet18,crop_pct=1.5", "expected crop_pct"),
        ("resnet18,output_stride=7", "expected output_stride to be 8, 16 or 32"),
        ("resnet18,", "unknown option ''"),
    ],
)
def test_wrong_options_are_named(text, message):
    with pytest.raises(NBDTError, match=message):
        parse_architecture(text)


def test_options_that_a_network_does_not_take_are_named():
    with pytest.raises(NBDTError, match="'resnet18' does not take img_size"):
        create_timm("resnet18,img_size=64", 3)


def test_a_hostile_saved_architecture_is_refused(tmp_path):
    tree = Hierarchy.from_paths(["animal/cat", "animal/dog", "car"])
    NBDT.from_timm("small_convnet", tree, rule="marginal").save(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    data = json.loads(config.read_text())
    config.write_text(json.dumps({**data, "architecture": "small_convnet,pretrained_cfg=x"}))
    with pytest.raises(NBDTError, match="unknown option 'pretrained_cfg'"):
        NBDT.load(tmp_path / "model")


# ---- one text, one model ----


def test_open_model_takes_all_three_kinds(small, tmp_path):
    model, _, path = small
    assert open_model("cifar10").hierarchy.num_classes == 10
    assert open_model("timm:small_convnet", path).hierarchy == model.hierarchy
    model.save(tmp_path / "saved")
    assert open_model(str(tmp_path / "saved")).hierarchy == model.hierarchy


def test_open_model_says_what_to_write_instead(tmp_path):
    with pytest.raises(NBDTError, match="write timm:resnet101"):
        open_model("resnet101")
    with pytest.raises(NBDTError, match="Did you mean 'cifar10'"):
        open_model("cifar11")
    with pytest.raises(NBDTError, match="'cifar10' is a saved model"):
        open_model("cifar10", tmp_path / "w.pth")
    with pytest.raises(NBDTError, match="There is no weights file"):
        open_model("timm:resnet18", tmp_path / "w.pth")
    with pytest.raises(NBDTError, match="no architecture 'resnet19x'"):
        open_model("timm:resnet19x", tmp_path / "w.pth")


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"fc.weight": torch.zeros(4, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(NBDTError, match="do not fit the network"):
        open_model("timm:resnet18", tmp_path / "w.safetensors")
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(NBDTError, match="not a readable file of tensors"):
        open_model("timm:resnet18", tmp_path / "w.pth")


def test_explain_and_demo_take_timm_models():
    from typer.main import get_command

    from nbdt.explain.command import app as explain_app

    options = {option for part in get_command(explain_app).params for option in part.opts}
    assert {"--model", "--weights"} <= options


# ---- maps, and real weights ----


@pytest.mark.parametrize("name", ["mobilenetv2_035", "efficientnet_b0", "resnet18", "densenet121"])
def test_maps_are_of_the_feature_map_right_before_the_average_pool(name):
    from nbdt.explain import explain

    torch.manual_seed(1)
    tree = Hierarchy.from_paths(["animal/cat", "animal/dog", "vehicle/car", "vehicle/bus"])
    model = NBDT.from_timm(name, tree, rule="marginal").eval()
    images = torch.randn(1, 3, 64, 64)
    found = explain(model, images, level="fast")[0]
    with torch.inference_mode():
        feature_map = model.feature_map(images)
        pooled = model.pool(feature_map)
    assert torch.allclose(pooled, feature_map.mean((2, 3)), atol=1e-5)
    assert pooled.shape[1] == model.head.in_features
    # A map of the last decision adds up to the difference of its two classes' logits, less biases.
    last = found.path.decisions[-1]
    chosen, other = (tree.classes.index(last.children[i]) for i in (last.chosen, last.runner_up))
    weight = model.head.linear.weight.detach()
    expected = (pooled @ (weight[chosen] - weight[other])).item()
    assert found.maps[-1].sum() == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def mobilenet(data_dir):
    path = data_dir / "weights" / "imagenet_mobilenetv2_100_tf2ptq_fp16.pth"
    return from_classifier(MOBILENET, weights=path)


def photographs(data_dir, step):
    from nbdt.images.dataset import iter_images

    for index, source in enumerate(iter_images(data_dir / "imagenet1000_s256_q90.tar")):
        if index % step == 0:
            yield source.reference.rpartition("!")[2][:9], source.open()


@pytest.mark.data
def test_an_imagenet_classifier_is_a_good_tree_with_no_training(mobilenet, data_dir):
    tree = mobilenet.hierarchy
    wnids = tree.class_wnids
    labels, images = zip(*photographs(data_dir, 20), strict=True)
    batch = torch.stack([mobilenet.preprocess(image) for image in images])
    with torch.inference_mode():
        logits = mobilenet.head.linear(mobilenet.features(batch))
        hard = mobilenet.head.rules.hard(logits)
    target = torch.tensor([wnids.index(label) for label in labels])
    flat = (logits.argmax(1) == target).double().mean()
    assert flat >= 0.73  # 87.2 % of all 1,000, less three standard errors of 50
    assert (hard == target).double().mean() >= flat - 0.045  # two photographs


@pytest.mark.data
def test_its_paths_read_well_and_its_maps_are_there(mobilenet, data_dir):
    from nbdt.explain import explain

    _, image = next(photographs(data_dir, 1))
    found = explain(mobilenet, image, level="fast")[0]
    assert found.path.class_name == "tench"
    assert found.path.decisions[0].children[found.path.decisions[0].chosen] == "animal"
    assert found.resolution == (7, 7)
    assert isinstance(found.photo, Image.Image)
