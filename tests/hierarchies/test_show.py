"""Trees for the eye: terminal, drawings, and the page in a real browser, with hostile names."""

import io
import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from PIL import Image
from rich.console import Console

from nbdt import Hierarchy, NBDTError
from nbdt.hierarchies.shipped import load
from nbdt.hierarchies.show import LINES, print_tree
from nbdt.hierarchies.show.drawing import DPI, draw, font, hues
from nbdt.hierarchies.show.picture import interactive_page, rendered, save_picture

SMALL = Hierarchy.from_nested(
    {"animal": ["cat", "dog"], "vehicle": {"road": ["car", "bus"], "ship": None}}
)
HOSTILE = [
    "<img src=x onerror=pwned=1>",
    "</script><script>pwned=1</script>",
    "<!--<script>",
    "${pwned=1}",
    "{{pwned=1}}",
    "\"'><svg onload=pwned=1>",
    "]]>&amp;&lt;",
    "@DATA@ @SCRIPT@",
    "__proto__",
    "<link rel=stylesheet href=http://127.0.0.1:9>",
    "猫 קאט 🐈",
    "[bold]rich[/bold] :cat:",
]


def caterpillar(levels):
    """The deepest tree there is: each group holds one class and the next group."""
    parts = [f"g{level}" for level in range(levels)]
    return Hierarchy.from_paths(
        [[*parts[: n + 1], f"c{n}"] for n in range(levels)] + [[*parts, "last"]]
    )


def shown(tree, **options):
    stream = io.StringIO()
    print_tree(
        tree, console=Console(file=stream, width=60, **options.pop("console", {})), **options
    )
    return stream.getvalue()


def tree_lines(tree, **options):
    """The lines of a tree, without the summary below it."""
    return shown(tree, **options).splitlines()[:-1]


# ---- the terminal -----------------------------------------------------------------------------


def test_a_small_tree_is_shown_whole_and_as_str_shows_it():
    lines = [re.sub(r" [\d,]+$", "", line) for line in tree_lines(SMALL)]
    assert lines == str(SMALL).split("\n")


def test_a_large_tree_is_cut_to_what_fits_and_says_so():
    tree = load("imagenet1k-wordnet")
    text = shown(tree)
    assert 10 < len(text.splitlines()) <= LINES + 1
    assert "1,000 classes, 369 groups" in text
    assert "not all is shown" in text
    assert len(shown(tree, everything=True).splitlines()) == tree.num_nodes + 1
    assert "not all" not in shown(tree, everything=True)


def test_depth_is_the_number_of_levels_below_the_root():
    lines = tree_lines(SMALL, depth=1)
    assert lines[1:] == ["├── animal 2: cat, dog", "└── vehicle 3: car, bus, ship"]


def test_wide_groups_are_cut_and_counted():
    tree = Hierarchy.from_paths([f"all/class {n}" for n in range(500)])
    lines = tree_lines(tree)
    assert len(lines) == 14
    assert lines[-1] == "└── and 488 more …"


def test_deep_trees_end():
    text = shown(caterpillar(3000), everything=True)
    assert len(text.splitlines()) < 600
    assert len(shown(caterpillar(3000)).splitlines()) <= LINES + 1


def test_names_are_neither_markup_nor_emoji_codes_and_lines_fit_a_terminal():
    tree = Hierarchy.from_paths([["[red]a[/red]", ":cat:"], ["[red]a[/red]", "long " * 40]])
    lines = shown(
        tree,
        console={"force_terminal": True, "color_system": None, "emoji": False, "highlight": False},
    ).splitlines()
    assert lines[0].startswith("[red]a[/red]")
    assert ":cat:" in lines[1]
    assert all(len(line) <= 60 for line in lines[:3])
    assert lines[2].rstrip().endswith("…")
    assert "long " * 40 in shown(tree).replace("\n", "") + " "  # a pipe has no width


def test_a_terminal_of_few_letters_shows_what_it_can():
    tree = Hierarchy.from_paths(["tout/école", "tout/猫"])
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_tree(tree, console=Console(file=stream, width=60))
    stream.flush()
    assert raw.getvalue().splitlines()[1:3] == [b"+-- ?cole", b"`-- ?"]


def size(figure):
    """Return the width and height of a drawing in pixels."""
    return tuple((figure.get_size_inches() * DPI).round(6))


# ---- drawings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10-wordnet", "imagenet1k-readable", "imagenet1k-induced"])
def test_every_node_is_drawn_once_inside_the_page_and_no_names_overlap(name):
    tree = load(name)
    figure = draw(tree)
    words, dots = figure.axes[0].texts, figure.axes[0].collections[1]
    texts = [word.get_text() for word in words]
    assert sorted(text for text in texts if not text.endswith("…")) == sorted(
        n for n in tree.names if n in {*texts}
    )
    assert len(words) == len(dots.get_offsets()) == tree.num_nodes
    boxes = []
    for word in words:
        x, y = word.get_position()
        letters = font(int(word.get_size()), word.get_weight() == "bold")
        boxes.append((y, x, x + letters.getlength(word.get_text())))
    boxes.sort()
    for (y, _, end), (below, x, _) in itertools.pairwise(boxes):
        assert y != below or end <= x
    width, height = size(figure)
    assert all(0 < y < height and 0 < x < end <= width for y, x, end in boxes)


