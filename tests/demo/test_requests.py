"""What the server refuses before it reads it, whose it is, and what it keeps for how long."""

import http.client
import json
import os
import re
import socket
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest

from nbdt.demo import accounts, guard, uploads
from nbdt.demo.log import LONGEST, ShortLines
from nbdt.demo.server import public_address
from nbdt.errors import NBDTError
from tests.browser import free_port
from tests.demo.pages import CAT, served
from tests.demo.test_demo import ask, event, outcome

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*no_silent_downcasting",  # pandas 3, in Gradio
    "ignore:The copy keyword is deprecated",
    "ignore::ResourceWarning",  # connections that the server cuts off
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
JSON = {"content-type": "application/json"}


def connection(page):
    return http.client.HTTPConnection(page.removeprefix("http://"), timeout=30)


def send(page, method, path, body=None, headers=()):
    """Status, text and headers of a request whose body the server may refuse to read."""
    link = connection(page)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer has come already
            link.request(method, path, body, dict(headers), encode_chunked=True)
        answer = link.getresponse()
        return answer.status, answer.read().decode(errors="replace"), answer.headers
    finally:
        link.close()


def form(content, name="p.jpg", files=1):
    """The body of an upload, and its headers."""
    part = (
        f'--xx\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
    )
    return part * files + b"--xx--\r\n", {"content-type": "multipart/form-data; boundary=xx"}


def upload(page, content, **headers):
    body, kind = form(content)
    status, text = ask(f"{page}/gradio_api/upload", body, **kind, **headers)
    return json.loads(text)[0] if status == 200 else (status, text)


def login(page, user="ann", password="secret"):
    """The cookie of a login, or the status that refused it."""
    body, kind = f"username={user}&password={password}", "application/x-www-form-urlencoded"
    status, _, headers = send(page, "POST", "/login", body, {"content-type": kind})
    cookie = re.search(r"access-token-unsecure-[^;]+", ", ".join(headers.get_all("set-cookie", [])))
    return {"cookie": cookie[0]} if status == 200 else status


@pytest.fixture(scope="module")
def guarded(cifar10):
    """A page with two logins."""
    with served(cifar10, auth=[("ann", "secret"), ("bob", "word")]) as page:
        yield page


# ---- sizes, routes, pace -----------------------------------------------------------------------

ROUTES = [
    ("POST", "/login"), ("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/call/explain"), ("GET", "/"),
    ("POST", "/gradio_api/process_recording"), ("POST", "/gradio_api/component_server"),
    ("GET", "/health"), ("PUT", "/"), ("POST", "/nothing"),
]  # fmt: skip


