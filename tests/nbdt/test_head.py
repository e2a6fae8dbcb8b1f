"""The rules as modules: state, precision, compilers, other people's models, and results."""

import copy
import io
import json
import math
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nbdt import Decision, DecisionRules, Hierarchy, NBDTError, NBDTHead, Path, attach, detach, flat
from nbdt.decide.paths import as_percent
from tests import oracle

TEN = oracle.zoo()  # of ten classes


def head_on(rule, h=TEN, in_features=6, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NBDTHead(in_features, h, rule=rule).eval()


def features(batch=3, width=6, seed=1):
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def small_network(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, classes)).eval()


@pytest.fixture
def compiler():
    """torch.compile with nothing remembered, before and after."""
    torch.compiler.reset()
    yield lambda part, **options: torch.compile(part, backend="eager", **options)
    torch.compiler.reset()


# The head.


@pytest.mark.parametrize("rule", oracle.RULES)
def test_a_head_is_its_linear_layer_and_its_rules(rule):
    head, x = head_on(rule), features()
    logits = head.linear(x)
    assert torch.equal(head(x), head.rules(logits))
    assert torch.equal(head.hard(x), head.rules.hard(logits))
    assert head.paths(x) == head.rules.paths(logits)
    assert head.paths(x, classes=[0, 1, 2]) == head.rules.paths(logits, classes=[0, 1, 2])
    assert (head.in_features, head.out_features) == (6, 10)
    assert (head.hierarchy, head.rule) == (TEN, rule)
    assert head(x).shape == (3, 10)


def test_from_linear_uses_the_layer_itself():
    linear = nn.Linear(6, 10, dtype=torch.float64).eval()
    head = NBDTHead.from_linear(linear, TEN, rule="marginal")
    assert head.linear is linear
    assert not head.training
    assert torch.equal(head(features().double()), linear(features().double()).log_softmax(dim=1))


def test_from_linear_wants_one_output_per_class():
    with pytest.raises(NBDTError, match="The linear layer has 9 outputs, the hierarchy 10 classes"):
        NBDTHead.from_linear(nn.Linear(6, 9), TEN, rule="marginal")


@pytest.mark.parametrize("make", [DecisionRules, lambda h: NBDTHead(6, h)])
def test_the_rule_has_no_default(make):
    with pytest.raises(TypeError, match="rule"):
        make(TEN)


def test_printing_a_module_names_tree_and_rule():
    text = "Hierarchy(10 classes, 6 inner nodes, depth 4), rule='marginal'"
    assert text in repr(DecisionRules(TEN, rule="marginal"))
    assert text in repr(head_on("marginal"))


# State.


def test_the_state_holds_weights_and_the_hash_of_the_tree():
    state = head_on("representative").state_dict()
    assert set(state) == {"linear.weight", "linear.bias", "rules.hierarchy_hash"}
    assert bytes(state["rules.hierarchy_hash"].tolist()).hex() == TEN.hash


@pytest.mark.parametrize("rule", oracle.RULES)
def test_state_survives_a_file_that_holds_no_code(rule):
    head, other, file = head_on(rule), head_on(rule, seed=5), io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    assert not torch.equal(other(features()), head(features()))
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(features()), head(features()))


def test_the_state_of_another_tree_is_refused():
    other = Hierarchy.from_paths([f"r/{name}" for name in TEN.classes])
    head, before = head_on("marginal"), features()
    expected = head(before)
    with pytest.raises(
        NBDTError, match=rf"another hierarchy \(hash {other.hash[:12]}…\) than this"
    ):
        head.load_state_dict(head_on("marginal", other, seed=3).state_dict())
    assert torch.equal(head.rules.hierarchy_hash, head_on("marginal").rules.hierarchy_hash)
    assert head(before).shape == expected.shape


@pytest.mark.parametrize("strict", [True, False])
def test_another_order_of_the_same_classes_is_another_tree(strict):
    other = Hierarchy(TEN.nodes, TEN.classes[::-1])
    with pytest.raises(NBDTError, match="These weights belong to another hierarchy"):
        attach(small_network(), TEN, rule="marginal").load_state_dict(
            attach(small_network(), other, rule="marginal").state_dict(), strict=strict
        )


