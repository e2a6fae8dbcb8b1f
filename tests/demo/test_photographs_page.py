"""The page of the default model in a browser: real photographs and a tree of 1,000 classes."""

import pytest

from nbdt.demo.photographs import EXAMPLES, knows
from nbdt.demo.store import Store
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.runtime import session as runtime
from nbdt.tree.hierarchy import Hierarchy
from tests.demo.pages import served

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # Gradio leaves event loops and sockets of its own behind
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:.*no_silent_downcasting",  # pandas 3, through Gradio's queue
    "ignore:The copy keyword is deprecated",
)


@pytest.fixture(scope="module")
def photographs(imagenet, tmp_path_factory):
    """The address of the page of the default model."""
    store = Store.open(str(tmp_path_factory.mktemp("store") / "store.sqlite"))
    with served(imagenet, store=store, model="imagenet") as address:
        yield address


def pick(tab, name):
    """Show an example; returns the names that light up in the tree, from the root to the class."""
    tab.click(f".nbdt-example:has-text('{name}')")
    src = "document.querySelector('.nbdt-card img')?.src"
    tab.wait_for_function(f"{src} && {src} !== window.seen")
    tab.wait_for_selector(".nbdt-tree .class.lit")
    tab.evaluate(f"window.seen = {src}")
    return tab.locator(".nbdt-tree .lit > .nbdt-tree-row > .nbdt-tree-name").all_inner_texts()


@pytest.mark.browser
def test_the_page_opens_with_five_known_photographs_and_one_stranger(photographs, visit):
    tab = visit(photographs)
    shown = tab.locator(".nbdt-example").all_inner_texts()
    assert len(shown) == 6
    assert not any("not" in text for text in shown[:5])
    assert "not one of its classes" in shown[5]
    titles = tab.eval_on_selector_all(".nbdt-example", "all => all.map(one => one.title)")
    assert all(len(credit) > len("Photograph: ") for credit in titles)


@pytest.mark.browser
def test_what_the_model_knows_is_answered_rightly(photographs, visit, imagenet):
    net, tree, tab = wordnet(), imagenet.hierarchy, visit(photographs)
    names = [text.strip() for text in tab.locator(".nbdt-example-name").all_inner_texts()]
    meant = {example.name: net.index(example.wnid) for example in EXAMPLES}
    for name in names[:5]:
        lit = pick(tab, name)
        index = tree.classes.index(lit[-1])
        assert lit == [tree.names[node] for node in tree.path_of_class(index)]
        answer = net.index(tree.class_wnids[index])
        assert meant[name] in {answer, *net.ancestors(answer)}, (name, lit)
    pick(tab, names[5])
    tab.locator(".nbdt-caution", has_text="not one of its classes").wait_for()
    assert tab.locator(".nbdt-answer").get_attribute("data-level") == "unsure"


@pytest.mark.parametrize(
    ("classes", "known"),
    [
        (["Egyptian cat", "school bus"], {"cat"}),  # a kind of it
        (["mammal", "vehicle"], {"cat", "cheetah", "lion", "raccoon"}),  # what it is a kind of
        (["coffee mug", "coffeepot", "catfish", "sea lion"], set()),  # the same letters
        (["type 4", "qzx"], set()),
    ],
)
def test_an_example_is_known_by_its_meaning(cifar10, classes, known):
    tree = Hierarchy.from_nested({"all": {"some": classes, "rest": ["airplane", "bulldozer"]}})
    model = type("Model", (), {"hierarchy": tree})
    assert {example.name for example in EXAMPLES if knows(model, example.name)} == known
    assert knows(cifar10, "cat")
    assert not knows(cifar10, "raccoon")