def test_strokes_join_each_node_to_its_parent():
    axes = draw(SMALL).axes[0]
    place = {}
    for word in axes.texts:
        x, y = word.get_position()
        place[word.get_text()] = (x - 10, y)
    curves = [curve.vertices for curve in axes.collections[0].get_paths()]
    ends = {(round(points[-1][0] + 5), points[-1][1], points[0][1]) for points in curves}
    for node in range(1, SMALL.num_nodes):
        x, y = place[SMALL.names[node]]
        assert (round(x), y, place[SMALL.names[SMALL.parents[node]]][1]) in ends


def test_branches_have_their_own_colours():
    tree = load("imagenet1k-induced")
    found = hues(tree)
    assert found[0] is None
    for node in range(1, tree.num_nodes):
        parent = tree.parents[node]
        assert found[parent] is None or found[parent] == found[node]
    distinct = {hue for hue in found if hue is not None}
    assert len(distinct) >= 10
    assert all(30 <= hue <= 360 for hue in distinct)


def test_svg_holds_hostile_names_as_text():
    tree = Hierarchy.from_paths([["<b>&", name] for name in HOSTILE])
    root = ET.fromstring(rendered(draw(tree, title="<script>"), "svg"))
    space = "{http://www.w3.org/2000/svg}"
    drawn = {e.tag.removeprefix(space) for e in root.iter() if e.tag.startswith(space)}
    parts = {"svg", "metadata", "defs", "style", "g", "path", "use", "clipPath", "rect", "text"}
    assert {"path", "text"} < drawn <= parts
    assert {e.text for e in root.iter(f"{space}text")} == {"<script>", "<b>&", *HOSTILE}
    links = [v for e in root.iter() for name, v in e.attrib.items() if name.endswith("href")]
    assert all(link.startswith("#") for link in links)