@pytest.mark.parametrize(
    "damaged",
    [torch.rand(32), torch.tensor(3), torch.zeros(32, dtype=torch.int64) - 4, torch.zeros(0)],
)
def test_a_damaged_hash_is_refused(damaged):
    with pytest.raises(NBDTError, match=r"another hierarchy \(hash damaged"):
        DecisionRules(TEN, rule="marginal").load_state_dict({"hierarchy_hash": damaged})


def test_a_state_without_hash_is_incomplete():
    with pytest.raises(RuntimeError, match="Missing key.*hierarchy_hash"):
        DecisionRules(TEN, rule="marginal").load_state_dict({})


@pytest.mark.parametrize("rule", oracle.RULES)
def test_copies_answer_alike_and_share_nothing(rule):
    head = head_on(rule)
    duplicate = copy.deepcopy(head)
    assert torch.equal(duplicate(features()), head(features()))
    assert duplicate.paths(features()) == head.paths(features())
    with torch.no_grad():
        duplicate.linear.weight.zero_()
    assert not torch.equal(duplicate(features()), head(features()))


@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize(
    ("dtype", "answer", "near"),
    [
        (torch.float64, torch.float64, 1e-5),
        (torch.float16, torch.float32, 2e-2),
        (torch.bfloat16, torch.float32, 1e-1),
    ],
)
def test_other_precisions(rule, dtype, answer, near):
    head = head_on(rule)
    other = copy.deepcopy(head).to(dtype)
    x = features()
    assert other(x.to(dtype)).dtype == answer
    assert torch.allclose(other(x.to(dtype)).double(), head(x).double(), rtol=0, atol=near)
    assert other.hard(x.to(dtype)).dtype == torch.int64
    assert torch.equal(other.rules.hierarchy_hash, head.rules.hierarchy_hash)


@pytest.mark.parametrize("rule", oracle.RULES)
def test_autocast_lowers_the_linear_layer_alone(rule):
    head, x = head_on(rule), features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head.linear(x)
        assert logits.dtype == torch.bfloat16
        assert head(x).dtype == torch.float32
        assert torch.equal(head(x), head.rules(logits.float()))


# Compilers.

# torch's tracer of custom gradients makes the object that torch warns against.
TRACER = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@TRACER
@pytest.mark.parametrize("rule", oracle.RULES)
def test_compiled(rule, compiler):
    head, x = head_on(rule), features()
    whole = compiler(head, fullgraph=True)
    hard = compiler(head.hard)
    for batch in (3, 1, 40):
        x = features(batch)
        assert torch.allclose(whole(x), head(x), atol=1e-6)
        assert torch.equal(hard(x), head.hard(x))


@TRACER
def test_compiled_models_have_a_flat_mode_and_gradients(compiler):
    head, x = head_on("representative"), features().requires_grad_()
    whole = compiler(head, fullgraph=True)
    (gradient,) = torch.autograd.grad(whole(x)[:, 2].sum(), x)
    (expected,) = torch.autograd.grad(head(x)[:, 2].sum(), x)
    assert torch.allclose(gradient, expected, atol=1e-6)
    with flat(whole):
        assert torch.equal(whole(x), head.linear(x))
    assert torch.allclose(whole(x), head(x), atol=1e-6)


@TRACER
@pytest.mark.parametrize("rule", oracle.RULES)
@pytest.mark.parametrize("h", [TEN, oracle.caterpillar(20), oracle.star(70)], ids=repr)
def test_exported_with_any_batch(rule, h):
    head = head_on(rule, h)
    sizes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(head, (features(5),), dynamic_shapes=sizes).module()
    for batch in (2, 5, 300):
        assert torch.allclose(exported(features(batch)), head(features(batch)), atol=1e-5)


# Attach and detach.

