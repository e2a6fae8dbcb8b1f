"""What uploads cost, whose they are, and what is kept of those that fail."""

import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from nbdt.demo import accounts, guard, uploads
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


def test_small_files_count_as_more(taker, monkeypatch):
    answer = taker.send(*[b"x"] * 20)
    assert answer.status_code == 200
    assert taker.window.add("of ann") == taker.window.add("in all") == 20 * uploads.LEAST
    monkeypatch.setattr(uploads, "OF_VISITOR", 30 * uploads.LEAST)
    assert taker.send(*[b"x"] * 20).status_code == 507
    assert len(os.listdir(taker.folder)) == 20
    assert taker.window.add("of ann") == 20 * uploads.LEAST
    assert taker.send(*[b"x"] * 9).status_code == 200
    assert taker.send(b"x" * 200_000, who="bob").status_code == 200
    assert 200_000 < taker.window.add("of bob") < 201_000  # a larger file costs what was sent


def test_nobody_makes_the_server_forget_what_belongs_to_others(monkeypatch):
    monkeypatch.setattr(accounts, "KNOWN", 10)
    known, path = accounts.Accounts(), "photograph"
    known.allow(path, "ann")
    assert known.claim("session", "ann")
    for number in range(100):
        known.allow(f"file-{number}", "bob")
        known.claim(f"session-{number}", "bob")
    assert known.may_use(path, "ann")
    assert not known.may_use(path, "bob")
    assert not known.claim("session", "bob")
    theirs = [number for number in range(100) if known.may_use(f"file-{number}", "bob")]
    assert theirs == [*range(91, 100)]  # the newest; ten in all with ann's


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=80))
def test_what_is_known_is_bounded_and_shared_evenly(added):
    names = accounts.Owned(most=6)
    for owner, name in added:
        names.add(str(name), owner)
        assert names.holds(str(name), owner)
    for owner in "abc":
        own = list(dict.fromkeys(str(name) for who, name in reversed(added) if who == owner))
        held = [name for name in own if names.holds(name, owner)]
        assert held == own[: len(held)]  # the newest
        assert len(held) >= min(len(own), 2)  # a third of six
