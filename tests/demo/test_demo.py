"""The demo's server: the command, the API, what is refused, and what a visitor's state holds."""

import asyncio
import copy
import io
import json
import os
import socket
import struct
import threading
import urllib.error
import urllib.request
import zlib
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nbdt.decide.paths import Decision, Path
from nbdt.demo.app import build
from nbdt.demo.command import PASSWORD, app, logins
from nbdt.demo.guard import SafeHeaders
from nbdt.demo.photographs import examples
from nbdt.demo.server import check_port
from nbdt.demo.store import Store
from nbdt.demo.ui.component import STATIC
from nbdt.demo.ui.events import FORGOTTEN
from nbdt.demo.views.answer import draw_answer
from nbdt.demo.views.decisions import competitors, draw_strip, question, sentence
from nbdt.demo.views.levels import _compute
from nbdt.demo.visitor import RECENT, Visitor
from nbdt.errors import NBDTError
from nbdt.explain import Evidence, explain
from nbdt.hierarchies import edit
from nbdt.hierarchies.library import DEFAULT_MODEL
from nbdt.images.dataset import iter_images
from nbdt.model.remember import make_memory
from tests.demo.pages import running, served

pytestmark = pytest.mark.filterwarnings(  # pandas 3, in Gradio
    "ignore:.*no_silent_downcasting", "ignore:The copy keyword is deprecated"
)

PHOTO = Image.effect_noise((64, 48), 90).convert("RGB")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    PHOTO.save(path)
    return path


def ask(url, data=None, **headers):
    """Status and text of a plain HTTP request."""
    body = None if data is None else data if isinstance(data, bytes) else json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")


# ---- the command -------------------------------------------------------------------------------


def folders(place):
    return sorted(path.name for path in place.glob("nbdt-demo-*"))


def test_the_command_opens_the_page_and_leaves_no_photographs_behind(tmp_path):
    """Started elsewhere than in the repository, with its temporary files there."""
    with running(tmp_path, "--store", "none", cwd=tmp_path, TMPDIR=str(tmp_path)) as started:
        page, process, log = started
        status, text = ask(f"{page}/health")
        assert status == 200
        assert json.loads(text)["status"] == "ok"
        assert json.loads(text)["model"] == DEFAULT_MODEL
        assert page in log.read_text()
        reply = outcome(page, event(page, "pick"), [None], event_data={"name": "cheetah"})
        assert "cheetah" in reply
        assert '"success":true' in reply
        (folder,) = folders(tmp_path)
        assert [*(tmp_path / folder).rglob("*.jpg")]
        process.terminate()
        process.wait(20)
        assert folders(tmp_path) == []


def test_a_port_that_is_taken_is_refused_and_the_next_free_one_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NBDTError, match=rf"port {port}: .*in use.*Port \d+ is free: --port"):
            check_port("127.0.0.1", port)


def test_logins_come_from_a_file_or_the_environment_never_from_the_command_line(
    tmp_path, monkeypatch
):
    file = tmp_path / "users"
    file.write_text("# who may come\nann:one:two\n\nbob:three\n")
    assert logins(str(file)) == [("ann", "one:two"), ("bob", "three")]
    monkeypatch.setenv(PASSWORD, "secret")
    assert logins("ann") == [("ann", "secret")]
    monkeypatch.delenv(PASSWORD)
    with pytest.raises(NBDTError, match=f"set the environment variable {PASSWORD}"):
        logins("ann")
    with pytest.raises(NBDTError, match="visible to everyone"):
        logins("ann:secret")
    file.write_text("ann\n")
    with pytest.raises(NBDTError, match="line 1: expected user:password"):
        logins(str(file))
    file.write_text("\n")
    with pytest.raises(NBDTError, match="no line of user:password"):
        logins(str(file))