MODELS = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(num_classes=10),
    "vit_b_16": lambda: torchvision.models.vit_b_16(num_classes=10, image_size=32),
    "convnext_atto": lambda: timm.create_model("convnext_atto", num_classes=10),
}
PLACES = {
    "resnet18": "fc",
    "efficientnet_b0": "classifier.1",
    "vit_b_16": "heads.head",
    "convnext_atto": "head.fc",
}


@pytest.mark.parametrize("name", MODELS)
def test_attach_and_detach_on_models_of_others(name):
    model, images = MODELS[name]().eval(), torch.rand(2, 3, 32, 32)
    parts, keys = dict(model.named_modules()), list(model.state_dict())
    linear = model.get_submodule(PLACES[name])
    with torch.inference_mode():
        logits = model(images)

        assert attach(model, TEN, rule="marginal") is model
        assert isinstance(model.get_submodule(PLACES[name]), NBDTHead)
        assert not any(part.training for part in model.modules())
        assert torch.equal(model(images), logits.log_softmax(dim=1))
        with flat(model):
            assert torch.equal(model(images), logits)

        assert detach(model) is model
        assert model.get_submodule(PLACES[name]) is linear
        assert list(model.state_dict()) == keys
        found = dict(model.named_modules())
        assert list(found) == list(parts)
        assert all(found[part] is parts[part] for part in parts)
        assert torch.equal(model(images), logits)


def test_attach_takes_the_last_layer_that_fits():
    model = small_network()
    attach(model, TEN, rule="representative")
    assert isinstance(model[1], nn.Linear)
    assert isinstance(model[3], NBDTHead)


def test_attach_keeps_the_device_the_type_and_the_parameters():
    model = small_network().double().train()
    parameters = [*model.parameters()]
    attach(model, TEN, rule="representative")
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(part.training for part in model.modules())
    assert model(torch.rand(2, 12, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: attach(small_network(9), oracle.family(), rule="marginal"),
            r"linear layer inside Sequential with 4 outputs.*found '1 \(10\)', '3 \(9\)'",
        ),
        (lambda: attach(nn.Flatten(), TEN, rule="marginal"), "found none"),
        (lambda: attach(nn.Linear(3, 10), TEN, rule="marginal"), "inside Linear .*use NBDTHead"),
        (lambda: attach(small_network(), TEN, rule="soft"), "Unknown rule 'soft'"),
        (lambda: detach(small_network()), "Sequential has no NBDTHead; attach"),
        (lambda: detach(head_on("marginal")), "bare NBDTHead; its linear layer is `head.linear`"),
        (lambda: attach(head_on("marginal"), TEN, rule="marginal"), "has an NBDTHead already"),
        (
            lambda: attach(attach(small_network(), TEN, rule="marginal"), TEN, rule="marginal"),
            r"has an NBDTHead already; detach\(model\) first",
        ),
        (lambda: flat(small_network()).__enter__(), "Sequential has no NBDTHead; attach"),
    ],
)
def test_what_cannot_be_attached_or_detached(act, message):
    with pytest.raises(NBDTError, match=message):
        act()


def test_a_failed_attach_leaves_the_model_alone():
    model = small_network()
    parts = [*model.modules()]
    with pytest.raises(NBDTError):
        attach(model, TEN, rule="soft")
    assert all(a is b for a, b in zip(parts, model.modules(), strict=True))


# Flat.


def test_flat_is_for_a_while_and_nests():
    model, x = attach(small_network(), TEN, rule="representative"), torch.rand(2, 12)
    logits, leaves = model[3].linear(model[:3](x)), model(x)
    with flat(model):
        assert torch.equal(model(x), logits)
        with flat(model):
            assert torch.equal(model(x), logits)
        assert torch.equal(model(x), logits)
        assert model[3].hard(model[:3](x)).shape == (2,)
    assert torch.equal(model(x), leaves)


def test_flat_ends_with_an_exception():
    model, x = attach(small_network(), TEN, rule="representative"), torch.rand(2, 12)
    leaves = model(x)
    with pytest.raises(KeyError), flat(model):
        raise KeyError
    assert torch.equal(model(x), leaves)


