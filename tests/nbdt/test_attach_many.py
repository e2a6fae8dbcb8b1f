"""`attach` in models of others: every kind of last layer. All of them: benchmarks/attach.py."""

import copy
import io
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from torch import nn

from nbdt import DecisionRules, Hierarchy, NBDTError, NBDTHead, attach, detach, flat
from nbdt.network.last_layer import OUTPUT, layer_of_logits

TREE = Hierarchy.from_paths([f"g{i % 4}/c{i}" for i in range(11)])


def tv(name, **options):
    return lambda: torchvision.models.get_model(name, weights=None, num_classes=11, **options)


def tm(name, **options):
    return lambda: timm.create_model(name, num_classes=11, **options)


class Standardised(nn.Conv2d):
    """As timm's NFNets have."""


class Before(nn.Module):
    """Puts another step before the layers."""

    def __init__(self, step, *layers):
        super().__init__()
        self.step, self.body = step, nn.Sequential(*layers)

    def forward(self, images):
        return self.body(self.step(images))


def patches(images):
    return nn.functional.unfold(images, 8, stride=8).mT


def pooled(first):
    return first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 11)


# Model, pixels, and where its logits come from.
MODELS = {
    "resnet18": (tv("resnet18"), 64, "fc"),
    "mobilenet_v3": (tv("mobilenet_v3_small"), 64, "classifier.3"),
    "vgg": (tv("vgg11"), 32, "classifier.6"),
    "swin": (tv("swin_v2_t"), 64, "head"),
    "two auxiliary heads": (tv("googlenet", init_weights=False), 64, "fc"),
    "convolution, ReLU, pool": (tv("squeezenet1_1"), 64, OUTPUT),
    "convolution, flatten": (tm("dla46_c"), 64, "fc"),
    "convolution": (tm("dpn48b"), 64, "classifier"),
    "norm, then linear": (tm("levit_128s", img_size=64), 64, OUTPUT),
    "hidden layer": (tm("efficientvit_b0"), 64, "head.classifier.4"),
    "heads averaged": (tm("crossvit_tiny_240"), 240, OUTPUT),
    "vision transformer": (tm("vit_tiny_patch16_224", img_size=32), 32, "head"),
    "convolution of its own class": (
        lambda: nn.Sequential(*pooled(Standardised(3, 8, 3))),
        32,
        "3",
    ),
    "patches as channels": (
        lambda: Before(nn.PixelUnshuffle(4), *pooled(nn.Conv2d(48, 8, 3))),
        32,
        "body.3",
    ),
    "patches as rows": (
        lambda: Before(patches, nn.Linear(192, 8), nn.Flatten(), nn.Linear(128, 11)),
        32,
        "body.2",
    ),
}


def network(make):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # a head that starts at zero would hide an error
                parameter.normal_(std=0.02)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_the_attached_model_is_log_softmax_of_its_own_logits(kind):
    make, side, place = MODELS[kind]
    model = network(make)
    images = torch.rand(2, 3, side, side)
    parts, keys = dict(model.named_modules()), list(model.state_dict())
    assert layer_of_logits(model, 11) == place
    with torch.inference_mode():
        logits = model(images)
        assert logits.shape == (2, 11)
        attach(model, TREE, rule="marginal")
        assert torch.allclose(model(images), logits.log_softmax(1), atol=1e-5)
        with flat(model):
            assert torch.equal(model(images), logits)
        duplicate = copy.deepcopy(model)
        detach(model)
        found = dict(model.named_modules())
        assert list(found) == list(parts)
        assert all(found[name] is part for name, part in parts.items())
        assert list(model.state_dict()) == keys
        assert torch.equal(model(images), logits)
        assert torch.allclose(duplicate(images), logits.log_softmax(1), atol=1e-5)
        assert torch.allclose(detach(duplicate)(images), logits, atol=1e-5)


class Distilled(nn.Module):
    """Two heads whose answers are averaged, as in distilled transformers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.head, self.head_dist = nn.Linear(6, 11), nn.Linear(6, 11)

    def forward(self, x):
        x = self.body(x).relu()
        return (self.head(x) + self.head_dist(x)) / 2


class Shared(nn.Module):
    """One layer by two names; the answer comes through the second."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 11)
        self.classifier = self.fc

    def forward(self, x):
        return self.classifier(x)


class Own(nn.Module):
    """A last layer that is no nn.Linear."""

    def __init__(self):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(11, 5))

    def forward(self, x):
        return -torch.cdist(x, self.prototypes)


