"""The demo in a real browser: what a visitor sees, does and is spared."""

import re
from contextlib import suppress

import pytest
from PIL import Image

from nbdt import NBDT, Hierarchy, NBDTHead
from nbdt.demo.ui.component import STATIC
from tests.demo.pages import served

pytestmark = [
    pytest.mark.browser,
    # Gradio leaves event loops and sockets of its own behind.
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore:.*no_silent_downcasting",  # pandas 3, through Gradio's queue
        "ignore:The copy keyword is deprecated",
    ),
]

HOSTILE = [
    "${alert(1)}",
    "<img src=x onerror=alert(2)>",
    "{{constructor.constructor('alert(3)')()}}",
    "</script><script>alert(4)</script>",
    "<a href=http://example.org>x</a>",
    "'\"><svg onload=alert(5)>",
    "@children",
    "[x](javascript:alert(6))",
    "\\u0041`${1}`",
    "&lt;b&gt;",
]


def pick(tab, name="cat"):
    tab.click(f".nbdt-example:has-text('{name}')")
    tab.wait_for_selector(".nbdt-cards .nbdt-card")


def test_an_upload_shows_the_answer_the_path_and_a_map_for_every_step(visit, page, tmp_path):
    tab = visit(page)
    assert "Show it a photograph" in tab.inner_text(".nbdt-headline")
    photo = tmp_path / "photo.png"
    Image.open(STATIC / "cat.jpg").save(photo)
    tab.set_input_files("#nbdt-photo input[type=file]", photo)
    tab.wait_for_selector(".nbdt-cards .nbdt-card")
    crumbs = tab.locator("ol.nbdt-trail > li").all_inner_texts()
    assert len(crumbs) == tab.locator(".nbdt-card .nbdt-decision").count() + 1
    assert all("%" in crumb for crumb in crumbs[1:])
    widths = tab.eval_on_selector_all(".nbdt-card img", "all => all.map(i => i.naturalWidth)")
    assert min(widths) > 200
    lit = tab.evaluate(
        "JSON.stringify([...document.querySelectorAll('.nbdt-tree [aria-label], .nbdt-tree li')].length)"
    )
    assert int(lit) > 10


def test_a_file_that_is_no_image_is_refused_as_text(visit, page, tmp_path):
    bad = tmp_path / "<img src=x onerror=alert(1)>.png"
    bad.write_text("<img src=x onerror=alert(1)>")
    tab = visit(page)
    tab.set_input_files("#nbdt-photo input[type=file]", bad)
    tab.wait_for_selector("[data-testid=toast-text]")
    assert "expected an image" in tab.inner_text("[data-testid=toast-text]")
    assert tab.locator("[data-testid=toast-text] img").count() == 0


def test_a_click_on_a_node_shows_its_decision_and_map(visit, page):
    tab = visit(page)
    pick(tab)
    seen = {}
    for name in ("vehicle", "ship", "animal"):
        tab.locator(".nbdt-tree-name", has_text=re.compile(f"^{name}$")).first.click()
        tab.wait_for_function(
            "n => document.querySelector('.nbdt-node h3')?.textContent === n", arg=name
        )
        seen[name] = tab.get_attribute(".nbdt-node img", "src")
        assert "%" in tab.inner_text(".nbdt-node .nbdt-bars")
    assert len(set(seen.values())) == 3
    tab.click(".nbdt-close")
    tab.wait_for_selector(".nbdt-node", state="hidden")


def test_a_photograph_can_be_taken_away_again(visit, page):
    from playwright.sync_api import TimeoutError as TooLong

    tab = visit(page)
    shown, ship = tab.locator(".nbdt-node h3"), re.compile("^ship$")
    for _ in range(6):  # a click before the page has come alive is nobody's
        tab.locator(".nbdt-tree-name", has_text=ship).first.click()
        with suppress(TooLong):
            shown.wait_for(timeout=10_000)
            break
    assert "Show it a photograph" in tab.inner_text(".nbdt-node")
    pick(tab)
    tab.get_by_label("Remove Image").or_(tab.get_by_label("Clear")).first.click()
    tab.wait_for_selector(".nbdt-waiting")
    tab.wait_for_selector(".nbdt-cards", state="hidden")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_ticked_switch_looks_ticked(visit, page, theme):
    tab = visit(page, theme=theme)
    pick(tab)
    tab.get_by_label("Show the grid").check()
    tick = tab.eval_on_selector(
        ".nbdt-control input:checked",
        "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e, '::after').borderRightColor]",
    )
    dark = ["rgb(99, 207, 192)", "rgb(12, 31, 28)"]
    assert tick == (dark if theme == "dark" else ["rgb(15, 107, 98)", "rgb(255, 255, 255)"])


def test_the_card_of_a_node_comes_into_view(visit, page):
    tab = visit(page, height=900)
    pick(tab)
    tab.locator(".nbdt-tree-name", has_text=re.compile("^animal$")).first.click()
    tab.wait_for_selector(".nbdt-node h3")
    tab.wait_for_function(
        "document.querySelector('.nbdt-node').getBoundingClientRect().bottom <= innerHeight + 1"
    )
    tab.evaluate("scrollTo(0, 0)")
    tab.locator(".nbdt-tree-name", has_text=re.compile("^animal$")).first.click()
    tab.wait_for_timeout(600)
    assert tab.locator(".nbdt-node h3").is_visible()


