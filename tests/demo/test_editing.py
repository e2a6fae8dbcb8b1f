"""Edits as they come from the page, and what they change: against plainer ways of doing the same."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nbdt import DecisionRules, Hierarchy
from nbdt.demo.editing import versions
from nbdt.demo.editing.edits import MAX_UNDO, carried, edited, in_words, read_request, suggest
from nbdt.demo.editing.panel import draw_edits, edited_by_program, effect_record
from nbdt.demo.store import Store
from nbdt.demo.views.tree import path_record, tree_record
from nbdt.demo.visitor import Photograph, Visitor
from nbdt.errors import NBDTError
from nbdt.hierarchies import edit
from nbdt.hierarchies.edit import EditError, EditStack
from nbdt.hierarchies.edit.operations import make
from nbdt.hierarchies.edit.record import EditRequest, consequences
from nbdt.hierarchies.measure.effect import MAX_VALUES, Reference, effect
from tests.demo.tiny_model import labelled_logits, tiny_model

ANIMALS = Hierarchy.from_nested(
    {
        "thing": {
            "animal": {"bird": ["owl", "eagle", "wren"], "mammal": ["cat", "dog", "horse"]},
            "vehicle": ["car", "bus"],
        }
    }
)
HOSTILE = (
    "${alert(1)}",
    "<img src=x onerror=alert(1)>",
    "{{constructor.constructor('alert(1)')()}}",
    "</script><script>alert(1)</script>",
)


def model_of(rule="representative", images=0):
    return tiny_model(ANIMALS, rule, images)


def visitor_of(model):
    return Visitor(model)


# ---- requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (None, "JSON object, got None"),
        ([], "JSON object"),
        ({}, "Unknown edit None; choose one of 'move', 'group'"),
        ({"kind": "explode"}, "Unknown edit 'explode'"),
        ({"kind": ["move"]}, "Unknown edit list"),
        ({"kind": "move", "nodes": "cat", "to": "bird"}, "ids in a list"),
        ({"kind": "move", "nodes": [1], "to": "bird"}, "'nodes' to be text"),
        ({"kind": "move", "nodes": [["cat"]], "to": "bird"}, "'nodes' to be text"),
        ({"kind": "move", "nodes": ["cat"], "to": {"a": 1}}, "'to' to be text"),
        ({"kind": "move", "nodes": ["x" * 501], "to": "bird"}, "at most 500 characters"),
        ({"kind": "move", "nodes": ["cat"] * 1001, "to": "bird"}, "at most 1,000 ids"),
        ({"kind": "move", "nodes": ["cat"]}, "'move' needs 'to'"),
        ({"kind": "move", "nodes": ["cat", "dog"], "to": "bird"}, "takes 1 nodes, got 2"),
        ({"kind": "group", "nodes": ["cat"], "name": "x"}, "takes 2 or more nodes, got 1"),
        ({"kind": "group", "nodes": ["cat", "dog"], "name": "  "}, "'group' needs 'name'"),
        ({"kind": "rename", "nodes": ["bird"]}, "'rename' needs 'name'"),
        ({"kind": "merge", "nodes": ["bird"]}, "'merge' takes 2 nodes"),
        ({"kind": "move", "nodes": ["cat"], "to": "nowhere"}, "no node 'nowhere'"),
        ({"kind": "move", "nodes": ["thing"], "to": "bird"}, "is the root"),
        ({"kind": "group", "nodes": ["thing", "cat"], "name": "x"}, "root"),
        ({"kind": "group", "nodes": ["cat", "thing"], "name": "x"}, "root"),
        ({"kind": "rename", "nodes": ["bird"], "name": "a\u202eb"}, "bidirectional"),
        ({"kind": "rename", "nodes": ["bird"], "name": "a\u200bb"}, "zero-width"),
        ({"kind": "rename", "nodes": ["bird"], "name": "cat"}, "'cat' is a class; give"),
        ({"kind": "rename", "nodes": ["cat"], "name": "lion"}, "is a class"),
        ({"kind": "undo"}, "no edit to undo"),
        ({"kind": "redo"}, "no edit to redo"),
        ({"kind": "reset"}, "no edit to undo"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(payload, message):
    stack = EditStack(ANIMALS)
    with pytest.raises(EditError, match=message):
        edited(stack, payload)
    assert stack == EditStack(ANIMALS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = st.fixed_dictionaries(
    {"kind": st.sampled_from(("move", "group", "rename", "merge", "split", "undo")) | JSON},
    optional={"nodes": JSON, "to": JSON, "name": JSON, "seq": JSON},
)


@given(FIELDS | JSON)
def test_any_json_is_an_edit_or_refused(payload):
    try:
        assert isinstance(edited(EditStack(ANIMALS), payload), EditStack)
    except NBDTError as error:
        assert str(error)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_that_can_be_read_stays_text(name):
    stack = edited(EditStack(ANIMALS), {"kind": "rename", "nodes": ["bird"], "name": name})
    assert name in stack.hierarchy.names
    assert name in json.loads(tree_record(stack.hierarchy))["names"]
    visitor = Visitor(tiny_model(ANIMALS))
    visitor.stack = stack
    assert name in json.loads(path_record(visitor))["undo"]


# ---- the stack ---------------------------------------------------------------------------------


def requests(tree):
    """Any edit of any nodes: most of them possible."""
    node = st.sampled_from(tree.ids)
    kinds = st.sampled_from(("move", "group", "ungroup", "rename", "merge", "swap"))
    return st.builds(
        lambda kind, one, two: {
            "kind": kind,
            "nodes": [one] if kind in {"move", "ungroup", "rename"} else [one, two],
            "to": two,
            "name": "something new",
        },
        kinds, node, node,
    )  # fmt: skip


@st.composite
def edited_stacks(draw, tree=ANIMALS, most=4):
    """A stack with some edits, and the one before the last."""
    before = stack = EditStack(tree)
    for _ in range(draw(st.integers(1, most))):
        try:
            changed = edited(stack, draw(requests(stack.hierarchy)))
        except EditError:
            continue
        before, stack = stack, changed
    return before, stack


@given(edited_stacks())
def test_undo_after_an_edit_is_as_if_nothing_was(stacks):
    before, after = stacks
    if before == after:
        return
    undone = edited(after, {"kind": "undo"})
    assert undone.hierarchy is before.hierarchy
    assert undone.past == before.past
    assert after.before_last is before.hierarchy
    redone = edited(undone, {"kind": "redo"})
    assert (redone.hierarchy, redone.past) == (after.hierarchy, after.past)
    reset = edited(after, {"kind": "reset"})
    assert reset.hierarchy == ANIMALS
    assert not reset.past


@given(edited_stacks())
def test_records_make_the_same_tree_again(stacks):
    tree = ANIMALS
    for record in stacks[1].edits:
        tree = edit.apply(tree, record)[0]
    assert tree == stacks[1].hierarchy


def test_two_classes_of_different_groups_are_grouped_in_one_step():
    stack = edited(EditStack(ANIMALS), {"kind": "group", "nodes": ["cat", "owl"], "name": "night"})
    tree = stack.hierarchy
    night = tree.index("night")
    assert tree.names[tree.parents[night]] == "bird"  # where the last of them was
    assert {tree.names[child] for child in tree.children[night]} == {"cat", "owl"}
    assert in_words(stack.last_edits) == (
        "Moved 'cat' from 'mammal' to 'bird'; grouped 'owl', 'cat' as 'night' in 'bird'."
    )
    assert edited(stack, {"kind": "undo"}).hierarchy == ANIMALS
    assert not edited(stack, {"kind": "undo"}).past


def test_a_grouping_that_fails_half_way_moves_nothing():
    stack = EditStack(ANIMALS)
    with pytest.raises(EditError, match="zero-width"):
        edited(stack, {"kind": "group", "nodes": ["cat", "owl"], "name": "a\u200bb"})
    assert stack.hierarchy == ANIMALS


def test_a_visitor_cannot_fill_the_memory_with_edits():
    stack, bird = EditStack(ANIMALS), ANIMALS.ids[ANIMALS.index("bird")]
    for number in range(MAX_UNDO + 5):
        sent = {"kind": "rename", "nodes": [bird], "name": f"name {number}"}
        stack = edited(stack, sent)
    assert len(stack.past) == MAX_UNDO


def test_the_fields_of_a_request_are_checked_alike_for_every_kind():
    made = read_request({"kind": "move", "nodes": ("cat",), "to": "bird", "seq": 9, "junk": object})
    assert made == EditRequest("move", ("cat",), "bird", None)


# ---- the effect ----------------------------------------------------------------------------------


@given(edited_stacks(), st.sampled_from(("marginal", "representative")))
@settings(max_examples=40)
def test_the_effect_equals_asking_each_photograph_alone(stacks, rule):
    model, tree = model_of(rule=rule, images=30), stacks[1].hierarchy
    logits, labels = model.reference["logits"].float(), model.reference["labels"]
    found = effect(ANIMALS, tree, rule, list(logits[:6]), Reference.of(model))
    old, new = DecisionRules(ANIMALS, rule=rule), DecisionRules(tree, rule=rule)
    hard = [(int(old.hard(row[None])), int(new.hard(row[None]))) for row in logits]
    soft = [(int(old(row[None]).argmax()), int(new(row[None]).argmax())) for row in logits]
    shown = (old.paths(logits[:1])[0], new.paths(logits[:1])[0])
    for answer, path in zip((found["before"], found["after"]), shown, strict=True):
        steps = [(decision.children[decision.chosen], decision.probability) for decision in path]
        assert [(step["name"], step["p"]) for step in answer["steps"]] == steps
        assert (answer["class"], answer["probability"]) == (path.class_name, path.probability)
    assert found["recent"] == 6
    assert found["recent_hard"] == sum(a != b for a, b in hard[:6])
    assert found["recent_soft"] == sum(a != b for a, b in soft[:6])
    measured = found["reference"]
    assert (measured["images"], measured["images_all"]) == (30, 30)
    assert measured["changed_hard"] == sum(a != b for a, b in hard)
    assert measured["changed_soft"] == sum(a != b for a, b in soft)
    right = [b == y for (_, b), y in zip(hard, labels.tolist(), strict=True)]
    assert measured["score_after"]["hard"] == pytest.approx(sum(right) / 30)
    right = [b == y for (_, b), y in zip(soft, labels.tolist(), strict=True)]
    assert measured["score_after"]["soft"] == pytest.approx(sum(right) / 30)
    assert found["after"]["hard_class"] == ANIMALS.classes[hard[0][1]]


@given(edited_stacks())
def test_no_edit_changes_the_soft_answer_under_marginal(stacks):
    model = model_of(rule="marginal", images=20)
    photographs = list(model.reference["logits"].float()[:5])
    found = effect(ANIMALS, stacks[1].hierarchy, "marginal", photographs, Reference.of(model))
    assert (found["recent_soft"], found["reference"]["changed_soft"]) == (0, 0)
    scores = found["reference"]["score_before"], found["reference"]["score_after"]
    assert scores[0]["soft"] == scores[1]["soft"]
    assert found["before"]["class"] == found["after"]["class"]
    assert found["before"]["probability"] == pytest.approx(found["after"]["probability"])


@pytest.mark.parametrize("rule", ["marginal", "representative"])
def test_a_new_name_changes_no_answer(rule):
    stack = edited(EditStack(ANIMALS), {"kind": "rename", "nodes": ["bird"], "name": "fowl"})
    model = model_of(rule=rule, images=20)
    photographs = list(model.reference["logits"].float())
    found = effect(ANIMALS, stack.hierarchy, rule, photographs, Reference.of(model))
    measured = found["reference"]
    assert (found["recent_hard"], found["recent_soft"]) == (0, 0)
    assert (measured["changed_hard"], measured["changed_soft"]) == (0, 0)
    assert measured["score_before"] == measured["score_after"]
    assert found["before"]["probability"] == found["after"]["probability"]
    assert not consequences(stack.last_edits, rule).hard_answer


def test_without_photographs_and_reference_set_there_is_nothing_to_say():
    assert Reference.of(model_of()) is None
    found = effect(ANIMALS, ANIMALS, "marginal", [], None)
    assert found["before"] is found["after"] is found["reference"] is None
    assert found["recent"] == found["recent_hard"] == found["recent_soft"] == 0


def test_a_large_reference_set_is_asked_at_even_distances():
    count = MAX_VALUES // ANIMALS.num_classes
    logits, labels = labelled_logits(ANIMALS, 2 * count)
    reference = Reference(logits, labels)
    assert reference.images_all == 2 * count
    assert len(reference.labels) == count
    assert reference.labels.equal(labels[::2])
    assert reference.logits.equal(logits[::2])


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (torch.zeros(3, 8), torch.tensor([0, 1])),
        (torch.zeros(0, 8), torch.zeros(0)),
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(2, 8), torch.tensor([0, 8])),
        (torch.zeros(2, 8), torch.tensor([0, -1])),
        (torch.full((2, 8), torch.nan), torch.tensor([0, 1])),
    ],
)
def test_a_damaged_reference_set_is_told_and_stops_nothing(logits, labels):
    model = model_of()
    model.reference = {"logits": logits, "labels": labels}
    with pytest.raises(NBDTError, match="reference set is damaged"):
        Reference.of(model)
    visitor = visitor_of(model)
    visitor.stack = edited(visitor.stack, {"kind": "ungroup", "nodes": ["bird"]})
    assert "damaged" in effect_record(visitor)["problem"]


def test_the_record_compares_with_the_last_edit_and_with_the_models_own():
    model = model_of(images=50)
    visitor = visitor_of(model)
    assert effect_record(visitor) == {"edited": False, "hash": ANIMALS.hash[:16]}
    visitor.stack = edited(visitor.stack, {"kind": "ungroup", "nodes": ["bird"]})
    one = effect_record(visitor)
    assert one["total"] is None
    visitor.stack = edited(visitor.stack, {"kind": "move", "nodes": ["cat"], "to": "vehicle"})
    two = effect_record(visitor)
    assert two["step"]["reference"]["score_before"] == one["step"]["reference"]["score_after"]
    assert two["total"]["reference"]["score_before"] == one["step"]["reference"]["score_before"]
    assert two["step"]["reference"]["score_after"] == two["total"]["reference"]["score_after"]
    assert two["hash"] == visitor.hierarchy.hash[:16]
    assert "the class at its end" in two["consequences"]
    assert draw_edits(visitor).props["effect"] == json.dumps(
        two, ensure_ascii=False, separators=(",", ":")
    )


@pytest.mark.parametrize(
    ("rule", "kind", "words"),
    [
        (
            "marginal",
            "move",
            "an edit like this can change the path, and where the likeliest child at every step leads; never the answer.",
        ),
        (
            "representative",
            "move",
            "an edit like this can change the path and the class at its end.",
        ),
        ("marginal", "rename", "changes no decision and no answer"),
        (
            "marginal",
            "file",
            "another hierarchy can change the path, and where the likeliest child at every step leads; never the answer.",
        ),
        (
            "representative",
            "file",
            "another hierarchy can change the path and the class at its end.",
        ),
    ],
)
def test_what_can_change_is_said_without_the_names_of_rules(rule, kind, words):
    visitor = visitor_of(model_of(rule=rule))
    moved = edited(visitor.stack, {"kind": "move", "nodes": ["cat"], "to": "vehicle"})
    visitor.stack = {
        "move": moved,
        "rename": edited(visitor.stack, {"kind": "rename", "nodes": ["bird"], "name": "fowl"}),
        "file": EditStack(moved.hierarchy),
    }[kind]
    shown = effect_record(visitor)["consequences"]
    assert words in shown
    assert rule not in shown


def test_what_lights_up_is_the_path_and_every_nodes_probability():
    visitor = Visitor(tiny_model(ANIMALS, "marginal"))
    features = torch.randn(256, generator=torch.Generator().manual_seed(0))
    visitor.photo, visitor.selected = (
        Photograph(Image.new("RGB", (8, 8)), "", None, features, None),
        "bird",
    )
    logits = visitor.model.head.logits(features[None]).detach()
    record = json.loads(path_record(visitor))
    rules = DecisionRules(ANIMALS, rule="marginal")
    path = rules.paths(logits)[0]
    taken = [ANIMALS.ids[node] for node in record["path"]]
    assert taken == [ANIMALS.ids[0], *(d.child_ids[d.chosen] for d in path)]
    for node, shown in enumerate(record["p"]):
        assert shown == pytest.approx(float(rules.log_probs(logits)[0, node].exp()), rel=1e-3)
    assert record["selected"] == "bird"
    assert record["ghost"] == []


# ---- names -----------------------------------------------------------------------------------------


def test_suggested_names_are_free_and_can_be_used():
    for pair in (["owl", "eagle"], ["cat", "dog"], ["cat", "bus"], ["bird", "cat"]):
        offered = suggest(ANIMALS, pair)
        assert offered
        assert not {*offered} & {*ANIMALS.names}
        made = edited(EditStack(ANIMALS), {"kind": "group", "nodes": pair, "name": offered[0]})
        assert offered[0] in made.hierarchy.names
    assert suggest(ANIMALS, ["cat", "dog"])[0] in {"carnivore", "placental"}


# ---- versions and files ------------------------------------------------------------------------------


def test_what_is_downloaded_can_be_opened_again():
    visitor = visitor_of(model_of())
    visitor.stack = edited(visitor.stack, {"kind": "move", "nodes": ["cat"], "to": "vehicle"})
    sent = json.loads(versions.download(None, visitor, {"seq": 3})["file"])
    assert sent["seq"] == 3
    assert "/" not in sent["name"]
    other = visitor_of(model_of())
    versions.upload(None, other, sent)
    assert shape(other.hierarchy) == shape(visitor.hierarchy)


def shape(tree):
    return tree.classes, sorted(
        (tree.names[node], sorted(tree.classes_under(node))) for node in tree.inner_nodes
    )


def test_a_file_may_list_the_classes_in_any_order():
    paths = [f"thing/{'b' if i % 2 else 'a'}/{name}" for i, name in enumerate(ANIMALS.classes)]
    for order in (paths, paths[::-1]):
        tree = versions.read_upload("\n".join(order), "mine.txt", ANIMALS.classes)
        assert tree.classes == ANIMALS.classes
        assert set(tree.names) == {"thing", "a", "b", *ANIMALS.classes}


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "a.json", "empty"),
        ("{", "a.json", "JSON"),
        ("[]", "a.json", "one path a line"),
        ("\0", "a.txt", "zero bytes"),
        ('{"a": ["cat", "lion"], "b": ["bus", "car"]}', "a.json", "lion"),
        ('{"a": ["cat", "lion"], "b": ["bus", "car"]}', "../../etc/passwd", "lion"),
        ("thing/a\u202e/cat\nthing/dog", "a.txt", "bidirectional"),
        ("[" * 100_000, "a.json", "JSON"),
    ],
)
def test_a_file_that_is_no_hierarchy_of_these_classes_is_refused(text, name, message):
    visitor = visitor_of(model_of())
    with pytest.raises(NBDTError, match=message) as refusal:
        versions.upload(None, visitor, {"text": text, "name": name})
    assert "/tmp" not in str(refusal.value)
    assert visitor.stack == EditStack(ANIMALS)


@pytest.mark.parametrize("text", [None, 5, ["a"], "x" * (versions.MAX_UPLOAD + 1)])
def test_an_upload_is_text_of_bounded_size(text):
    with pytest.raises(NBDTError, match="at most"):
        versions.upload(None, visitor_of(model_of()), {"text": text, "name": "a.json"})


def test_a_hierarchy_of_other_classes_names_what_is_missing_and_what_is_extra():
    other = Hierarchy.from_nested({"a": ["cat", "lion"], "b": ["dog", "tiger"]})
    with pytest.raises(NBDTError, match=r"Missing: .*'bus'.* Not the model's: 'lion', 'tiger'"):
        versions.fitted(other, ANIMALS.classes)


def test_opening_a_file_keeps_the_earlier_edits_within_reach():
    visitor = visitor_of(model_of())
    visitor.stack = edited(visitor.stack, {"kind": "ungroup", "nodes": ["bird"]})
    mine = visitor.stack
    versions.upload(None, visitor, {"text": ANIMALS.to_json(), "name": "own.json"})
    assert visitor.hierarchy == ANIMALS
    versions.back(None, visitor, {})
    assert visitor.stack is mine
    with pytest.raises(EditError, match="no earlier hierarchy"):
        versions.back(None, visitor, {})
    versions.reset_edits(None, visitor, {})
    assert visitor.hierarchy == ANIMALS
    assert edited(visitor.stack, {"kind": "redo"}).hierarchy == mine.hierarchy


def test_one_visitors_edits_are_not_anothers():
    model = model_of()
    one, two = visitor_of(model), visitor_of(model)
    one.stack = edited(one.stack, {"kind": "ungroup", "nodes": ["bird"]})
    assert two.hierarchy == ANIMALS
    with pytest.raises(EditError, match="no earlier hierarchy"):
        versions.back(None, two, {})


@pytest.fixture
def store(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def test_a_version_is_saved_loaded_and_compared(store):
    model = model_of()
    one, two = visitor_of(model), visitor_of(model)
    one.stack = edited(one.stack, {"kind": "move", "nodes": ["cat"], "to": "vehicle"})
    saved = json.loads(versions.save(store, one, {"name": " mine "})["status"])
    assert saved["kept"] == one.hierarchy.hash[:16]
    listed = json.loads(versions.list_saved(store, two, {})["saved"])
    assert [entry["label"] for entry in listed["versions"]] == ["mine, version 1"]
    shown = json.loads(versions.compare(store, two, {"version": "now", "other": 1})["difference"])
    assert shown["lines"] == ["moved 'cat' from 'mammal' to 'vehicle'"]
    loaded = json.loads(versions.load(store, two, {"version": 1})["status"])
    assert loaded["kept"] == two.hierarchy.hash[:16]
    assert two.hierarchy == one.hierarchy
    record = effect_record(two)
    assert record["step"] is None
    assert record["total"] is not None
    stranger = visitor_of(model_of(rule="marginal"))
    for wanted in (1, 2, -1, "1", None, True, [1], {"id": 1}):
        with pytest.raises(NBDTError, match="version"):
            versions.load(store, stranger, {"version": wanted})


@pytest.mark.parametrize("name", [None, "", "  ", 5, ["a"]])
def test_a_version_needs_a_name(store, name):
    with pytest.raises(EditError, match="name"):
        versions.save(store, visitor_of(model_of()), {"name": name})


def test_without_a_store_nothing_is_kept_and_that_is_said():
    visitor = visitor_of(model_of())
    with pytest.raises(EditError, match="download"):
        versions.save(None, visitor, {"name": "x"})
    assert json.loads(versions.list_saved(None, visitor, {})["saved"]) == {
        "keeps": False,
        "versions": [],
    }


# ---- for programs --------------------------------------------------------------------------------


def test_a_program_edits_and_reads_what_changes():
    model = model_of(images=40)
    edits = [
        {"kind": "move", "nodes": ["cat"], "to": "vehicle"},
        {"kind": "group", "nodes": ["cat", "bus"], "name": "fast"},
    ]
    text, report = edited_by_program(model, "", json.dumps(edits))
    tree = Hierarchy.from_json(text)
    assert {tree.names[child] for child in tree.children[tree.index("fast")]} == {"cat", "bus"}
    assert [one["kind"] for one in report["edits"]] == ["move", "group"]
    assert report["consequences"]["soft_answer"] is True
    assert report["reference"]["images"] == 40
    again, _ = edited_by_program(model, text, "")
    assert again == text


@pytest.mark.parametrize(
    ("hierarchy", "edits", "message"),
    [
        ("{}", "[]", "format"),
        ("", "{}", "JSON list"),
        ("", "nonsense", "not JSON"),
        ("", "[1]", "JSON object"),
        ("", json.dumps([{"kind": "undo"}] * 201), "at most 200"),
        (None, "[]", "at most"),
        ("", "[" * 200_000, "not JSON"),
        (Hierarchy.from_nested({"a": ["x", "y"], "b": ["z", "u"]}).to_json(), "", "Missing"),
    ],
)
def test_a_program_is_refused_as_a_person_is(hierarchy, edits, message):
    with pytest.raises(NBDTError, match=message):
        edited_by_program(model_of(), hierarchy, edits)


def test_a_new_class_whose_group_an_edit_removed_is_below_the_root():
    old = Hierarchy.from_nested({"a": {"x": ["p", "q"], "y": ["r", "s"]}})
    nested = {"a": {"x": ["p", "q", "t"], "y": ["r", "s"]}}
    new = Hierarchy.from_nested(nested, classes=["p", "q", "r", "s", "t"])
    group = next(node.id for node in old.nodes if node.name == "x")
    stack = EditStack(old).push(make(old, EditRequest("ungroup", (group,))))
    after = carried(stack, old, new).hierarchy
    assert after.classes == new.classes
    assert next(node for node in after.nodes if node.id == "t").parent == after.ids[0]
    assert not any(node.name == "x" for node in after.nodes)
