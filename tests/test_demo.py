"""The page: its API through a client, and itself in a real browser."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

HOSTILE = Image.effect_noise((64, 64), 90).convert("RGB")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The command itself, as a user starts it, on a free port."""
    port = free_port()
    log = tmp_path_factory.mktemp("demo") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "nbdt", "demo", "--port", str(port)],
            stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        wait_until_open(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_until_open(port, process, log):
    for _ in range(180):
        if process.poll() is not None:
            pytest.fail(f"the demo stopped: {log.read_text()}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
        finally:
            connection.close()
    pytest.fail(f"the demo did not open: {log.read_text()}")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    HOSTILE.save(path)
    return path


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


def test_the_api_explains_why_it_refuses_a_file(page, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    bad = tmp_path / "photo.png"
    bad.write_text("<img src=x onerror=alert(1)>")
    client = Client(page, verbose=False)
    with pytest.raises(AppError, match="expected an image") as refusal:
        client.predict(handle_file(bad), api_name="/explain")
    assert "<img" not in str(refusal.value)


def test_only_explain_is_offered(page):
    from gradio_client import Client

    offered = Client(page, verbose=False).view_api(return_format="dict")["named_endpoints"]
    assert list(offered) == ["/explain"]
    assert len(offered["/explain"]["parameters"]) == 1


@pytest.mark.browser
def test_a_dropped_photograph_shows_class_path_and_maps(page, photo, chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        tab = browser.new_page()
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page)
        tab.wait_for_selector("text=The decision appears here", timeout=60_000)
        tab.set_input_files("input[type=file]", photo)
        tab.wait_for_selector(".nbdt-strip .answer", timeout=60_000)
        answer = tab.inner_text(".nbdt-strip .answer")
        trail = tab.inner_text(".nbdt-strip .trail")
        steps = trail.count("→")
        pictures = tab.eval_on_selector_all(
            ".nbdt-strip img", "images => images.map(i => i.naturalWidth)"
        )
        browser.close()
    assert answer in json.dumps(trail)
    assert len(pictures) == steps + 1
    assert all(width > 200 for width in pictures)
    outside = [url for url in asked if not url.startswith((page, "data:", "blob:"))]
    assert outside == []
