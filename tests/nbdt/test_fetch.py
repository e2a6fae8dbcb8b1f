"""Fetching pretrained weights, from a server that speaks as the hub does."""

import hashlib
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from nbdt import NBDTError
from nbdt.hierarchies import from_classifier, load
from nbdt.network.fetch import CHUNK
from nbdt.network.load import create_timm

NAME = "test_resnet.r160_in1k"
PAGE = b"<html><body>Please log in to this hotel's network.</body></html>" * 40
PHOTO = Path(__file__).parents[2] / "demo" / "static" / "cat.jpg"


class Stand:
    """One repository with one file; requests for it are noted."""

    def __init__(self, data):
        self.announced = self.served = data
        self.commit = "c" * 40
        self.until = None  # bytes after which every answer breaks off
        self.asked = []

    def announce(self, data):
        self.announced = self.served = data
        self.commit = hashlib.sha1(data).hexdigest()

    def answer(self, request):
        start = int((re.search(r"\d+", request.headers.get("Range", "")) or ["0"])[0])
        if not request.path.endswith(f"/timm/{NAME}/resolve/main/model.safetensors"):
            return request.send_error(404)
        self.asked.append((request.command, start))
        portal = self.announced == PAGE
        if request.command == "GET" and self.until is not None and start >= self.until:
            return request.send_error(503)
        body = self.announced if request.command == "HEAD" else self.served[start:]
        request.send_response(206 if start else 200)
        if not portal:
            digest = hashlib.sha256(self.announced).hexdigest()
            for name in ("ETag", "X-Linked-ETag"):
                request.send_header(name, f'"{digest}"')
            request.send_header("X-Repo-Commit", self.commit)
            request.send_header("X-Linked-Size", str(len(self.announced)))
        if start:
            request.send_header(
                "Content-Range", f"bytes {start}-{len(self.served) - 1}/{len(self.served)}"
            )
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            stop = len(body) if self.until is None else self.until - start
            request.wfile.write(body[:stop])
        return None


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    torch.manual_seed(3)
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(create_timm("test_resnet", 1000).state_dict(), file)
    return file


@pytest.fixture
def hub(weights, monkeypatch, tmp_path):
    stand = Stand(weights.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            stand.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stand.address = f"http://127.0.0.1:{server.server_port}"
    stand.cache = tmp_path / "hub"
    template = stand.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", stand.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(stand.cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("nbdt.network.fetch.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    yield stand
    server.shutdown()
    server.server_close()


def fetched():
    return create_timm(NAME, None, pretrained=True)


def check(network, weights):
    expected = load_file(weights)
    state = network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def gets(hub):
    return [start for command, start in hub.asked if command == "GET"]


def test_weights_are_fetched_once_and_kept(hub, weights, monkeypatch):
    check(fetched(), weights)
    assert gets(hub) == [0]
    check(fetched(), weights)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing answers there
    check(fetched(), weights)
    assert gets(hub) == [0]
    assert constants.HF_HUB_OFFLINE is False


def test_a_fetch_that_broke_off_goes_on_from_there(hub, weights):
    kept = 3 * CHUNK
    hub.until = kept + 1000
    with pytest.raises(NBDTError, match=rf"{NAME} broke off after {kept / 1e6:.1f} of .* MB"):
        fetched()
    hub.until, hub.asked = None, []
    check(fetched(), weights)
    assert gets(hub) == [kept]
    assert not list(hub.cache.rglob("*.incomplete"))


@pytest.mark.parametrize("change", [b"a changed byte", b""])
def test_a_file_that_was_not_announced_is_refused_and_fetched_again(hub, weights, change):
    good = hub.served
    hub.served = good[:-20] + change.ljust(20 if change else 0, b".")
    with pytest.raises(NBDTError, match="not the file that the hub announced" if change else "off"):
        fetched()
    hub.served = good
    check(fetched(), weights)


def test_the_login_page_of_a_network_is_refused(hub, weights):
    good = hub.served
    hub.served = PAGE  # it comes between the announcement and the file
    with pytest.raises(NBDTError, match=f"came for timm/{NAME} .* login page"):
        fetched()
    assert not list(hub.cache.rglob("*.incomplete"))
    hub.announced = PAGE
    with pytest.raises(NBDTError, match="is not the Hugging Face hub; perhaps it is the login"):
        fetched()
    hub.announced = hub.served = good
    check(fetched(), weights)
    hub.announced = PAGE  # what is in the cache is used
    check(fetched(), weights)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: PAGE])
def test_a_damaged_file_of_the_cache_is_refused_and_fetched_again(hub, weights, damage):
    fetched()
    (file,) = hub.cache.rglob("model.safetensors")
    file.resolve().write_bytes(damage(file.read_bytes()))
    with pytest.raises(NBDTError, match=f"{file}.* was deleted.*fetches it again"):
        fetched()
    check(fetched(), weights)


def test_what_does_not_fit_the_network_is_named(hub, weights, tmp_path):
    state = load_file(weights)
    state["conv1.0.weight"] = torch.zeros(7)
    save_file(state, tmp_path / "other.safetensors")
    for data in (PAGE[:-1], (tmp_path / "other.safetensors").read_bytes()):
        hub.announce(data)
        with pytest.raises(
            NBDTError, match=rf"{hub.cache}(?s:.*)do not fit the network(?s:.*) Delete"
        ):
            fetched()


def test_a_file_of_another_name_is_left_to_timm(hub):
    with pytest.raises(NBDTError, match="'test_vit.r160_in1k' could not be fetched"):
        create_timm("test_vit.r160_in1k", None, pretrained=True)


def test_imagenet_classifiers_have_the_tree_that_people_can_read(hub):
    model = from_classifier(f"timm:{NAME}")
    assert model.hierarchy == load("imagenet1k-readable")
    assert model.rule == "marginal"
    own = from_classifier(f"timm:{NAME}", rule="representative").hierarchy
    assert own != model.hierarchy
    assert own.classes == model.hierarchy.classes


def test_the_first_command_shows_what_is_fetched(hub, tmp_path):
    """In a terminal: name, share and size."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    command = [sys.executable, "-m", "nbdt", "explain", str(PHOTO), "--model", f"timm:{NAME}"]
    run = subprocess.run(
        [*command, "--out", str(tmp_path)],
        env={**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE, stderr=follower, text=True, check=False, timeout=120,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the end of a terminal, on Linux
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert run.returncode == 0, shown
    assert re.search(rf"{NAME}: 100%.*\d\.\d+M/\d\.\d+MB?".encode(), shown), shown
    assert (tmp_path / "cat.nbdt.png").exists()
    assert list((tmp_path / "home").rglob("model.safetensors"))
