"""Correcting a decision: on the page in a real browser, and through its API."""

import signal
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import gradio as gr
import pytest
from PIL import Image

from nbdt import NBDT
from nbdt.correction import CorrectionError, picture_hash
from nbdt.demo.app import build
from nbdt.demo.corrections.submission import (
    is_token,
    new_token,
    parse_correction,
    visitor_id,
)
from nbdt.demo.store import Store
from nbdt.demo.visitor import MAX_SIDE
from nbdt.explain import Evidence, explain
from nbdt.images.dataset import iter_images
from nbdt.images.image import open_image
from nbdt.model.fingerprint import model_hash
from nbdt.model.remember import make_memory, open_memory
from tests.demo.pages import CAT, HOSTILE, SERVED, running, served
from tests.demo.stores import kept_photographs

pytestmark = SERVED

IMAGE = "ab" * 32


@pytest.fixture(scope="module")
def seen():
    """The photograph as the page opens it."""
    return open_image(CAT, max_side=MAX_SIDE)


# ---- what is accepted ------------------------------------------------------------------------


def test_a_statement_becomes_a_correction_with_what_the_server_knows(cifar10, seen):
    first = explain(cifar10, seen)[0].path.decisions[0]
    child = first.child_ids[first.runner_up]
    tree = cifar10.hierarchy
    said = parse_correction(
        {"kind": "step", "node": first.node_id, "child": child, "note": HOSTILE, "seq": 3,
         "model": "forged", "time": "forged", "reference": "/etc/passwd"},
        IMAGE, cifar10, tree,
    )  # fmt: skip
    assert (said.node, said.child, said.note) == (first.node_id, child, HOSTILE)
    assert (said.image, said.model, said.hierarchy) == (IMAGE, model_hash(cifar10), tree.hash)
    assert said.reference == ""  # no request makes training open a file of this machine
    assert (
        said.in_words(dict(zip(tree.ids, tree.names, strict=True)))
        == f"At {first.node}, it should have gone to {first.children[first.runner_up]}"
    )
    by_name = {"kind": "step", "node": first.node, "child": first.children[first.runner_up]}
    assert parse_correction(by_name, IMAGE, cifar10, tree).child == child


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("x", "as a JSON object"),
        ([], "as a JSON object"),
        ({}, "Unknown kind of correction None"),
        ({"kind": "evil"}, "Unknown kind of correction 'evil'; there are step, label, region"),
        ({"kind": ["step"]}, "Unknown kind of correction"),
        ({"kind": "label"}, "needs 'label'"),
        ({"kind": "label", "label": "cst"}, "no node 'cst'. Did you mean 'cat'"),
        ({"kind": "label", "label": "ROOT"}, "is the root: everything is under it"),
        ({"kind": "label", "label": {"a": 1}}, "Expected the id of a node"),
        ({"kind": "label", "label": "cat", "node": "ROOT"}, "has no 'node'"),
        ({"kind": "step", "node": "nowhere", "child": "cat"}, "There is no node 'nowhere'"),
        ({"kind": "step", "node": 7, "child": "cat"}, "Expected the id of a node, got 7"),
        ({"kind": "step", "node": "cat", "child": "dog"}, "is a class: no step starts there"),
        ({"kind": "step", "node": "ROOT", "child": "ROOT"}, "No step leads from"),
        ({"kind": "region", "node": "ROOT", "region": [0, 0, 2, 1]}, "must be left, top, right"),
        ({"kind": "region", "node": "ROOT", "region": [0, 0, 10**400, 1]}, "must be left, top"),
        ({"kind": "region", "node": "ROOT", "region": [0, 0, float("nan"), 1]}, "must be left"),
        ({"kind": "region", "node": "ROOT", "region": "<b>"}, "must be left, top, right"),
        ({"kind": "label", "label": "cat", "note": "x" * 2001}, "at most 2,000 characters"),
        ({"kind": "label", "label": "cat", "note": ["x"]}, "at most 2,000 characters"),
    ],
)
def test_what_is_no_correction_is_refused_with_a_reason(cifar10, said, message):
    tree = cifar10.hierarchy
    if isinstance(said, dict):
        said = {key: tree.ids[0] if value == "ROOT" else value for key, value in said.items()}
    with pytest.raises(CorrectionError, match=message.replace("[", r"\[")):
        parse_correction(said, IMAGE, cifar10, tree)