def test_data_parallel(tmp_path):
    model, x = attach(small_network().train(), TEN, rule="representative"), torch.rand(4, 12)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = DistributedDataParallel(model)
        assert torch.equal(wrapped(x), model(x))
        with flat(wrapped):
            logits = wrapped(x)
        assert torch.equal(logits, model[3].linear(model[:3](x)))
        nn.functional.cross_entropy(wrapped(x), torch.arange(4)).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        assert "module.3.rules.hierarchy_hash" in wrapped.state_dict()
        # Before the group: the last to hold it joins its thread, and the reducer would do so with
        # the GIL, for which that thread may wait.
        del wrapped
    finally:
        torch.distributed.destroy_process_group()


# Results.

DECISION = Decision(
    node="animal",
    node_id="animal/",
    children=("cat", "dog", "eel"),
    child_ids=("cat", "dog", "eel"),
    log_probs=(math.log(0.2), math.log(0.7), math.log(0.1)),
    chosen=1,
)


def test_a_decision():
    assert DECISION.probability == pytest.approx(0.7)
    assert DECISION.runner_up == 0
    assert DECISION.margin == pytest.approx(math.log(0.7 / 0.2))
    assert DECISION.to_dict()["runner_up"] == "cat"


def test_a_decision_against_the_odds_has_a_negative_margin():
    asked = replace(DECISION, chosen=0)
    assert asked.runner_up == 1
    assert DECISION.is_likeliest
    assert not asked.is_likeliest
    assert "dog 70.0%, likelier here" in Path((asked,), "cat", 0, -1.6)._repr_html_()
    assert asked.margin == pytest.approx(math.log(0.2 / 0.7))


def test_a_path():
    path = Path((DECISION,), "dog", 1, math.log(0.7))
    assert list(path) == [DECISION]
    assert len(path) == 1
    assert path.probability == pytest.approx(0.7)
    assert str(path) == "animal → dog (70.0%)"


@pytest.mark.parametrize(
    ("probability", "shown"),
    [
        (1.0, "100.0%"),
        (0.9997, ">99.9%"),
        (0.9994, "99.9%"),
        (0.0004, "<0.1%"),
        (0.0, "0.0%"),
        (0.7, "70.0%"),
    ],
)
def test_what_is_not_certain_never_reads_so(probability, shown):
    assert as_percent(probability) == shown


@pytest.mark.parametrize("result", [DECISION, Path((DECISION,), "dog", 1, -0.1)])
def test_results_are_frozen(result):
    with pytest.raises(AttributeError):
        result.chosen = 2


@pytest.mark.parametrize("rule", oracle.RULES)
def test_paths_are_plain_data(rule):
    for path in head_on(rule).paths(100 * features()):
        data = json.loads(json.dumps(path.to_dict(), allow_nan=False))
        assert data["class"] == path.class_name == TEN.classes[data["class_index"]]
        assert data["probability"] == pytest.approx(path.probability)
        assert math.prod(step["probability"] for step in data["path"]) == pytest.approx(
            path.probability
        )
        for step, decision in zip(data["path"], path, strict=True):
            assert [child["name"] for child in step["children"]] == list(decision.children)
            assert step["chosen"] == decision.children[decision.chosen]
            assert step["margin"] == decision.margin
            assert step["is_likeliest"] == (decision.margin >= 0)
        assert path.class_name in str(path)


def test_html_escapes_hostile_names():
    names = ["<img src=x onerror=alert(1)>", "&lt;", '"><script>']
    h = Hierarchy.from_paths([["<b>", name] for name in names])
    for path in DecisionRules(h, rule="marginal").paths(torch.eye(3)):
        page = path._repr_html_()
        assert "<td>&lt;b&gt;</td>" in page
        assert not any(hostile in page for hostile in ("<img", "<script", "<b><b>", '"><'))
    shown = Path((DECISION,), "<i>&", 1, -0.1)._repr_html_()
    assert shown.startswith("<b>&lt;i&gt;&amp;</b>")