def test_an_answer_that_is_worth_little_says_why(visit, page, tmp_path):
    tab = visit(page)
    pick(tab, "raccoon")
    cautions = tab.locator(".nbdt-caution")
    assert "“raccoon”, which is not one of its classes" in cautions.first.inner_text()
    pick(tab, "cat")
    tab.wait_for_function(
        "!document.querySelector('.nbdt-answer').textContent.includes('not one of its classes')"
    )
    tiny = tmp_path / "tiny.png"
    Image.open(STATIC / "cat.jpg").resize((24, 20)).save(tiny)
    tab.get_by_label("Remove Image").or_(tab.get_by_label("Clear")).first.click()
    tab.wait_for_selector(".nbdt-waiting")
    tab.set_input_files("#nbdt-photo input[type=file]", tiny)
    tab.locator(".nbdt-caution", has_text="24 × 20 pixels, fewer than the 32 × 32").wait_for()


def test_it_says_what_it_does_not_know(visit, page):
    tab = visit(page)
    assert "not one of its classes" in tab.locator(".nbdt-example", has_text="raccoon").inner_text()
    pick(tab, "raccoon")
    assert "10 classes and nothing else" in tab.inner_text(".nbdt-answer")
    tab.click(".nbdt-known summary")
    assert "airplane" in tab.inner_text(".nbdt-known p")


def test_everything_is_reached_by_keyboard_alone(visit, page):
    tab = visit(page)

    def tab_to(selector, limit=60):
        for _ in range(limit):
            tab.keyboard.press("Tab")
            if tab.evaluate("s => document.activeElement.matches(s)", selector):
                return
        pytest.fail(f"no way to {selector} with the tab key")

    tab_to(".nbdt-example")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".nbdt-cards .nbdt-card")
    tab_to(".nbdt-known summary")
    tab_to(".nbdt-tree [role=treeitem]")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".nbdt-node h3")
    tab_to(".nbdt-close")
    tab_to(".nbdt-careful")
    tab_to(".nbdt-controls input[type=checkbox]")
    tab.keyboard.press("Space")
    assert tab.evaluate("document.documentElement.dataset.nbdtGrid") == "on"


def test_two_visitors_do_not_see_each_other(visit, page):
    first, second = visit(page), visit(page)
    pick(first, "cat")
    assert "Show it a photograph" in second.inner_text(".nbdt-headline")
    pick(second, "raccoon")
    second.wait_for_function("document.querySelector('.nbdt-headline').textContent !== 'cat'")
    first.locator(".nbdt-tree-name", has_text=re.compile("^animal$")).first.click()
    first.wait_for_selector(".nbdt-node h3")
    photos = [tab.eval_on_selector(".nbdt-card img", "i => i.src") for tab in (first, second)]
    assert photos[0] != photos[1]
    assert second.is_hidden(".nbdt-node")


def test_a_phone_scrolls_in_one_direction_only(visit, page):
    tab = visit(page, width=390, height=844)
    pick(tab, "raccoon")
    tab.get_by_role("button", name="Only some classes").click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.get_by_role("button", name="Only some classes").click()
    tab.get_by_label("Show the grid").check()
    tab.locator(".nbdt-tree-name", has_text=re.compile("^animal$")).first.click()
    tab.wait_for_selector(".nbdt-node h3")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        tab.evaluate(
            "getComputedStyle(document.querySelector('.nbdt-node-body')).gridTemplateColumns"
        ).count("px")
        == 1
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, page, theme):
    from axe_playwright_python.sync_playwright import Axe

    tab = visit(page, theme=theme)
    empty = serious(Axe().run(tab))
    pick(tab)
    tab.get_by_label("Show the grid").check()
    tab.locator(".nbdt-tree-name", has_text=re.compile("^animal$")).first.click()
    tab.wait_for_selector(".nbdt-node h3")
    tab.wait_for_timeout(500)
    assert empty == []
    assert serious(Axe().run(tab)) == []


def serious(results):
    return [
        (found["id"], [node["html"][:300] for node in found["nodes"]])
        for found in results.response["violations"]
        if found["impact"] in {"serious", "critical"}
    ]


def test_hostile_names_stay_text(cifar10, visit):
    model = cifar10
    groups = {"${alert(7)} <b>group</b>": HOSTILE[:5], "<em>other</em> {{x}}": HOSTILE[5:]}
    hierarchy = Hierarchy.from_nested(groups, classes=HOSTILE)
    head = NBDTHead.from_linear(model.head.linear, hierarchy, rule="marginal")
    hostile = NBDT(model.backbone, head, model.architecture, model.preprocess).eval()
    with served(hostile) as url:
        tab = visit(url)
        pick(tab, "raccoon")
        text = tab.inner_text("body")
        shown = [name for name in HOSTILE if name in text]
        assert len(shown) >= 5
        for name in tab.locator(".nbdt-tree-name").all():
            name.click()
        tab.wait_for_selector(".nbdt-node h3")
        tab.wait_for_timeout(500)
        inside = ".nbdt-tree, .nbdt-answer, .nbdt-strip, .nbdt-node"
        alien = tab.evaluate(
            "s => [...document.querySelectorAll(s)].flatMap(r => [...r.querySelectorAll('script, a, svg[onload], img[onerror], b, em')].map(e => e.outerHTML))",
            inside,
        )
        assert alien == []