def endless():
    """More than may be sent anywhere, in pieces, without a length."""
    for _ in range(400):
        yield b"x" * (1 << 18)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("kind", ["length", "endless"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(page, guarded, method, path, kind):
    for address, cookie in ((page, {}), (guarded, {}), (guarded, login(guarded))):
        headers = {"content-type": "multipart/form-data; boundary=xx", **cookie}
        if kind == "length":
            body, headers["content-length"] = b"--xx\r\n", str(300 << 20)
        else:
            body, headers["transfer-encoding"] = endless(), "chunked"
        started = time.monotonic()
        try:
            status = send(address, method, path, body, headers)[0]
        except (ConnectionError, http.client.BadStatusLine):
            status = None  # cut off, the answer lost
        assert status in {401, 404, 413, None} or (status == 400 and kind == "endless")
        assert time.monotonic() - started < 10
    assert ask(f"{page}/health")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/stream/x"),
        ("GET", "/gradio_api/stream/s/r/1/playlist.m3u8"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/vibe-code"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:1/x"),
        ("GET", "/gradio_api/deep_link?session_hash=s"),
        ("GET", "/gradio_api/token"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/queue/status"),
        ("GET", "/gradio_api/dev/reload"),
        ("GET", "/gradio_api/custom_component/1/client/component/x.js"),
        ("GET", "/monitoring"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("DELETE", "/"),
    ],
)
def test_what_the_page_does_not_use_is_closed(page, method, path):
    status, text, _ = send(page, method, path, b"{}" if method == "POST" else None, JSON)
    assert status == 404
    assert "nothing here" in text


def test_every_route_of_the_page_and_of_programs_is_open(page):
    for path in ("/", "/config", "/gradio_api/info", "/theme.css", "/robots.txt", "/health"):
        assert ask(page + path)[0] == 200


def test_a_body_that_pauses_is_given_up(page, monkeypatch):
    monkeypatch.setattr(guard, "SILENCE_S", 0.5)
    link = connection(page)
    link.putrequest("POST", "/gradio_api/upload")
    link.putheader("content-type", "multipart/form-data; boundary=xx")
    link.putheader("content-length", "5000")
    link.endheaders(b"--xx\r\n")
    answer = link.getresponse()
    assert answer.status == 408
    link.close()


def test_passwords_cannot_be_tried_without_end(cifar10, monkeypatch):
    monkeypatch.setattr(guard, "FAILED_LOGINS", 3)
    with served(cifar10, auth=[("ann", "secret")]) as page:
        assert [login(page, password="wrong") for _ in range(4)] == [400, 400, 400, 429]
        assert login(page) == 429  # the right one is refused too
        assert ask(f"{page}/health")[0] == 200


def test_a_window_counts_from_zero_again():
    window = guard.Window(0.05)
    assert window.add("a", 3) == 3
    time.sleep(0.06)
    assert window.add("a") == 0


# ---- whose it is -------------------------------------------------------------------------------


def test_files_and_sessions_belong_to_a_login(guarded):
    ann, bob = login(guarded), login(guarded, "bob", "word")
    path = upload(guarded, CAT.read_bytes(), **ann)
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    shown = f"{guarded}/gradio_api/file={path}"
    assert ask(shown, **ann)[0] == 200
    assert ask(shown, **bob)[0] == 403
    assert ask(shown)[0] == 401

    def explained(who, session):
        body = {"data": [file, None], "session_hash": session, **index}
        return ask(f"{guarded}/gradio_api/queue/join", body, **who)

    config = json.loads(ask(f"{guarded}/config", **ann)[1])
    index = {
        "fn_index": next(d["id"] for d in config["dependencies"] if d["api_name"] == "explain")
    }
    status, text = explained(ann, "one")
    assert status == 200
    result = json.loads(text)["event_id"]
    for path in ("queue/data?session_hash=one", f"call/explain/{result}", "heartbeat/one"):
        assert ask(f"{guarded}/gradio_api/{path}", **bob)[0] == 403
    assert explained(bob, "one")[0] == 400
    said = ask(f"{guarded}/gradio_api/queue/data?session_hash=one", **ann)[1]
    assert '"success":true' in said
    picture = json.loads(said.split("data: ")[-2])["output"]["data"][1][0]["image"]["path"]
    assert ask(f"{guarded}/gradio_api/file={picture}", **ann)[0] == 200
    assert ask(f"{guarded}/gradio_api/file={picture}", **bob)[0] == 403
    assert explained(bob, "two")[0] == 200  # another's file, refused when it is opened
    assert accounts.NOT_YOURS in ask(f"{guarded}/gradio_api/queue/data?session_hash=two", **bob)[1]


def test_results_that_nobody_reads_are_bounded(page, monkeypatch):
    monkeypatch.setattr(accounts, "UNREAD_PAGES", 2)
    call = {"data": [None, None], "fn_index": event(page, "pick"), "event_data": {"name": "cat"}}

    def join(session):
        return ask(f"{page}/gradio_api/queue/join", {**call, "session_hash": session})[0]

    said = [join("greedy") for _ in range(40)]
    assert said[0] == 200
    assert said[-1] == 503
    assert 1 <= said.count(200) <= 2 * accounts.UNREAD
    for number in range(4):
        assert join(f"unread-{number}") == 200
    for _ in range(2):  # comes after all of them, and drops what older pages left
        assert '"success":true' in outcome(
            page, event(page, "pick"), [None], "reader", {"name": "cat"}
        )
    read = [ask(f"{page}/gradio_api/queue/data?session_hash=unread-{n}") for n in (0, 3)]
    assert [status for status, _ in read] == [404, 200]
    assert '"success":true' in read[1][1]


# ---- files -------------------------------------------------------------------------------------


def kept(page):
    """The page's folder of uploads, and the files in it."""
    folder = Path(upload(page, b"x")).resolve().parent
    return folder, len([path for path in folder.rglob("*") if path.is_file()])


def abort(page):
    """An upload that breaks off in the middle."""
    with socket.create_connection(page.removeprefix("http://").split(":")) as link:
        head = "POST /gradio_api/upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9999\r\n"
        kind = "content-type: multipart/form-data; boundary=xx\r\n\r\n"
        link.sendall((head + kind).encode() + form(b"x" * 5000)[0][:4000])


def test_an_upload_that_breaks_off_leaves_nothing(page):
    before = kept(page)[1]
    for _ in range(20):
        abort(page)
    for files, name in ((21, "p.jpg"), (0, "")):
        body, kind = form(b"x", name, files)
        assert ask(f"{page}/gradio_api/upload", body, **kind)[0] == 400
    time.sleep(0.3)
    assert kept(page)[1] == before + 1


@pytest.mark.parametrize(
    "name", ["..", "../../x.png", "", "x" * 5000, "a\0b.png", "%2e%2e%2fx", "é.png"]
)
def test_no_name_of_a_file_leads_out_of_the_folder(page, name):
    body, kind = form(b"x", name)
    status, text = ask(f"{page}/gradio_api/upload", body, **kind)
    if status == 200:
        assert Path(json.loads(text)[0]).resolve().parent == kept(page)[0]
    else:
        assert status == 400


def test_files_are_deleted_by_age_whatever_they_are(page, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(uploads, "FILES_S", 100)
    live, left = tmp_path / "nbdt-demo-live", tmp_path / "nbdt-demo-of-a-killed-server"
    strange = tmp_path / "not-ours"
    for folder in (live, left, strange):
        (folder / "old" / "deep").mkdir(parents=True)
        (folder / "old" / "deep" / ".hidden").touch()
        (folder / "tmpabort").touch()
        (folder / "link").symlink_to(strange)
    (live / "new").mkdir()
    (live / "new" / "photo.png").touch()
    past = time.time() - 200
    for path in (left / "old", left / "tmpabort", live / "old", live / "tmpabort", live / "link"):
        os.utime(path, (past, past), follow_symlinks=False)
    names = {str(live / "old" / "deep" / ".hidden"), str(live / "new" / "photo.png")}
    (tmp_path / "nbdt-demo-link").symlink_to(strange)
    uploads.sweep([names])
    assert sorted(path.name for path in live.iterdir()) == ["new"]
    assert names == {str(live / "new" / "photo.png")}
    assert sorted(path.name for path in left.iterdir()) == ["link"]
    assert len([*strange.iterdir()]) == 3
    assert (strange / "old" / "deep" / ".hidden").exists()


def test_a_running_server_deletes_old_uploads(cifar10, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # not those of other servers
    monkeypatch.setattr(uploads, "FILES_S", 0.5)
    monkeypatch.setattr(uploads, "SWEEP_S", 0.2)
    with served(cifar10) as page:
        path = Path(upload(page, b"x" * 1000))
        assert path.is_file()
        deadline = time.monotonic() + 20
        while path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert Path(upload(page, b"y")).is_file()  # and goes on


def test_uploads_have_quotas(page, cifar10, monkeypatch):
    monkeypatch.setattr(uploads, "OF_VISITOR", 250_000)
    with served(cifar10) as page:
        assert Path(upload(page, b"x" * 150_000)).is_file()
        status, text = upload(page, b"x" * 150_000)
        assert status == 507
        assert "250,000" in text
        assert Path(upload(page, b"x" * 50_000)).is_file()  # what was refused does not count
    monkeypatch.setattr(uploads, "IN_ALL", 0)
    with served(cifar10) as page:
        assert upload(page, b"x")[0] == 507


# ---- behind a proxy ----------------------------------------------------------------------------


def test_a_path_or_an_address_is_where_the_page_is_public():
    assert public_address("") == ("", [])
    assert public_address("/nbdt/") == ("/nbdt", [])
    assert public_address("https://a.example:8443/x/y") == (
        "https://a.example:8443/x/y",
        ["a.example:8443"],
    )
    for wrong in ("nbdt", "ftp://a.example/", "/a b", "https://", "/../x?y", "/a\n"):
        with pytest.raises(NBDTError, match="root-path"):
            public_address(wrong)


def root(page, **headers):
    return json.loads(ask(f"{page}/config", **headers)[1])["root"]


def test_what_a_visitor_says_of_a_proxy_is_not_believed(page):
    lies = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https",
            "x-gradio-server": "http://evil.example", "forwarded": "host=evil.example"}  # fmt: skip
    assert root(page, **lies) == page


def test_a_public_name_and_scheme_are_believed(cifar10):
    with served(cifar10, public=["demo.example.org"]) as page:
        said = {"x-forwarded-proto": "https", "host": "demo.example.org"}
        assert root(page, **said) == "https://demo.example.org"
        assert root(page, **said, **{"x-forwarded-host": "evil.example"}) == root(page, **said)


PREFIX = "/some/where"


@contextmanager
def proxy(page, port):
    """A reverse proxy that serves the page below a path, as nginx does with ``proxy_pass …/;``."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def forward(self):
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length) if length else None
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            headers["x-forwarded-proto"] = "http"
            link = connection(page)
            link.request(self.command, self.path.removeprefix(PREFIX), body, headers)
            answer = link.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "connection", "date", "server"}:
                    self.send_header(name, value)
            self.end_headers()
            try:
                while part := answer.read1():
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:
                pass  # the browser left
            link.close()

        do_GET = do_POST = do_HEAD = forward  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Proxy) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{port}{PREFIX}"
        server.shutdown()


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["path", "address"])
def test_the_page_works_below_a_path_of_a_proxy(cifar10, visit, kind):
    port = free_port()
    root_path = PREFIX if kind == "path" else f"http://127.0.0.1:{port}{PREFIX}"
    with served(cifar10, root_path=root_path) as page, proxy(page, port) as public:
        tab = visit(public)
        tab.click(".nbdt-example:has-text('cat')")
        tab.wait_for_selector(".nbdt-tree .class.lit")
        tab.set_input_files("#nbdt-photo input[type=file]", str(CAT.with_name("coffee.jpg")))
        tab.wait_for_function("document.querySelector('#nbdt-photo img')?.naturalWidth > 100")
        tab.wait_for_function(
            "document.querySelector('#nbdt-photo img').src.includes('coffee')"
            " && document.querySelector('.nbdt-card img')"
        )
        assert tab.evaluate("document.querySelector('#nbdt-photo img').src").startswith(public)


@pytest.mark.browser
def test_a_visitor_logs_in_below_a_path(cifar10, visit):
    port = free_port()
    with (
        served(cifar10, root_path=PREFIX, auth=[("ann", "secret")]) as page,
        proxy(page, port) as public,
    ):
        tab = visit(public, ready="input[type=password]")
        tab.fill("input[type=password]", "secret")
        tab.locator("input:not([type=password])").first.fill("ann")
        tab.get_by_role("button", name="Login").click()
        tab.wait_for_selector(".nbdt-example")
        tab.click(".nbdt-example:has-text('cat')")
        tab.wait_for_selector(".nbdt-tree .class.lit")


# ---- the log -----------------------------------------------------------------------------------


def test_lines_of_the_log_are_short_and_printable():
    stream = StringIO()
    log = ShortLines(stream)
    print("one\x1b[31m\rtwo\x00", "x" * 10_000, sep="\n", file=log)
    first, second = stream.getvalue().splitlines()
    assert first == r"one\x1b[31m\rtwo\x00"
    assert len(second) < LONGEST + 50
    assert second.startswith("xxx")
    assert log.getvalue() == stream.getvalue()  # everything else is the stream's