class Averaged(nn.Module):
    """Two networks of their own width."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 11))
        self.b = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 11))

    def forward(self, x):
        return (self.a(x) + self.b(x)) / 2


class Early(nn.Module):
    """The head stands before a hidden layer with as many outputs."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(11, 11), nn.Linear(5, 11)

    def forward(self, x):
        return self.head(self.body(x).relu())


class Twice(nn.Module):
    """One layer, called for two views."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 11)

    def forward(self, x):
        return (self.fc(x) + self.fc(-x.abs())) / 2


class Scaled(nn.Module):
    """A factor that no module shows; a norm and a dropout that must stay as they are."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(5), nn.Linear(5, 11)

    def forward(self, x):
        return 5 * nn.functional.dropout(self.fc(self.norm(x)), 0.5, self.training)


class Adapted(nn.Module):
    """A layer with a low-rank correction, as peft wraps it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Module()
        self.fc.base_layer = nn.Linear(5, 11)
        self.fc.lora_A = nn.ModuleDict({"default": nn.Linear(5, 2, bias=False)})
        self.fc.lora_B = nn.ModuleDict({"default": nn.Linear(2, 11, bias=False)})

    def forward(self, x):
        return self.fc.base_layer(x) + self.fc.lora_B["default"](self.fc.lora_A["default"](x))


class Answer(nn.Module):
    """Logits inside something, as Hugging Face gives them."""

    def __init__(self, wrap, body=Early):
        super().__init__()
        self.wrap, self.body = wrap, body()

    def forward(self, x):
        return self.wrap(self.body(x))


@pytest.mark.parametrize("rule", ["marginal", "representative"])
@pytest.mark.parametrize("make", [Distilled, Shared, Own, Averaged, Early, Twice, Scaled, Adapted])
def test_an_example_shows_where_the_logits_come_from(make, rule):
    torch.manual_seed(0)
    model, x = make().train(), torch.randn(3, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attach(model, TREE, rule=rule, example=x)
    assert model.training
    assert all(part.training for part in model.modules())
    detach(model.eval())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    expected = DecisionRules(TREE, rule=rule)(model(x))
    assert torch.allclose(attach(model, TREE, rule=rule, example=(x,))(x), expected, atol=1e-6)


def test_adapters_are_seen_without_an_example():
    model, x = Adapted().eval(), torch.randn(3, 5)
    logits = model(x)
    assert torch.allclose(attach(model, TREE, rule="marginal")(x), logits.log_softmax(1), atol=1e-6)


@pytest.mark.parametrize(
    "wrap", [lambda z: {"logits": z}, lambda z: (z, 1), lambda z: SimpleNamespace(logits=z)]
)
def test_an_example_finds_logits_inside_the_output(wrap):
    model, x = Answer(wrap).eval(), torch.randn(3, 5)
    logits = model.body(x)
    attach(model, TREE, rule="marginal", example={"x": x})
    assert torch.allclose(model.body(x), logits.log_softmax(1), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Answer(lambda z: {"logits": z}, Scaled),
            r"gives a dict instead of logits .* returns `model\(x\)\['logits'\]`.*no other place",
        ),
        (lambda: Answer(lambda z: z.softmax(1)), "gives probabilities, not logits"),
        (lambda: Answer(lambda z: {"answer": z}), r"Expected logits \(batch, 11\) .* got NoneType"),
        (lambda: Answer(lambda z: z[:, :3]), r"Expected logits \(batch, 11\) .* got \(3, 3\)"),
    ],
)
def test_an_example_without_logits_is_refused(make, message):
    with pytest.raises(NBDTError, match=message):
        attach(make(), TREE, rule="marginal", example=torch.randn(3, 5))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_is_refused():
    scripted = torch.jit.trace(Shared().eval(), torch.randn(3, 5))
    with pytest.raises(NBDTError, match="A TorchScript model cannot be changed"):
        attach(scripted, TREE, rule="marginal")


@pytest.mark.parametrize("rule", ["marginal", "representative"])
@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (Distilled, None),
        (Shared, None),
        (Own, ""),
        (lambda: nn.Sequential(nn.Linear(5, 11), nn.ReLU()), None),
        (lambda: nn.Sequential(nn.Linear(5, 11), nn.ReLU(), nn.Linear(11, 11)), None),
        (Distilled, ""),
    ],
)
def test_wherever_the_logits_come_from(make, layer, rule):
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(3, 5)
    logits = model(x)
    expected = DecisionRules(TREE, rule=rule)(logits)
    modules = list(model.named_modules(remove_duplicate=False))
    attach(model, TREE, rule=rule, layer=layer)
    assert torch.allclose(model(x), expected, atol=1e-6)
    with flat(model):
        assert torch.equal(model(x), logits)
    assert sum(isinstance(part, NBDTHead) for part in model.modules()) == 1
    detach(model)
    assert list(model.named_modules(remove_duplicate=False)) == modules
    assert not model._forward_hooks
    assert torch.equal(model(x), logits)


@pytest.mark.parametrize("make", [Distilled, Shared])
def test_weights_go_through_a_file_and_to_other_types(make):
    torch.manual_seed(0)
    model, other = (attach(make().eval(), TREE, rule="representative") for _ in range(2))
    x = torch.randn(3, 5)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    assert torch.equal(other(x), model(x))
    wide = copy.deepcopy(model).double()
    assert wide(x.double()).dtype == torch.float64
    assert torch.allclose(wide(x.double()).float(), model(x), atol=1e-5)
    meta = copy.deepcopy(model).to("meta")
    assert {buffer.device.type for buffer in meta.buffers()} == {"meta"}


def test_a_model_that_gives_probabilities_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 11), nn.Softmax(dim=1))
    with pytest.raises(NBDTError, match="gives probabilities, not logits.*Remove the softmax"):
        attach(model, TREE, rule="marginal")


class Unseen(nn.Module):
    """Takes words, which no input that is tried has."""

    def __init__(self):
        super().__init__()
        self.words, self.fc = nn.Embedding(9, 5), nn.Linear(5, 11)

    def forward(self, words):
        return self.fc(self.words(words).mean(1))


def test_a_model_that_takes_no_input_tried_needs_an_example_or_a_layer():
    torch.manual_seed(0)
    model, words = Unseen(), torch.randint(9, (3, 4))
    logits = model(words)
    with pytest.raises(NBDTError) as refused:
        attach(model, TREE, rule="marginal")
    for fact in (
        "Unseen",
        "2×5",
        "2×3×512×512",
        "Error: Expected tensor",
        "example=…",
        "layer='fc'",
    ):
        assert fact in str(refused.value)
    unmade = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.Linear(8, 11))
    with pytest.raises(NBDTError, match="tried .none.*with weights.*layer='2'"):
        attach(unmade, TREE, rule="marginal")
    assert unmade[0].has_uninitialized_params()
    with pytest.raises(NBDTError, match=r"found none.* \(2×3×64×64\): .*got \(2, 8, 3844\)\.$"):
        attach(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(2)), TREE, rule="marginal")
    for options in ({"example": words}, {"layer": "fc"}):
        attach(model, TREE, rule="marginal", **options)
        assert torch.equal(model(words), logits.log_softmax(1))
        detach(model)
    with torch.device("meta"):
        unreal = Unseen()
    assert attach(unreal, TREE, rule="marginal", layer="fc").fc.linear.out_features == 11


class Margin(nn.Module):
    """A metric-learning head: the layer's weight is read, and the layer never called."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU())
        self.norm = nn.BatchNorm1d(6)
        self.last = nn.Linear(6, 11)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        x = self.norm(self.body(x).mean((2, 3)) + torch.rand(1))
        return nn.functional.linear(x, self.last.weight / self.last.weight.norm(dim=1)[:, None])


