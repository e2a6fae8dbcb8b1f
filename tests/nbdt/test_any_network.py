"""Classifiers that are not timm's, and timm's with options: made, explained, saved, refused."""

import copy
import dataclasses

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms import v2

from nbdt import NBDT, Hierarchy, NBDTError, attach
from nbdt.explain import explain
from nbdt.hierarchies import from_classifier
from nbdt.model.saved import PROBE, file_hashes
from nbdt.network.preprocessing import Preprocessing, preprocessing_of
from tests.nbdt.test_model import edit_config

TREE = Hierarchy.from_paths(["bird/heron", "bird/crane", "bird/stork", "fish/pike", "fish/carp"])
SIDE = 64
TRANSFORM = v2.Compose(
    [
        v2.Resize(72),
        v2.CenterCrop(SIDE),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
    ]
)


def picture(width=120, height=90):
    noise = np.random.default_rng(1).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


class BothPools(nn.Module):
    def forward(self, x):
        return torch.cat([x.amax((2, 3)), x.mean((2, 3))], dim=1)


def with_a_head_of_blocks():
    """As fastai cuts a network: a body, then a head of its own."""
    body = nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
    head = nn.Sequential(
        BothPools(),
        nn.BatchNorm1d(1024),
        nn.Linear(1024, 7),
        nn.ReLU(),
        nn.Linear(7, 5, bias=False),
    )
    return nn.Sequential(body, head)


def hugging_face(two_heads=False):
    import transformers

    settings = {"num_labels": 5, "hidden_size": 16, "num_hidden_layers": 2, "patch_size": 16,
                "num_attention_heads": 2, "intermediate_size": 16, "image_size": SIDE}  # fmt: skip
    if two_heads:
        config = transformers.DeiTConfig(**settings)
        return transformers.DeiTForImageClassificationWithTeacher(config)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**settings))


class Angles(nn.Module):
    """Cosines to the rows of a layer's weight, as in metric learning."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU())
        self.last = nn.Linear(6, 5, bias=False)

    def forward(self, images):
        features = self.body(images).mean((2, 3))
        return 8 * nn.functional.cosine_similarity(features[:, None], self.last.weight[None], dim=2)


# Network, the layer of its maps, and their side.
NETWORKS = {
    "torchvision": (lambda: torchvision.models.resnet18(num_classes=5), "layer4", 2),
    "a convolution at the end": (
        lambda: torchvision.models.squeezenet1_1(num_classes=5),
        "classifier.2",
        3,
    ),
    "a transformer": (
        lambda: torchvision.models.VisionTransformer(SIDE, 16, 2, 2, 16, 16, num_classes=5),
        "encoder.layers.encoder_layer_1.ln_1",
        4,
    ),
    "a head of blocks": (with_a_head_of_blocks, "0", 2),
    "Hugging Face": (hugging_face, "vit.layers.1.layernorm_before", 4),
    "two heads in an object": (
        lambda: hugging_face(two_heads=True),
        "deit.layers.1.layernorm_before",
        4,
    ),
    "cosines": (Angles, "body", 15),
}


def made(kind):
    torch.manual_seed(0)
    network = NETWORKS[kind][0]().eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network


def logits_of(network, images):
    with torch.no_grad():
        found = network(images)
    return getattr(found, "logits", found)


@pytest.mark.parametrize("kind", NETWORKS)
def test_any_network_is_a_model_and_stays_as_it_is(kind):
    network, images = made(kind), torch.stack([TRANSFORM(picture())])
    before, parts = copy.deepcopy(network.state_dict()), list(network.modules())
    expected = logits_of(network, images).log_softmax(1)
    model = NBDT.from_network(network, kind, TREE, rule="marginal", preprocessing=TRANSFORM)
    assert all(a is b for a, b in zip(parts, network.modules(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        assert torch.allclose(model(images), expected, atol=1e-5)
    (found,) = explain(model, picture())
    _, layer, side = NETWORKS[kind]
    assert found.made["layer"] == f"network.{layer}"
    assert found.resolution == (side, side)
    assert all(np.abs(values).max() > 0 for values in found.maps)
    assert found.path.log_prob == pytest.approx(float(expected.max()), abs=1e-4)
    assert found.photo.size == (320, 320)


@pytest.mark.parametrize("kind", ["torchvision", "a transformer", "a head of blocks", "cosines"])
def test_a_network_with_a_head_is_explained(kind):
    network = made(kind)
    images = TRANSFORM(picture())[None]
    attach(network, TREE, rule="marginal")
    state = list(network.state_dict())
    (found,) = explain(network, picture(), preprocessing=TRANSFORM)
    (same,) = explain(network, images)
    assert np.allclose(found.maps[0], same.maps[0], atol=1e-5)
    with torch.no_grad():
        assert found.path.log_prob == pytest.approx(float(network(images).max()), abs=1e-4)
    assert list(network.state_dict()) == state
    assert not any(part._forward_hooks for part in network.modules()) or kind == "cosines"
    with pytest.raises(NBDTError, match="Say how a photograph becomes .*preprocessing=…"):
        explain(network, picture())
    with pytest.raises(NBDTError, match="is in training mode"):
        explain(network.train(), images)


def test_maps_are_those_of_timms_own_path():
    """A network is explained alike through its parts and as an unknown one."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=5).eval()
    images = torch.randn(2, 3, SIDE, SIDE)
    unknown = nn.Sequential(copy.deepcopy(network)).eval()
    theirs = NBDT.from_network(network, "resnet18", TREE, rule="marginal")
    ours = NBDT.from_network(unknown, "mine", TREE, rule="marginal")
    found = (explain(model, images, level="fast") for model in (theirs, ours))
    for a, b in zip(*found, strict=True):
        assert all(np.allclose(x, y, atol=1e-5) for x, y in zip(a.maps, b.maps, strict=True))


