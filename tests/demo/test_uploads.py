"""Uploads that fail half way: what is kept of them and what they cost."""

import os
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from nbdt.demo import guard, uploads
from nbdt.demo.accounts import Accounts


@pytest.fixture
def taker(tmp_path, monkeypatch):
    """Uploads, their accounts, and a function that sends files in a login's name."""
    monkeypatch.setattr(uploads, "account", lambda request: request.headers["who"])
    accounts = Accounts()
    taken = uploads.Uploads(accounts)
    app = Starlette(routes=[Route("/", taken.take, methods=["POST"])])
    app.uploaded_file_dir = str(tmp_path)
    client = TestClient(app, raise_server_exceptions=False)

    def send(*contents, who="ann"):
        files = [("files", (f"{n}.jpg", content)) for n, content in enumerate(contents)]
        return client.post("/", files=files, headers={"who": who})

    return SimpleNamespace(send=send, accounts=accounts, folder=tmp_path, window=taken._taken)


@pytest.fixture
def clock(monkeypatch):
    """The time of windows, in seconds."""
    now = SimpleNamespace(s=10.0)
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(28, "disk full"), 507), (ValueError(), 500)]
)
def test_an_upload_that_cannot_be_kept_leaves_nothing(taker, monkeypatch, error, status):
    copy, calls = uploads.shutil.copyfileobj, []

    def failing(source, target):
        calls.append(target)
        copy(source, target)
        if len(calls) == 3:
            raise error

    monkeypatch.setattr(uploads.shutil, "copyfileobj", failing)
    assert taker.send(*[b"x" * 100] * 4).status_code == status
    assert len(calls) == 3
    assert os.listdir(taker.folder) == []
    assert taker.window.add("in all") == taker.window.add("of ann") == 0
    assert taker.send(b"x").status_code == 200


def test_nothing_is_given_back_in_a_later_hour(taker, clock, monkeypatch):
    def late(*_):
        clock.s += uploads.FILES_S
        raise OSError(28, "disk full")

    with monkeypatch.context() as patch:
        patch.setattr(uploads.shutil, "copyfileobj", late)
        assert taker.send(b"x" * 1000).status_code == 507
    assert taker.window.add("in all") == taker.window.add("of ann") == 0


def test_nothing_is_given_back_that_was_not_charged(taker, monkeypatch):
    def unwritable(*_, **__):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(uploads.Path, "mkdir", unwritable)
    assert taker.send(b"x" * 1000).status_code == 507
    assert taker.window.add("in all") == taker.window.add("of ann") == 0