@pytest.mark.browser
def test_a_tree_of_a_thousand_classes_is_searched_and_edited(photographs, visit):
    tab = visit(photographs, width=1280)
    assert tab.locator(".nbdt-tree [role=treeitem]").count() <= 16  # the root and its children
    before = pick(tab, "cat")
    search = tab.locator(".nbdt-tree-search")
    search.fill("puma")  # a name of WordNet's, not of the tree's
    tab.locator(".nbdt-tree-count", has_text="1 match").wait_for()
    assert tab.locator(".nbdt-tree .class").inner_text().startswith("cougar (puma)")
    search.fill("tabby")
    tab.keyboard.press("Enter")  # goes to the first match
    assert "tabby" in tab.evaluate("document.activeElement.getAttribute('aria-label')")
    search.fill("")
    tab.click(".nbdt-tree .class.lit .nbdt-tree-name")
    tab.click(".nbdt-tree .class.lit .nbdt-tree-more")
    # As the late event of the scroll that brought the class into view: the menu stays.
    tab.eval_on_selector(".nbdt-tree-scroll", "one => one.dispatchEvent(new Event('scroll'))")
    tab.get_by_role("menuitem", name="Move").click()
    tab.keyboard.type("fish")
    tab.keyboard.press("Enter")
    tab.click(".nbdt-tree-accept")
    tab.locator(".nbdt-tree-status", has_text=f"Moved '{before[-1]}'").wait_for()
    tab.locator(".nbdt-tree .lit", has_text="fish").first.wait_for()
    after = tab.locator(".nbdt-tree .lit > .nbdt-tree-row > .nbdt-tree-name").all_inner_texts()
    assert after == [*before[:2], "fish", before[-1]]
    effect = tab.locator(".nbdt-edit-effect")
    assert f"Still {before[-1]}, by another path" in effect.inner_text()
    assert "No edit changes it" in effect.inner_text()
    tab.click(".nbdt-tree-undo")
    tab.locator(".nbdt-tree-status", has_text="Undone").wait_for()


@pytest.mark.browser
def test_a_phone_shows_every_step_of_the_tree(photographs, visit):
    tab = visit(photographs, width=390, height=844)
    pick(tab, "coffee")
    edge = tab.eval_on_selector(".nbdt-tree-scroll", "all => all.getBoundingClientRect().right")
    shares = tab.locator(".nbdt-tree-share:not(:empty)")
    ends = shares.evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(ends) > 20
    assert max(ends) <= edge
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
def test_the_right_class_among_a_thousand_is_typed(photographs, visit):
    tab = visit(photographs)
    answer = pick(tab, "cat")[-1]
    tab.get_by_label("The answer is something else").check()
    label = tab.get_by_role("combobox", name="This is")
    offered = label.evaluate("one => [...one.list.options].map(option => option.value)")
    assert len(offered) == 999 + 173  # the other classes, and the groups below the root
    assert answer not in offered
    for text, tone in (("tabby dragon", "problem"), ("tabby cat", "done")):
        label.fill(text)
        tab.get_by_role("button", name="Save the correction").click()
        tab.wait_for_selector(f".nbdt-correct-status[data-tone={tone}]")


@pytest.mark.browser
def test_onnx_runtime_computes_the_page(photographs, visit, monkeypatch):
    """The first answer, and all pictures with hidden parts, with torch for gradients alone."""
    pytest.importorskip("onnxruntime")
    seen, run = [], runtime.Session.run
    monkeypatch.setattr(
        runtime.Session, "run", lambda one, images: seen.append(len(images)) or run(one, images)
    )
    tab = visit(photographs)
    pick(tab, "cat")
    assert 1 in seen  # among hidden pictures that an earlier visitor may still be waiting for
    tested = "document.querySelector('.nbdt-testing').textContent.startsWith('Tested')"
    tab.wait_for_function(tested)
    before = sum(seen)
    assert before > 10
    tab.click(".nbdt-careful")
    tab.wait_for_function(
        f"document.querySelector('.nbdt-careful').ariaDisabled === 'true' && {tested}"
    )
    assert sum(seen) > before