def test_png_is_a_picture_of_the_drawings_size():
    figure = draw(SMALL)
    image = Image.open(io.BytesIO(rendered(figure, "png")))
    width, height = size(figure)
    assert image.size == (width * 2 // 1, height * 2)
    assert len(image.getcolors(2**20)) > 10


def test_long_names_are_cut_and_deep_trees_stay_on_a_page():
    tree = Hierarchy.from_paths(["x/" + "w" * 500, "x/y"])
    assert size(draw(tree))[0] < 500
    deep = draw(caterpillar(1500))
    assert size(deep)[0] < 12_000
    assert len(deep.axes[0].texts) == 3001


def test_too_large_a_picture_says_what_to_do():
    figure = draw(SMALL)
    figure.set_size_inches(10, 1e5)
    with pytest.raises(NBDTError, match="million pixels.*svg or .html"):
        rendered(figure, "png")


@pytest.mark.parametrize("suffix", ["svg", "png", "html", "SVG"])
def test_the_suffix_says_what_is_written(tmp_path, suffix):
    target = tmp_path / f"tree.{suffix}"
    save_picture(SMALL, target)
    start = target.read_bytes()[:15]
    assert start.startswith(
        {"svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}[suffix.lower()]
    )


def test_another_suffix_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(NBDTError, match=r"'\.html', '\.png', '\.svg'"):
        save_picture(SMALL, tmp_path / "tree.gif")
    assert not list(tmp_path.iterdir())


# ---- the page ----------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside():
    text = interactive_page(SMALL, "t")
    assert not re.findall(r"(?:src|href)=|@import|url\(", text)
    assert list(re.findall(r"https?://[^\"'\s]+", text)) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in text


@pytest.fixture
def visit(open_file, tmp_path):
    """Draw a tree's page and open it."""

    def draw(tree, title="a tree", **options):
        save_picture(tree, tmp_path / "page.html", title)
        return open_file(tmp_path / "page.html", width=1280, **options)

    return draw


def names(tab):
    return tab.locator("[role=treeitem] .name").all_text_contents()


@pytest.mark.browser
def test_hostile_names_are_only_ever_text(visit):
    tree = Hierarchy.from_paths([["</title><b>", name] for name in HOSTILE])
    tab = visit(tree, title="</title><script>pwned=1</script>")
    assert sorted(names(tab)) == sorted(tree.names)
    for name in HOSTILE:
        tab.fill("#search", name)
        assert tab.locator("#hits").text_content() == "1 of 1"
        assert tab.locator("#about b").text_content() == name
    assert tab.evaluate("typeof pwned") == "undefined"
    assert tab.title() == "</title><script>pwned=1</script>"
    assert tab.evaluate("document.querySelectorAll('script').length") == 2
    assert not tab.locator("main img, main link, main svg svg, main script, footer img").count()


@pytest.mark.browser
def test_a_thousand_classes_open_and_close_smoothly(visit):
    tree = load("imagenet1k-induced")
    tab = visit(tree)
    assert 8 <= len(names(tab)) < 60
    time = """(id) => { const start = performance.now(); document.getElementById(id).click();
        document.body.offsetHeight; return performance.now() - start; }"""
    first = tab.evaluate(time, "all")
    assert sorted(names(tab)) == sorted(tree.names)
    again = min(tab.evaluate(time, "all") for _ in range(5))
    assert first < 5000
    assert again < 700
    tab.evaluate(time, "less")
    assert len(names(tab)) == 1 + len(tree.children[0])
    tab.click("#more")
    assert len(names(tab)) == sum(depth <= 2 for depth in tree.depths)


@pytest.mark.browser
def test_search_opens_the_way_to_each_match(visit):
    tree = load("imagenet1k-induced")
    tab = visit(tree)
    tab.fill("#search", "TERRIER")
    wanted = {name for name in tree.names if "terrier" in name}
    assert wanted <= set(names(tab))
    assert tab.locator(".node.found").count() == len([n for n in tree.names if "terrier" in n])
    assert tab.locator("#hits").text_content() == f"1 of {len(wanted)}"
    tab.press("#search", "Enter")
    assert tab.locator("#hits").text_content().startswith("2 of ")
    box = tab.locator(".node.now").bounding_box()
    assert 0 <= box["x"] <= 1280
    assert 80 <= box["y"] <= 770
    tab.fill("#search", "no such thing")
    assert tab.locator("#hits").text_content() == "no match"


@pytest.mark.browser
def test_the_keyboard_walks_the_tree(visit):
    tab = visit(SMALL)
    focused = "document.activeElement.querySelector('.name')?.textContent"
    assert tab.locator("[role=treeitem][tabindex='0']").count() == 1
    tab.locator("[role=treeitem][tabindex='0']").focus()

    def press(*keys):
        for key in keys:
            tab.keyboard.press(key)
        return tab.evaluate(focused)

    assert press("ArrowRight") == "animal"
    assert press("ArrowDown", "ArrowDown", "ArrowDown") == "vehicle"
    before = len(names(tab))
    assert press("ArrowLeft") == "vehicle"
    assert len(names(tab)) == before - 4
    assert tab.locator("[aria-expanded=false]").count() == 1
    assert press("Enter", "End") == "ship"
    assert len(names(tab)) == before
    assert press("Home") == "root"
    assert press("c") == "cat"
    assert press("ArrowLeft") == "animal"
    assert tab.locator("[role=treeitem][tabindex='0']").count() == 1
    press("/")
    assert tab.evaluate("document.activeElement.id") == "search"


@pytest.mark.browser
def test_the_tree_describes_itself_to_a_screen_reader(visit):
    tab = visit(SMALL)
    for node in range(SMALL.num_nodes):
        item = tab.locator(f"[data-node='{node}']")
        parent = SMALL.parents[node]
        siblings = SMALL.children[parent] if node else [0]
        got = [item.get_attribute(f"aria-{name}") for name in ("level", "setsize", "posinset")]
        assert got == [
            str(SMALL.depths[node] + 1),
            str(len(siblings)),
            str(siblings.index(node) + 1),
        ]
        expanded = "true" if SMALL.children[node] else None
        assert item.get_attribute("aria-expanded") == expanded


@pytest.mark.browser
def test_zoom_changes_sizes_and_fit_shows_all(visit):
    tab = visit(load("imagenet1k-readable"))
    width = tab.locator("[data-node='0']").bounding_box()["width"]
    tab.click("#larger")
    assert tab.locator("[data-node='0']").bounding_box()["width"] == pytest.approx(1.25 * width)
    tab.click("#fit")
    assert tab.evaluate(
        "view.scrollWidth <= view.clientWidth && view.scrollHeight <= view.clientHeight"
    )


@pytest.mark.browser
def test_names_fit_their_boxes(visit):
    tab = visit(load("imagenet1k-induced"))
    tab.click("#all")
    cut = """[...document.querySelectorAll('.node')].map((node) => {
        node.style.contentVisibility = 'visible'; const name = node.querySelector('.name');
        return [name.textContent, name.scrollWidth - name.clientWidth, name.clientWidth]; })"""
    for name, over, wide in tab.evaluate(cut):
        assert over <= 0 or wide >= 299, name


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme_and_stays_readable(visit, scheme):
    tab = visit(SMALL, color_scheme=scheme)
    colours = """() => { const of = (node, what) => getComputedStyle(node)[what].match(/\\d+/g).map(Number);
        const sum = (row) => row[0] + row[1] + row[2], name = document.querySelector('.name');
        return [sum(of(name, 'color')), sum(of(document.body, 'backgroundColor'))]; }"""
    text, ground = tab.evaluate(colours)
    assert (ground - text if scheme == "light" else text - ground) > 500


@pytest.mark.browser
def test_a_deep_tree_opens(visit):
    tree = caterpillar(800)
    tab = visit(tree)
    tab.click("#all")
    assert len(names(tab)) == tree.num_nodes