def test_a_visitor_is_known_by_a_hash_of_what_only_they_can_show():
    class Request:
        def __init__(self, username, session_hash):
            self.username, self.session_hash = username, session_hash

    token = new_token()
    assert is_token(token)
    assert not any(map(is_token, ["", None, 7, "x" * 42, token + "x", token[:-1] + "\n"]))
    ann, bob = Request("ann", "s1"), Request(None, "s2")
    ids = {
        visitor_id(token, bob), visitor_id(new_token(), bob), visitor_id(token, ann),
        visitor_id("", bob), visitor_id("", Request(None, "s3")),
    }  # fmt: skip
    assert len(ids) == 5
    assert visitor_id(token, ann) == visitor_id(None, ann)  # the account counts, not the browser
    assert token not in visitor_id(token, bob)


# ---- a page with a store and evidence ---------------------------------------------------------


@pytest.fixture(scope="module")
def index(tmp_path_factory, cifar10):
    """Evidence: pieces of one photograph."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("memory") / "memory"
    photo = open_image(CAT)
    for number, name in enumerate(cifar10.hierarchy.classes):
        (data / name).mkdir()
        for piece in range(7):
            left, top = 13 * number, 17 * piece
            photo.crop((left, top, left + 200, top + 200)).save(data / name / f"{piece}.png")
    make_memory(cifar10, out).add(list(iter_images(data)))
    return out


@pytest.fixture(scope="module")
def server(tmp_path_factory, cifar10, index):
    """The address of a page, and another connection to its store, as a command would have."""
    file = str(tmp_path_factory.mktemp("server") / "kept.sqlite")
    with (
        closing(Store.open(file)) as pages,
        closing(Store.open(file)) as store,
        served(cifar10, pages, Evidence(open_memory(cifar10, index)), model="cifar10") as url,
    ):
        yield url, store


def with_store(folder, *options, **more):
    """``nbdt demo`` with a store in the folder, in a process of its own."""
    return running(
        folder, "--model", "cifar10", "--store", folder / "kept.sqlite", *options, **more
    )


# ---- the API ---------------------------------------------------------------------------------


def test_a_program_corrects_and_is_answered_when_it_is_kept(server, seen):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    url, store = server
    client = Client(url, verbose=False)
    said = {"kind": "label", "label": "dog", "note": HOSTILE, "keep": True}
    kept = client.predict(handle_file(CAT), said, api_name="/correct")
    (saved,) = store.corrections(ids=[kept["id"]])
    assert (saved.correction.label, saved.correction.note) == ("dog", HOSTILE)
    assert kept == {"id": saved.id, "image": picture_hash(seen), "photograph_kept": True}
    assert picture_hash(store.photograph(saved.photograph)) == saved.correction.image
    other = {"kind": "label", "label": "deer"}
    without = client.predict(handle_file(CAT), other, api_name="/correct")
    assert store.corrections(ids=[without["id"]])[0].photograph is None
    with pytest.raises(AppError, match=f"saved already, as correction {without['id']}"):
        client.predict(handle_file(CAT), other, api_name="/correct")


@pytest.mark.parametrize("said", [{"kind": "label", "label": "<img>"}, None, "x", {"keep": True}])
def test_a_program_that_sends_nonsense_is_told_so(server, said):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    url, store = server
    before = len(store.corrections())
    with pytest.raises(AppError) as refusal:
        Client(url, verbose=False).predict(handle_file(CAT), said, api_name="/correct")
    assert "<img>" not in str(refusal.value)
    assert len(store.corrections()) == before


# ---- the page --------------------------------------------------------------------------------


def opened(visit, url, **options):
    """The page with the cat on it and the form open."""
    tab = visit(url, **options)
    upload(tab)
    return tab


def upload(tab):
    tab.set_input_files("#nbdt-photo input[type=file]", CAT)
    tab.wait_for_selector(".nbdt-correct-form")


def answered(tab):
    """The reply to what was just sent."""
    status = tab.locator(
        ".nbdt-correct-status[data-tone='done'], .nbdt-correct-status[data-tone='problem']"
    )
    status.wait_for()
    return status.inner_text()


def number_of(reply):
    return int(reply.split("Correction ")[1].split()[0])


def correct_step(tab, note="", keep=False):
    tab.check("input[name=nbdt-correct-kind][value=step]")
    tab.locator("input[name=nbdt-correct-child]").first.check()
    tab.fill(".nbdt-correct-rest textarea", note)
    tab.locator(".nbdt-correct-consent input").set_checked(keep)
    tab.click(".nbdt-correct-send")
    reply = answered(tab)
    tab.wait_for_selector(f"text=No. {number_of(reply)} ")
    return number_of(reply)


@pytest.mark.browser
def test_a_step_is_corrected_and_a_hostile_note_stays_text(server, visit, cifar10, seen):
    url, store = server
    tab = opened(visit, url)
    number = correct_step(tab, note=HOSTILE)
    first = explain(cifar10, seen)[0].path.decisions[0]
    (saved,) = store.corrections(ids=[number])
    assert saved.correction.node == first.node_id
    assert saved.correction.child in first.child_ids
    assert saved.correction.child != first.child_ids[first.chosen]
    assert saved.correction.image == picture_hash(seen)
    assert saved.correction.note == HOSTILE
    assert saved.photograph is None  # no consent
    assert tab.inner_text(".nbdt-history-note") == HOSTILE
    assert tab.locator(".nbdt-history img").count() == 0


@pytest.mark.browser
def test_only_who_agrees_has_their_photograph_kept_and_delete_deletes_it(server, visit):
    url, store = server
    tab = opened(visit, url)
    assert not tab.is_checked(".nbdt-correct-consent input")
    number = correct_step(tab, keep=True)
    (saved,) = store.corrections(ids=[number])
    assert picture_hash(store.photograph(saved.photograph)) == saved.correction.image
    tab.click(f"button[aria-label='Delete correction {number}']")
    tab.wait_for_selector(f"text=Correction {number} is deleted.")
    assert store.corrections(ids=[number]) == []
    assert saved.photograph not in [kept.id for kept in kept_photographs(store)]


@pytest.mark.browser
def test_a_region_is_drawn_with_the_mouse_with_keys_and_with_numbers(server, visit):
    url, store = server
    tab = opened(visit, url)
    tab.check("input[name=nbdt-correct-kind][value=region]")
    board = tab.locator(".nbdt-correct-board")
    board.scroll_into_view_if_needed()
    area = board.bounding_box()
    at = lambda x, y: (area["x"] + x * area["width"], area["y"] + y * area["height"])  # noqa: E731
    tab.mouse.move(*at(0.2, 0.3))
    tab.mouse.down()
    tab.mouse.move(*at(0.6, 0.9), steps=4)
    tab.mouse.up()
    tab.click(".nbdt-correct-send")
    (saved,) = store.corrections(ids=[number_of(answered(tab))])
    assert saved.correction.region == pytest.approx((0.2, 0.3, 0.6, 0.9), abs=0.011)
    board.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Shift+ArrowUp")
    moved = [
        int(tab.input_value(f"#nbdt-correct-{s}-")) for s in ("left", "top", "right", "bottom")
    ]
    before = [round(100 * value) for value in saved.correction.region]
    assert moved == [before[0] + 2, before[1], before[2] + 2, before[3] - 2]
    tab.fill("#nbdt-correct-left-", "0")
    tab.fill("#nbdt-correct-top-", "10")
    tab.fill("#nbdt-correct-right-", "50")
    tab.fill("#nbdt-correct-bottom-", "999")
    tab.keyboard.press("Tab")
    tab.click(".nbdt-correct-send")
    tab.wait_for_selector(f"text=Correction {saved.id + 1} is saved")
    (again,) = store.corrections(ids=[saved.id + 1])
    assert again.correction.region == (0.0, 0.1, 0.5, 1.0)


@pytest.mark.browser
@pytest.mark.slow
def test_the_button_teaches_the_model_and_offers_what_learnt(
    tmp_path, monkeypatch, visit, cifar10, seen
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))  # where models go
    data = tmp_path / "data"
    for name in cifar10.hierarchy.classes:
        (data / name).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((32, 32), 90 + number).convert("RGB").save(
                data / name / f"{number}.png"
            )
    with with_store(tmp_path, "--apply-data", data) as (url, *_):
        tab = opened(visit, url)
        number = correct_step(tab, keep=True)
        tab.wait_for_selector("text=1 correction waits to be learnt.")
        tab.click("text=Teach the model now")
        tab.wait_for_selector("text=The model has learnt. Try the new version.", timeout=240_000)
        tab.click(".nbdt-history button:has-text('Try version 1')")
        tab.wait_for_selector("text=You now see version 1 of the model.")
        tab.wait_for_selector("text=0 corrections wait to be learnt.")
        assert "Before" in tab.inner_text(".nbdt-history-compared")
    with closing(Store.open(str(tmp_path / "kept.sqlite"))) as store:
        (version,) = store.model_versions()
        (saved,) = store.corrections(ids=[number])
    assert saved.learned_by == (version.id,)
    assert Path(version.folder).is_relative_to(tmp_path / "home")
    better = NBDT.load(version.folder)
    node, child = saved.correction.node, saved.correction.child
    before, after = (explain(m, seen)[0].path.decisions[0] for m in (cifar10, better))
    assert before.node_id == after.node_id == node
    assert (
        after.log_probs[after.child_ids.index(child)]
        > before.log_probs[before.child_ids.index(child)]
    )


@pytest.mark.browser
def test_nothing_is_kept_that_nobody_said(server, visit):
    url, store = server
    tab = opened(visit, url)
    before = len(store.corrections())
    tab.check("input[name=nbdt-correct-kind][value=region]")
    tab.click(".nbdt-correct-send")
    assert "First mark what should not count" in answered(tab)
    assert len(store.corrections()) == before
    tab.locator(".nbdt-correct-board").focus()
    tab.keyboard.press("ArrowRight")
    tab.check(".nbdt-correct-consent input")
    tab.fill(".nbdt-correct-rest textarea", "the cup")
    tab.click(".nbdt-correct-send")
    tab.wait_for_selector("text=is saved.")
    number = number_of(answered(tab))
    assert not tab.is_checked(".nbdt-correct-consent input")
    tab.click(".nbdt-correct-send")
    tab.wait_for_selector(f"text=This is saved already, as correction {number}.")
    assert len(store.corrections()) == before + 1
    tab.click(f"button[aria-label='Delete correction {number}']")
    tab.wait_for_selector(f"text=Correction {number} is deleted.")
    tab.click(".nbdt-correct-send")
    tab.wait_for_selector("text=is saved. No photograph was kept.")


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_ticked_consent_looks_ticked(server, visit, theme):
    tab = opened(visit, server[0], theme=theme)
    tab.check("input[name=nbdt-correct-kind][value=step]")
    tab.check(".nbdt-correct-consent input")
    tick = tab.eval_on_selector(
        ".nbdt-correct-consent input",
        "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e, '::after').borderRightColor]",
    )
    dark = ["rgb(99, 207, 192)", "rgb(12, 31, 28)"]
    assert tick == (dark if theme == "dark" else ["rgb(15, 107, 98)", "rgb(255, 255, 255)"])


@pytest.mark.browser
def test_saved_versions_have_the_time_of_where_the_visitor_is(server, visit):
    tab = opened(visit, server[0], timezone_id="Asia/Tokyo", locale="en-US")
    tab.click(".nbdt-edit summary")
    tab.get_by_label("Name", exact=True).fill("as it was")
    tab.get_by_role("button", name="Save", exact=True).click()
    tab.wait_for_selector("text=Saved as 'as it was, version 1'.")
    now = datetime.now(ZoneInfo("Asia/Tokyo"))
    times = {(now - timedelta(minutes=ago)).strftime("%-I:%M") for ago in (0, 1, 2)}
    shown = tab.get_by_label("Saved version").inner_text()
    assert any(f", {time}" in shown for time in times), shown


@pytest.mark.browser
def test_a_label_must_be_one_that_the_model_knows(server, visit, cifar10):
    (url, store), tree = server, cifar10.hierarchy
    tab = opened(visit, url)
    tab.check("input[name=nbdt-correct-kind][value=label]")
    tab.fill("#nbdt-correct-this-is", "doge")
    tab.click(".nbdt-correct-send")
    assert "There is no node 'doge'. Did you mean 'dog'" in answered(tab)
    group = tree.inner_nodes[1]
    for name, node in (("dog", "dog"), (tree.names[group], tree.ids[group])):
        tab.wait_for_selector(f"datalist option[value='{name}']", state="attached")
        tab.fill("#nbdt-correct-this-is", name)
        tab.click(".nbdt-correct-send")
        tab.wait_for_selector(".nbdt-correct-status[data-tone='done']")
        (saved,) = store.corrections(ids=[number_of(answered(tab))])
        assert saved.correction.label == node
        assert (
            saved.correction.in_words(dict(zip(tree.ids, tree.names, strict=True)))
            == f"This is: {name}"
        )
        tab.wait_for_selector(f"text=This is: {name}")
        tab.fill("#nbdt-correct-this-is", "")


@pytest.mark.browser
def test_bad_evidence_no_longer_counts_for_this_visitor_alone(server, visit, cifar10, index):
    url, store = server
    tab = opened(visit, url)
    tab.check("input[name=nbdt-correct-kind][value=evidence]")
    tab.wait_for_selector(".nbdt-correct-picture img")
    references = shown(tab)
    tab.locator(".nbdt-correct-picture input").first.check()
    tab.click(".nbdt-correct-send")
    assert f"{references[0]} no longer counts" in answered(tab)
    tab.wait_for_function(
        "bad => { const all = [...document.querySelectorAll('.nbdt-correct-picture input')];"
        " return all.length && !all.some(i => i.value === bad) }", arg=references[0],
    )  # fmt: skip
    other = opened(visit, url)
    other.check("input[name=nbdt-correct-kind][value=evidence]")
    other.wait_for_selector(".nbdt-correct-picture img")
    assert shown(other) == references
    rows = open_memory(cifar10, index).rows
    assert rows.active.all()
    assert [rows.names[rows.places[m.reference]] for m in store.marks()] == [references[0]]
    tab.click("text=Let it count again")
    tab.wait_for_function(
        "() => !document.querySelector('.nbdt-history-body')?.textContent.includes('bad evidence')"
    )
    assert [mark.bad for mark in store.marks()] == [True, False]


def shown(tab):
    return tab.eval_on_selector_all(".nbdt-correct-picture input", "all => all.map(i => i.value)")


@pytest.mark.browser
def test_visitors_neither_see_nor_delete_what_is_anothers(server, visit):
    url, store = server
    tab, other = opened(visit, url), opened(visit, url)
    mine, theirs = correct_step(tab), correct_step(other)
    assert f"No. {theirs} " not in tab.inner_text(".nbdt-history")

    # A forged request: the button of one's own correction, with another's number behind it.
    def forge(route):
        body = route.request.post_data or ""
        route.continue_(post_data=body.replace(f'"id":{mine}', f'"id":{theirs}'))

    tab.route(
        "**/gradio_api/**", lambda r: forge(r) if r.request.method == "POST" else r.continue_()
    )
    tab.click(f"button[aria-label='Delete correction {mine}']")
    tab.wait_for_selector(f"text=There is no correction of yours with the number {theirs}")
    assert {saved.id for saved in store.corrections(ids=[mine, theirs])} == {mine, theirs}


@pytest.mark.browser
def test_a_correction_survives_kill_9_and_its_author_is_known_again(
    tmp_path, visit, cifar10, index
):
    with with_store(tmp_path, "--memory", index) as (url, process, _):
        tab = opened(visit, url)
        number = correct_step(tab, note="before the crash")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        kept = tab.context.storage_state()
    port = int(url.rsplit(":", 1)[1])
    with (
        closing(Store.open(str(tmp_path / "kept.sqlite"))) as store,
        served(cifar10, store, port=port) as url,  # a browser stores a token by address
    ):
        tab = visit(url, storage_state=kept)
        tab.wait_for_selector(f"text=No. {number} ", timeout=60_000)
        assert "before the crash" in tab.inner_text(".nbdt-history")


@pytest.mark.browser
def test_a_new_model_is_offered_tried_and_compared(server, visit, cifar10, seen, tmp_path):
    """As `nbdt corrections apply` records it; what it does itself is tested beside the command."""
    url, store = server
    tab = opened(visit, url)
    number = correct_step(tab, keep=True)
    (saved,) = store.corrections(ids=[number])
    better = leaning(cifar10, saved.correction)
    better.save(tmp_path / "model")
    figures = {"before": {"soft": 0.895}, "after": {"soft": 0.9}}
    version = store.add_model_version(
        tmp_path / "model", model_hash(better), parent=model_hash(cifar10), learned=[number],
        left_out=0, accuracy=figures,
    )  # fmt: skip
    tab.reload()
    tab.wait_for_selector(f"text=Version {version.id} learned from 1 correction.")
    assert "right 90.0 % of the time; before, 89.5 %" in tab.inner_text(".nbdt-history")
    upload(tab)
    tab.click(f"text=Try version {version.id}")
    tab.wait_for_selector("text=Your photographs, before and after")
    pair = tab.inner_text(".nbdt-history-pair")
    paths = [explain(m, seen)[0].path for m in (cifar10, better)]
    assert paths[0].decisions[0].chosen != paths[1].decisions[0].chosen
    for path in paths:
        assert path.class_name in pair
    tab.wait_for_selector("text=You are looking at it.")
    answer = tab.inner_text(".nbdt-answer")
    assert paths[1].class_name in answer
    tab.click("text=Back to the first version")
    tab.wait_for_selector(f"text=Try version {version.id}")
    assert paths[0].class_name in tab.inner_text(".nbdt-answer")


def leaning(model, said):
    """The model with its biases moved until the step goes where the correction wants it."""
    import copy

    import torch

    better = copy.deepcopy(model)
    tree = better.hierarchy
    below = tree.classes_under(tree.ids.index(said.child))
    with torch.no_grad():
        better.head.linear.bias[below] += 40
    return better


def test_without_a_store_one_line_says_how_to_turn_it_on(cifar10, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # building a page sets it
    page = build(cifar10)
    shown = [block for block in page.blocks.values() if isinstance(block, gr.HTML)]
    assert any("Corrections are not kept on this page" in block.html_template for block in shown)
    (form,) = [block for block in shown if block.elem_id == "nbdt-correct"]
    assert not form.visible
    assert "/correct" not in page.get_api_info()["named_endpoints"]