def test_a_classifier_without_a_hierarchy_gets_one():
    model = from_classifier(made("torchvision"), preprocessing=TRANSFORM)
    assert model.hierarchy.classes == tuple(f"class {index}" for index in range(5))
    named = made("Hugging Face")
    named.config.id2label = dict(enumerate(TREE.classes))
    assert from_classifier(named).hierarchy.classes == TREE.classes
    assert from_classifier(made("two heads in an object"), hierarchy=TREE).hierarchy == TREE
    with pytest.raises(NBDTError, match="No linear layer of Angles gives its logits.*from_network"):
        from_classifier(made("cosines"))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            lambda: nn.Sequential(nn.Embedding(5, 5)),
            "took none of the inputs tried.*preprocessing=",
        ),
        (lambda: nn.Sequential(Angles(), nn.Softmax(dim=1)), "gives probabilities, not logits"),
    ],
)
def test_what_is_no_classifier_of_images_is_refused(network, message):
    with pytest.raises(NBDTError, match=message):
        NBDT.from_network(network(), "mine", TREE, rule="marginal")


# ---- preprocessing ---------------------------------------------------------------------------------


def squashed(image):
    """As Hugging Face's processors often do: both sides to one length, an array in a mapping."""
    values = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
    return {"pixel_values": [values.transpose(2, 0, 1)]}


