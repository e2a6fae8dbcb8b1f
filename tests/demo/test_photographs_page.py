"""The page of the default model in a browser: real photographs and a tree of 1,000 classes."""

import pytest

from nbdt.demo.photographs import EXAMPLES, knows
from nbdt.hierarchies.wordnet.database import wordnet
from nbdt.tree.hierarchy import Hierarchy
from tests.demo.pages import served

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # Gradio leaves event loops and sockets of its own behind
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def photographs(imagenet):
    """The address of the page of the default model."""
    with served(imagenet, model="imagenet") as address:
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
    tab.locator(".nbdt-caution", has_text="may be nothing it knows").wait_for()


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