class Multiplied(nn.Module):
    """A layer whose output is multiplied, in the way that `change` says."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.change = nn.Linear(5, 11), change

    def forward(self, x):
        return self.change(self.fc(x))


class Heads(Distilled):
    """Two heads in an object, as Hugging Face's distilled models give them."""

    def forward(self, x):
        return SimpleNamespace(logits=super().forward(x))


class Alone(nn.Module):
    """The logits of a model that gives an object."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).logits


def test_a_weight_that_is_read_beside_its_layer_puts_the_head_on_the_output():
    torch.manual_seed(0)
    model, x = Margin().train(), torch.randn(2, 3, 9, 9)
    before = copy.deepcopy(model.state_dict())
    state, modes = torch.get_rng_state(), [part.training for part in model.modules()]
    attach(model, TREE, rule="marginal")
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in detach(model).modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.set_rng_state(state)
    logits = model.eval()(x)
    torch.set_rng_state(state)
    assert torch.equal(attach(model, TREE, rule="marginal")(x), logits.log_softmax(1))


@pytest.mark.parametrize(
    ("make", "options", "message", "remedy"),
    [
        (Margin, {"layer": "last"}, "not what its layer 'last' gives.*layer=''", {"layer": ""}),
        (
            lambda: Multiplied(lambda z: 16 * z),
            {"layer": "fc"},
            "not what its layer 'fc' gives",
            {"layer": ""},
        ),
        (Early, {"layer": "body"}, "not what its layer 'body' gives.*'head'", {"layer": "head"}),
        (Twice, {"layer": "fc"}, "not what its layer 'fc' gives.*layer=''", {"layer": ""}),
        (lambda: Multiplied(lambda z: z.softmax(1)), {}, "they sum to 1", None),
        (lambda: Multiplied(torch.sigmoid), {}, "the sigmoid of its layer 'fc'", None),
        (Heads, {}, r"Wrap it in .* `model\(x\).logits`", "wrap"),
        (Heads, {"layer": ""}, r"Wrap it in .* `model\(x\).logits`", "wrap"),
        (Heads, {"layer": "head"}, "not what its layer 'head' gives", "wrap"),
    ],
)
def test_what_is_not_the_rules_output_is_refused_and_the_remedy_works(
    make, options, message, remedy
):
    torch.manual_seed(0)
    model = make().eval()
    with pytest.raises(NBDTError, match=message):
        attach(model, TREE, rule="marginal", **options)
    assert not any(isinstance(part, NBDTHead) for part in model.modules())
    if remedy is None:
        return
    model = Alone(model) if remedy == "wrap" else model
    x = torch.randn(2, 3, 9, 9) if make is Margin else torch.randn(2, 5)
    torch.manual_seed(1)
    logits = model(x)
    attach(model, TREE, rule="marginal", **({} if remedy == "wrap" else remedy))
    torch.manual_seed(1)
    assert torch.allclose(model(x), logits.log_softmax(1), atol=1e-6)


def test_heads_that_start_at_zero_are_told_apart():
    model = Distilled().eval()
    for layer in (model.head, model.head_dist):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    assert layer_of_logits(model, 11) == OUTPUT


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Own, {}, "inside Own with 11 outputs.*found none.*layer=''"),
        (Distilled, {"layer": "haed"}, "no module 'haed'. Did you mean 'head'"),
        (Distilled, {"layer": "body"}, "not what its layer 'body' gives"),
        (
            lambda: Distilled().to("meta"),
            {"layer": "body"},
            "linear layer has 6 outputs, the hierarchy 11",
        ),
    ],
)
def test_errors_say_what_to_do(make, options, message):
    model = make()
    with pytest.raises(NBDTError, match=message):
        attach(model, TREE, rule="marginal", **options)
    assert not any(isinstance(part, NBDTHead) for part in model.modules())


def test_a_layer_per_position_and_an_output_that_is_no_tensor_are_refused():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 11)

        def forward(self, x):
            return self.fc(x).mean(1)

    model, x = Pooled(), torch.randn(2, 7, 5)
    logits = model(x)
    attach(model, TREE, rule="marginal", layer="fc")
    with pytest.raises(NBDTError, match=r"gives \(2, 7, 11\) instead of .*attach with layer=''"):
        model(x)
    attach(detach(model), TREE, rule="marginal", layer="")
    assert torch.allclose(model(x), logits.log_softmax(1), atol=1e-6)

    class Pair(Pooled):
        def forward(self, x):
            return self.fc(x), x

    with pytest.raises(NBDTError, match=r"Pair gives a tuple instead of logits.*model\(x\)\[0\]"):
        attach(Pair(), TREE, rule="marginal", layer="")
    unseen = attach(Pair().to("meta"), TREE, rule="marginal", layer="")
    with pytest.raises(NBDTError, match="Pair gives a tuple instead of logits"):
        unseen(torch.randn(2, 5, device="meta"))


def test_a_head_shows_the_weights_of_its_layer():
    model = attach(Shared(), TREE, rule="marginal")
    assert model.fc is model.classifier
    assert model.fc.weight is model.fc.linear.weight
    assert model.fc.bias is model.fc.linear.bias
    assert (model.fc.in_features, model.fc.out_features) == (5, 11)


def test_a_hugging_face_classifier():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=11,
    )  # fmt: skip
    model, images = ViTForImageClassification(config).eval(), torch.rand(2, 3, 32, 32)
    logits = model(images).logits
    attach(model, TREE, rule="marginal")
    assert torch.allclose(model(images).logits, logits.log_softmax(1), atol=1e-5)
    assert torch.equal(detach(model)(images).logits, logits)