@pytest.mark.parametrize(
    ("function", "size", "mean", "std"),
    [
        (TRANSFORM, 64, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
        (squashed, 40, (0.5,) * 3, (0.5,) * 3),
        (lambda image: squashed(image)["pixel_values"][0][None], 40, (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_a_function_is_known_by_trying_it(function, size, mean, std):
    found = preprocessing_of(function)
    assert found.size == size
    assert np.allclose((found.mean, found.std), (mean, std), atol=1e-6)
    values = found(picture())
    again = found.normalise(torch.from_numpy(np.array(found.frame(picture()))))
    assert (values - again).abs().max() <= 0.51 / 255 / min(std)
    assert found.facts() == preprocessing_of(function).facts()


def test_two_functions_of_one_size_are_not_taken_for_each_other():
    mirrored = v2.Compose([TRANSFORM, v2.functional.horizontal_flip])
    assert preprocessing_of(mirrored).facts() != preprocessing_of(TRANSFORM).facts()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda _image: torch.zeros(3, 8, 8), "the same for a black and a white picture"),
        (lambda image: torch.zeros(len(image.getbands())), r"make a tensor \(3, height, width\)"),
    ],
)
def test_a_function_that_makes_no_picture_is_refused(function, message):
    with pytest.raises(NBDTError, match=message):
        preprocessing_of(function)


# ---- saved -----------------------------------------------------------------------------------------


def of_timm(name, **options):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("test_resnet", {"global_pool": "avgmax"}, ",global_pool=avgmax"),
        ("test_resnet", {"act_layer": "mish", "in_chans": 2}, ",in_chans=2,act_layer=mish"),
        ("test_efficientnet", {"bn_eps": 0.1}, ",bn_eps=0.1"),
        ("test_efficientnet", {"output_stride": 16, "drop_rate": 0.4}, ",output_stride=16"),
        (
            "test_vit",
            {"class_token": False, "global_pool": "avg"},
            ",global_pool=avg,class_token=f",
        ),
        ("test_vit", {"qk_norm": True, "img_size": 64}, ",img_size=64,qk_norm=true"),
        ("test_vit", {"reg_tokens": 3}, ",reg_tokens=3"),
        ("test_convnext", {"global_pool": "max"}, ",global_pool=max"),
        ("test_resnet", {"stem_width": 32}, ",stem_width=32"),
        ("test_vit", {"final_norm": False}, ",final_norm=false"),
    ],
)
def test_a_saved_network_is_made_again_with_its_options(name, options, text, tmp_path):
    network = of_timm(name, **options)
    side = options.get("img_size", 160)
    images = torch.randn(2, options.get("in_chans", 3), side, side)
    expected = logits_of(network, images).log_softmax(1)
    model = NBDT.from_network(network, name, TREE, rule="marginal")
    assert model.architecture.startswith(name + text)
    model.save(tmp_path / "model")
    with torch.no_grad():
        assert torch.allclose(NBDT.load(tmp_path / "model")(images), expected, atol=1e-5)


def test_a_network_of_other_channels_is_explained_from_tensors():
    network = of_timm("test_resnet", in_chans=4)
    model = NBDT.from_network(network, "test_resnet", TREE, rule="marginal").eval()
    images = torch.randn(1, 4, SIDE, SIDE)
    found, expected = explain(model, images)[0].path, model.paths(images)[0]
    assert found.class_name == expected.class_name
    assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-5)  # another memory layout
    with pytest.raises(NBDTError, match=r"takes 4 channels, and a photograph has 3"):
        explain(model, picture())


def test_a_grey_network_with_a_head_is_explained_from_tensors():
    torch.manual_seed(0)
    grey = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 13 * 13, 5)
    ).eval()
    images = torch.randn(2, 1, 28, 28)
    expected = logits_of(grey, images).log_softmax(1)
    found = explain(attach(grey, TREE, rule="marginal"), images)
    assert found[0].resolution == (13, 13)
    assert [one.path.class_index for one in found] == expected.argmax(1).tolist()


def test_tensors_that_a_network_with_a_head_does_not_take_are_refused():
    torch.manual_seed(0)
    own = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 5)
    )
    model = NBDT.from_network(own.eval(), "own", TREE, rule="marginal", preprocessing=TRANSFORM)
    headed = attach(own, TREE, rule="marginal")
    timms = attach(of_timm("test_resnet"), TREE, rule="marginal")
    for shape, message in (
        ((3, SIDE, SIDE), r"\(batch, .*, height, width\).*got \(3, "),
        ((0, 3, SIDE, SIDE), r"at least one image, got \(0, "),
        ((1, 1, SIDE, SIDE), r"1 channels|\(1, 1, "),
    ):
        for network in (headed, timms, model.eval()):
            with pytest.raises(NBDTError, match=message):
                explain(network, torch.randn(shape))
    with pytest.raises(NBDTError, match="floating point"):
        explain(headed, torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8))
    assert len(explain(headed, torch.randn(2, 3, SIDE, SIDE))) == 2


def test_timms_networks_with_two_heads_have_their_preprocessing():
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5).eval()
    model = NBDT.from_network(network, "deit", TREE, rule="marginal").eval()
    assert model.preprocess.mean == pytest.approx((0.485, 0.456, 0.406))
    assert explain(model, picture())[0].resolution == (14, 14)