def test_the_command_refuses_before_it_loads_anything(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(app, ["--port", str(taken.getsockname()[1])])
    assert isinstance(result.exception, NBDTError)
    assert "is free" in str(result.exception)


# ---- the API -----------------------------------------------------------------------------------


def test_the_larger_network_is_named_unless_a_model_was_chosen():
    missing = ["--auth", "stranger"]  # whose password is not set, so that the command ends here
    first, chosen = (
        CliRunner().invoke(app, [*missing, *model]) for model in ([], ["--model", "x"])
    )
    assert "nbdt demo --model timm:resnet101" in first.stdout
    assert "make demo MODEL=timm:resnet101" in first.stdout.splitlines()[0]
    assert "resnet101" not in chosen.stdout


def test_the_api_takes_one_image_and_returns_path_and_pictures(page, photo):
    from gradio_client import Client, handle_file

    client = Client(page, verbose=False)
    record, pictures = client.predict(handle_file(photo), api_name="/explain")
    assert record["path"][-1]["chosen"] == record["class"]
    product = 1.0
    for decision in record["path"]:
        product *= decision["probability"]
    assert abs(product - record["probability"]) < 1e-9
    assert len(pictures) == len(record["path"])
    with Image.open(pictures[0]["image"]) as overlay:
        assert overlay.size == (256, 256)


def test_the_example_in_the_pages_runs(page, photo, capsys):
    text = (STATIC.parents[1] / "docs" / "demo.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    code = example.replace("http://127.0.0.1:7860", page).replace("photo.jpg", str(photo))
    exec(compile(code, "demo.md", "exec"), {})
    assert "→" in capsys.readouterr().out


def test_only_the_verbs_are_offered(page):
    status, text = ask(f"{page}/gradio_api/info")
    offered = json.loads(text)["named_endpoints"]
    assert status == 200
    assert list(offered) == ["/explain", "/edit"]
    image, only = offered["/explain"]["parameters"]
    assert not image["parameter_has_default"]
    assert only["parameter_name"] == "only"
    assert only["parameter_has_default"]


def bomb():
    """A PNG of a few hundred bytes that claims 3,600 million pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def truncated():
    stream = io.BytesIO()
    PHOTO.save(stream, "JPEG")
    return stream.getvalue()[:300]


HOSTILE_FILES = {
    "text.png": (b"<img src=x onerror=alert(1)>", "expected an image"),
    "bomb.png": (bomb(), "at most 50,000,000 pixels"),
    "cut.jpg": (truncated(), "complete, undamaged JPEG"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "expected an image"),
    "empty.png": (b"", "expected an image"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_the_api_says_why_it_refuses_a_file(page, tmp_path, name):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    data, message = HOSTILE_FILES[name]
    (tmp_path / name).write_bytes(data)
    client = Client(page, verbose=False)
    with pytest.raises(AppError, match=message) as refusal:
        client.predict(handle_file(tmp_path / name), api_name="/explain")
    assert "<" not in str(refusal.value)


# ---- what is refused ---------------------------------------------------------------------------


def test_every_response_forbids_the_browser_to_ask_anyone_else(page):
    with urllib.request.urlopen(page, timeout=30) as answer:
        policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "file:///etc/passwd",
        os.path.abspath(__file__),
        "{temp}",
        "{temp}/../../etc/passwd",
        "/proc/self/environ",
        "http://127.0.0.1:1/",
    ],
)
def test_files_of_the_server_cannot_be_had(page, path):
    path = path.format(temp=os.environ["GRADIO_TEMP_DIR"])
    status, text = ask(f"{page}/gradio_api/file={path}")
    assert 400 <= status < 500
    assert "root:" not in text
    assert "Traceback" not in text


def dependencies(page):
    status, text = ask(f"{page}/config")
    assert status == 200
    return json.loads(text)["dependencies"]


def endpoints(page):
    return [(d["id"], len(d["inputs"])) for d in dependencies(page)]


def event(page, name):
    """The number of the only event of that name."""
    (found,) = [d["id"] for d in dependencies(page) if name in [t[1] for t in d["targets"]]]
    return found


def outcome(page, index, data, session="s", event_data=None):
    """What the queue says of a call made without the page."""
    body = {"data": data, "fn_index": index, "session_hash": session}
    body["event_data"] = {"id": data} if event_data is None else event_data
    status, text = ask(f"{page}/gradio_api/queue/join", body)
    if status != 200:
        return text
    return ask(f"{page}/gradio_api/queue/data?session_hash={session}")[1]


def test_no_event_copies_the_weights(page, monkeypatch):
    """As Gradio did with the fields of a visitor: it took longer than the network."""

    def refuse(*_):
        raise AssertionError("a copy of weights")

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", refuse)
    said = outcome(page, event(page, "pick"), [None], "copies", {"name": "cat"})
    assert '"success":true' in said
    body = {"data": [None], "fn_index": event(page, "tree_edit"), "session_hash": "copies"}
    change = {"kind": "move", "nodes": ["frog"], "to": "vehicle", "seq": 1}
    status, said = ask(f"{page}/gradio_api/run/predict", {**body, "event_data": change})
    assert (status, "Moved 'frog'" in said) == (200, True)


def test_the_examples_do_not_depend_on_where_the_server_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in examples():
        said = outcome(page, event(page, "pick"), [None], f"pick-{name}", {"name": name})
        assert '"success":true' in said, name
    neighbour = next(iter(examples().values())).with_name("page.js")
    assert ask(f"{page}/gradio_api/file={neighbour}")[0] == 403


def test_a_call_of_no_event_is_refused(page, capfd):
    body = {"data": [], "fn_index": 999, "session_hash": "s"}
    status, text = ask(f"{page}/gradio_api/queue/join", body)
    assert status == 400
    assert "no event" in text
    assert "Traceback" not in capfd.readouterr().err


CALL = {"data": [None], "fn_index": 0, "session_hash": "o"}


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://{own}", "{own}", 200),
        ("http://LOCALHOST:{port}", "localhost:{port}", 200),
        ("http://[::1]:80", "[::1]", 200),
        (None, "{own}", 200),
        ("https://evil.example", "{own}", 403),
        ("http://127.0.0.1:1", "{own}", 403),
        ("null", "{own}", 403),
        ("", "{own}", 403),
        ("http://{own}.evil.example", "{own}", 403),
        ("http://evil.example:{port}", "evil.example:{port}", 403),
        (None, "evil.example:{port}", 403),
        (None, "127.0.0.1.evil.example", 403),
        (None, "[", 403),
    ],
)
def test_another_web_site_cannot_use_the_page(page, origin, host, status):
    own = page.removeprefix("http://")
    named = {"own": own, "port": own.split(":")[1]}
    headers = {"host": host.format(**named)}
    if origin is not None:
        headers["origin"] = origin.format(**named)
    assert ask(f"{page}/gradio_api/queue/join", CALL, **headers)[0] == status
    assert ask(page, **headers)[0] == status


def answer_of(app, headers, cookies=()):
    """Status and headers that `SafeHeaders` gives before and after an application."""
    sent = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"set-cookie", cookie) for cookie in cookies]})  # fmt: skip

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(app(application)({"type": "http", "method": "POST", "headers": raw}, None, send))
    return sent[0]["status"], sent[0]["headers"]


def test_a_page_for_everybody_is_used_by_its_own_names_alone():
    def everywhere(app):
        return SafeHeaders(app, "0.0.0.0", ["Demo.example.org"])

    def behind(app):
        return SafeHeaders(app, "127.0.0.1", ["demo.example.org"])

    site = {"origin": "https://demo.example.org"}
    for guarded in (everywhere, behind):
        assert answer_of(guarded, {"host": "demo.example.org"} | site)[0] == 200
        assert answer_of(guarded, {"host": "127.0.0.1:7860"} | site)[0] == 200  # as nginx sends it
        evil = {"origin": "https://evil.example", "x-forwarded-host": "evil.example"}
        assert answer_of(guarded, {"host": "demo.example.org"} | evil)[0] == 403
    own = {"host": "pc.lan:7860", "origin": "http://pc.lan:7860"}
    assert answer_of(everywhere, own)[0] == 200
    assert answer_of(behind, own)[0] == 403


def test_no_cookie_goes_along_when_another_site_asks():
    cookies = [b"a=1; HttpOnly; SameSite=none; Secure", b"b=2; SameSite=lax"]
    headers = answer_of(SafeHeaders, {"host": "x"}, cookies)[1]
    set_ = [value for name, value in headers if name == b"set-cookie"]
    assert set_ == [b"a=1; HttpOnly; SameSite=lax; Secure", b"b=2; SameSite=lax"]
    assert any(name == b"content-security-policy" for name, _ in headers)


GARBAGE = [
    None,
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    "${alert(1)}<img src=x onerror=alert(1)>",
    [[[[[]]]]] * 3,
    {"__proto__": 1, "id": {"$": 1}},
    -1,
]


def test_calls_that_skip_the_page_are_answered_and_break_nothing(page):
    asked = 0
    for index, count in endpoints(page):
        for number, garbage in enumerate(GARBAGE):
            outcome(page, event(page, "load"), [None], f"{index}-{number}")  # else it is forgotten
            text = outcome(page, index, [garbage] * count, f"{index}-{number}")
            assert "Traceback" not in text
            assert 'File "' not in text
            assert "root:" not in text
            asked += 1
    assert asked >= 5 * len(GARBAGE)
    assert ask(f"{page}/health")[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"data": 1}', b'{"fn_index": 99999, "data": []}']
)
def test_hostile_json_is_refused(page, body):
    for route in ("queue/join", "call/explain", "run/explain", "reset", "cancel"):
        status, text = ask(f"{page}/gradio_api/{route}", body)
        assert status != 200 or route not in {"queue/join", "run/explain"}  # which answer at once
        assert "Traceback" not in text
    assert ask(f"{page}/health")[0] == 200


def test_the_server_fetches_nothing_that_a_request_names(page):
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/photo.png"
        file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        status, text = ask(f"{page}/gradio_api/call/explain", {"data": [file]})
        event = json.loads(text)["event_id"]
        said = ask(f"{page}/gradio_api/call/explain/{event}")[1]
        server.shutdown()
    assert status == 200
    assert "web address" in said
    assert asked == []


def test_a_login_guards_the_page_and_not_its_health(cifar10):
    with served(cifar10, auth=[("ann", "secret")]) as page:
        assert ask(f"{page}/health")[0] == 200
        assert ask(f"{page}/gradio_api/call/explain", {"data": [None]})[0] == 401
        assert ask(f"{page}/gradio_api/info")[0] == 401
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert ask(f"{page}/login", b"username=ann&password=wrong", **form)[0] == 400
        assert ask(f"{page}/login", b"username=ann&password=secret", **form)[0] == 200


def moved_cat(page, session):
    sent = {"kind": "move", "nodes": ["cat"], "to": "vehicle", "seq": 7}
    return outcome(page, event(page, "tree_edit"), [None], session, sent)


def test_who_is_forgotten_is_told_so_until_there_is_a_photograph(page):
    for session in ("new", "other"):
        outcome(page, event(page, "load"), [None], session)
        assert FORGOTTEN not in moved_cat(page, session)
    said = moved_cat(page, "forgotten")
    assert FORGOTTEN in said
    assert '\\"seq\\":7' in said
    for name in ("node_select", "name_wanted", "edit_reset", "edit_versions"):
        assert FORGOTTEN in outcome(page, event(page, name), [None], "forgotten"), name
    outcome(page, event(page, "pick"), [None], "forgotten", {"name": "cat"})
    assert FORGOTTEN not in moved_cat(page, "forgotten")


def test_corrections_of_who_is_forgotten_are_answered_and_opening_the_page_arrives(
    cifar10, tmp_path
):
    store = Store.open(str(tmp_path / "kept.sqlite"))
    sent = {"kind": "label", "label": "cat", "seq": 3}
    with closing(store), served(cifar10, store) as page:
        assert FORGOTTEN in outcome(page, event(page, "correct"), [None, ""], "x", sent)
        assert FORGOTTEN not in outcome(page, event(page, "refresh"), [None, ""], "x")
        assert FORGOTTEN in outcome(page, event(page, "correct"), [None, ""], "x", sent)
        outcome(page, event(page, "load"), [None, ""], "x")
        said = outcome(page, event(page, "correct"), [None, ""], "x", sent)
        assert "no photograph yet" in said


# ---- a visitor ---------------------------------------------------------------------------------


def test_an_edit_and_a_click_need_no_second_forward_pass(cifar10):
    visitor = Visitor(cifar10)
    seen = []
    handle = next(cifar10.backbone.children()).register_forward_hook(lambda *_: seen.append(1))
    try:
        visitor.show(PHOTO)
        first = visitor.explanation()
        visitor.stack = visitor.stack.push(edit.move(visitor.hierarchy, "cat", "vehicle"))
        second = visitor.explanation()
        for node in visitor.hierarchy.ids:
            visitor.node(node)
    finally:
        handle.remove()
    assert seen == [1]
    assert first.made["hierarchy"] != second.made["hierarchy"]
    assert second.made["hierarchy"] == visitor.hierarchy.hash


def test_a_visitor_sees_what_explain_says(cifar10):
    visitor = Visitor(cifar10)
    visitor.show(PHOTO)
    visitor.stack = visitor.stack.push(edit.move(visitor.hierarchy, "cat", "vehicle"))
    nodes = list(visitor.hierarchy.ids[1:])
    slow = explain(cifar10.with_hierarchy(visitor.hierarchy), PHOTO, nodes=nodes, level="fast")[0]
    fast = visitor.explanation()
    assert str(fast.path) == str(slow.path)
    for one, other in zip(fast.path, slow.path, strict=True):
        assert one.children == other.children
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
    for one, other in zip(fast.maps, slow.maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for node in nodes:
        np.testing.assert_allclose(visitor.node(node).map, slow.node_maps[node], atol=1e-6)


def test_a_node_has_its_decision_and_its_chance_from_the_root(cifar10):
    visitor = Visitor(cifar10)
    visitor.show(PHOTO)
    tree, path = visitor.hierarchy, visitor.explanation().path
    leaf = visitor.node(path.class_name)
    assert leaf.taken
    assert leaf.probability == pytest.approx(path.probability)
    assert leaf.decision == path.decisions[-1]
    root = visitor.node(tree.ids[0])
    assert root.probability == 1
    assert root.decision == path.decisions[0]
    leaves = [visitor.node(name).probability for name in tree.classes]
    assert sum(leaves) == pytest.approx(1)
    assert sum(visitor.node(name).taken for name in tree.classes) == 1


@pytest.mark.parametrize("name", ["stranger", "", None, 7, ["cat"], "${alert(1)}", "x" * 10_000])
def test_a_node_that_is_none_is_refused(cifar10, name):
    visitor = Visitor(cifar10)
    visitor.show(PHOTO)
    with pytest.raises(NBDTError, match="no node") as refusal:
        visitor.node(name)
    assert len(str(refusal.value)) < 200


def test_nothing_is_explained_before_there_is_a_photograph(cifar10):
    with pytest.raises(NBDTError, match="no photograph yet"):
        Visitor(cifar10).explanation()


def test_every_visitor_begins_anew(cifar10):
    first = Visitor(cifar10)
    first.show(PHOTO)
    first.stack = first.stack.push(edit.move(first.hierarchy, "cat", "vehicle"))
    second = copy.deepcopy(first)
    assert second.model is cifar10
    assert second.photo is None
    assert not second.recent
    assert second.hierarchy == cifar10.hierarchy


def test_the_last_photographs_are_kept_small(cifar10):
    visitor = Visitor(cifar10)
    for number in range(RECENT + 3):
        visitor.show(Image.new("RGB", (900, 700), (number, 0, 0)))
    assert len(visitor.recent) == RECENT
    assert visitor.recent[0] is visitor.photo
    assert [photo.layer is None for photo in visitor.recent] == [False] + [True] * (RECENT - 1)
    assert all(max(photo.image.size) <= 512 for photo in list(visitor.recent)[1:])
    visitor.show(Image.new("RGB", (900, 700), (RECENT, 0, 0)))
    assert len({photo.hash for photo in visitor.recent}) == RECENT


def test_another_version_of_the_model_sees_the_same_photographs(cifar10):
    visitor = Visitor(cifar10)
    visitor.show(Image.new("RGB", (90, 70), "red"))
    visitor.show(PHOTO)
    hashes = [photo.hash for photo in visitor.recent]
    other = cifar10.with_hierarchy(cifar10.hierarchy)
    visitor.use(other)
    assert visitor.model is other
    assert [photo.hash for photo in visitor.recent] == hashes
    assert visitor.photo is visitor.recent[0]
    assert visitor.explanation().path.class_name


def evidence_of_pieces(model, root, classes):
    """A piece of the photograph for each class."""
    for number, name in enumerate(classes):
        (root / "data" / name).mkdir(parents=True)
        piece = PHOTO.crop((number, number, PHOTO.width - 1, PHOTO.height - 1))
        piece.save(root / "data" / name / "1.png")
    memory = make_memory(model, root / "memory")
    memory.add(list(iter_images(root / "data")), pictures=True)
    return Evidence(memory)


def steps(record):
    """The decisions of all tiles."""
    return [step for tile in record["tiles"] for step in tile["decisions"]]


def test_evidence_stands_on_both_sides_of_every_step(cifar10, tmp_path):
    index = evidence_of_pieces(cifar10, tmp_path, cifar10.hierarchy.classes)
    with_index, without = Visitor(cifar10, index), Visitor(cifar10)
    for visitor in (with_index, without):
        visitor.show(PHOTO)
    record = json.loads(draw_strip(with_index).props["record"])
    for step in steps(record):
        for side, child in (("chosen", step["chosen"]), ("rejected", step["rival"])):
            found = step["evidence"][side]
            below = cifar10.hierarchy.classes_under(cifar10.hierarchy.index(child["name"]))
            assert {f["label"] for f in found} <= {cifar10.hierarchy.classes[i] for i in below}
            assert all(f["picture"].startswith("data:image/jpeg;base64,") for f in found)
            assert float(found[0]["similarity"]) > 0.5
    assert record["hint"] == ""
    bare = json.loads(draw_strip(without, source="cifar10").props["record"])
    assert all("evidence" not in step for step in steps(bare))
    assert "nbdt memory build cifar10 --data TRAIN" in bare["hint"]
    _compute(cifar10, with_index.photo, with_index.levels(), "default", lambda: None)
    deep = steps(json.loads(draw_strip(with_index).props["record"]))
    (compared,) = [step["alike"] for step in deep if "alike" in step]
    assert [one["picture"][:22] for one in compared] == ["data:image/jpeg;base64"] * 3
    assert len({one["picture"] for one in compared}) == 3
    assert all("alike" not in step for step in steps(bare))


def test_evidence_of_another_network_is_refused(cifar10, tmp_path):
    other = copy.deepcopy(cifar10)
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1)
    index = evidence_of_pieces(other, tmp_path, cifar10.hierarchy.classes[:2])
    with pytest.raises(NBDTError, match="another network"):
        build(cifar10, index=index)
    visitor = Visitor(other, index)
    visitor.use(cifar10)
    assert visitor.index is None


# ---- words -------------------------------------------------------------------------------------


def path(*shares, names=("animal", "mammal", "cat")):
    decisions = tuple(
        Decision("up", "up", (name, f"not {name}"), (name, f"not {name}"),
                 (float(np.log(share)), float(np.log(1 - share))), 0)
        for share, name in zip(shares, names, strict=True)
    )  # fmt: skip
    return Path(decisions, names[-1], 0, float(np.log(shares).sum()))


def test_an_answer_stops_where_it_is_unsure_and_says_what_that_promises(cifar10):
    visitor = Visitor(cifar10)
    visitor.show(Image.effect_noise((64, 64), 80).convert("RGB"))
    record = json.loads(draw_answer(visitor).props["record"])
    answer = visitor.explanation().answer
    assert record["stop"] == answer.depth
    assert answer.unknown
    assert record["title"] == "unknown"
    assert "95%" in record["promise"]
    assert "5,000" in record["promise"]
    assert "unknown" in record["knows"]
    bare = cifar10.with_hierarchy(cifar10.hierarchy)
    bare.reference = {}
    visitor = Visitor(bare)
    visitor.show(Image.effect_noise((64, 64), 80).convert("RGB"))
    record = json.loads(draw_answer(visitor).props["record"])
    assert record["stop"] == len(record["trail"]) - 1
    assert "not calibrated" in record["promise"]
    assert "unknown" not in record["knows"]


def test_a_step_says_how_it_went():
    clear, close = path(0.95, names=("cat",)).decisions[0], path(0.55, names=("cat",)).decisions[0]
    assert question(clear) == "cat or not cat?"
    either = path(0.95, names=("sport or toy",)).decisions[0]
    assert question(either) == "sport or toy, or not sport or toy?"
    assert sentence(clear) == "It takes cat rather than not cat, with 95 %."
    against = path(0.42, names=("cat",)).decisions[0]
    assert sentence(against) == "Not cat was likelier here, 58 % against 42 %."
    assert sentence(close) == "A close call: cat 55 %, not cat 45 %."
    assert competitors(path(0.9, names=("wild_cat",)).decisions[0])["chosen"]["name"] == "wild cat"