def test_what_cannot_be_made_again_is_refused_by_name(tmp_path):
    changed = of_timm("test_resnet", block_args={"attn_layer": "se"})
    other = of_timm("test_resnet")
    other.maxpool = nn.AvgPool2d(3, 2, 1)
    given = NBDT.from_network(of_timm("test_resnet"), "test_resnet", TREE, rule="marginal")
    given.preprocess = preprocessing_of(TRANSFORM)
    for model, message in (
        (NBDT.from_network(changed, "test_resnet", TREE, rule="marginal"), r"not timm's.*\.se\."),
        (NBDT.from_network(other, "test_resnet", TREE, rule="marginal"), "maxpool: AvgPool2d"),
        (NBDT.from_network(of_timm("test_resnet"), "mine", TREE, rule="marginal"), "'mine'"),
        (NBDT.from_network(made("cosines"), "x", TREE, rule="marginal"), "test_any_network.Angles"),
        (given, "preprocessing that is a function cannot be saved"),
    ):
        with pytest.raises(NBDTError, match=message):
            model.eval().save(tmp_path / "model")
        assert not list(tmp_path.iterdir())
    given.preprocess = Preprocessing(64, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 0.875, "bilinear")
    given.save(tmp_path / "model")
    assert NBDT.load(tmp_path / "model").preprocess == given.preprocess


@pytest.fixture
def folder(tmp_path):
    NBDT.from_network(of_timm("test_resnet"), "test_resnet", TREE, rule="marginal").save(
        tmp_path / "model", dtype=torch.float16
    )
    return tmp_path / "model"


def test_a_network_that_a_library_changed_is_refused(folder):
    edit_config(
        folder, architecture="test_resnet,global_pool=max"
    )  # as a new version of timm might
    with pytest.raises(NBDTError, match=r"not answer as it did .* timm \d.*; here are .* timm \d"):
        NBDT.load(folder)


def test_older_models_have_no_probe(folder):
    (folder / PROBE).unlink()
    edit_config(folder, sha256=file_hashes(folder))
    assert NBDT.load(folder).hierarchy == TREE


@pytest.mark.parametrize(
    "probe",
    [
        {"input": torch.zeros(1, 3, 1, 2000), "logits": torch.zeros(1, 5)},
        {"input": torch.zeros(1, 3, 64, 64), "logits": torch.zeros(1, 6)},
        {"input": torch.zeros(1, 3, 64, 64)},
        {"logits": torch.zeros(1, 5), "input": torch.zeros(9)},
    ],
)
def test_a_hostile_probe_is_refused(folder, probe):
    save_file(probe, folder / PROBE)
    edit_config(folder, sha256=file_hashes(folder))
    with pytest.raises(NBDTError, match="probe.safetensors.* is damaged: expected tensors"):
        NBDT.load(folder)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("vit_giant_patch14_224,img_size=4088", "does not fit the saved architecture"),
        ("resnet152,in_chans=64", "does not fit the saved architecture"),
        ("convnext_xxlarge", "does not fit the saved architecture"),
    ],
)
def test_a_network_gets_memory_only_if_the_file_has_its_weights(
    folder, monkeypatch, architecture, message
):
    def refuse(*_arguments, **_options):
        raise AssertionError("it got memory")

    edit_config(folder, architecture=architecture)
    monkeypatch.setattr("nbdt.model.model.create_timm", refuse)
    with pytest.raises(NBDTError, match=message):
        NBDT.load(folder)


def test_tables_that_are_in_no_file_are_bounded(folder, monkeypatch):
    monkeypatch.setattr("nbdt.model.saved.MAX_TABLES", 1000)
    with pytest.raises(NBDTError, match="needs tables of .* bytes, expected at most 1,000"):
        NBDT.load(folder)


def test_a_new_last_layer_keeps_the_probe_true(folder):
    from nbdt.model.writing import save_head

    model = NBDT.load(folder)
    with torch.no_grad():
        model.head.linear.weight.mul_(2)
    save_head(model, folder)
    again = NBDT.load(folder)
    assert torch.equal(again.head.linear.weight, model.head.linear.weight)
    assert load_file(folder / PROBE)["logits"].shape == (1, 5)


def test_preprocessing_of_ours_is_taken_as_it_is():
    ours = Preprocessing(64, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 0.875, "bilinear")
    assert preprocessing_of(ours) is ours
    assert Preprocessing.from_dict(ours.facts()) == dataclasses.replace(ours)
