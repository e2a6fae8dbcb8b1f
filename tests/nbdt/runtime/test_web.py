"""The page of `nbdt export --format web` in a browser that reaches nothing but its own server."""

import base64
import hashlib
import io
import sys
import tarfile
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from nbdt import NBDT, NBDTError
from nbdt.images.image import open_image
from nbdt.model.export import export
from nbdt.runtime.reader import GAP, TILE, Reader
from tests.browser import record
from tests.in_onnx import in_onnx, made

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[3]
CAT = ROOT / "demo" / "static" / "cat.jpg"
PACKAGE = "onnxruntime-web-1.30.0.tgz"
INTEGRITY = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
RUNTIME = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"


@pytest.fixture(scope="session")
def onnxruntime_web():
    """Two files of the npm package by name; the package stays beside the libraries of Python."""
    kept = Path(sys.prefix) / PACKAGE
    if not kept.exists():
        address = f"https://registry.npmjs.org/onnxruntime-web/-/{PACKAGE}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                data = answer.read()
        except (URLError, TimeoutError) as error:
            pytest.skip(f"{PACKAGE} is not here, and no npm registry answers: {error}")
        aside = kept.with_suffix(".part")
        aside.write_bytes(data)
        aside.replace(kept)
    data = kept.read_bytes()
    assert base64.b64encode(hashlib.sha512(data).digest()).decode() == INTEGRITY
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {name: archive.extractfile(f"package/dist/{name}").read() for name in RUNTIME}


@pytest.fixture(scope="module")
def page(cifar10, onnxruntime_web, tmp_path_factory):
    """A folder for the bundled model of ten classes, complete."""
    folder = tmp_path_factory.mktemp("web") / "cifar10"
    written = export(cifar10, folder, format="web", accuracy=0.95)
    assert written.path == folder
    for name, data in onnxruntime_web.items():
        (folder / name).write_bytes(data)
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args):
        pass


@pytest.fixture
def visit(browser):
    """Serve a folder, open its page, and check at the end that nothing else was asked for."""
    opened = []

    def go(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = browser.new_page()
        address = f"http://127.0.0.1:{server.server_port}/"
        opened.append((tab, record(tab), server, address))
        tab.route(lambda url: not url.startswith(address), lambda route: route.abort())
        tab.goto(address)
        return tab

    yield go
    for tab, seen, server, address in opened:
        tab.close()
        server.shutdown()
        server.server_close()
        assert seen.outside(address) == []
        assert seen.messages == []


READ = """async (photograph) => {
  const { Reader } = await import("./reader.js");
  const reader = await Reader.open("model");
  const found = await reader.read(await (await fetch(photograph)).blob());
  return { ...found, draw: null };
}"""


def in_browser(tab, folder, photograph):
    if photograph != folder / photograph.name:
        (folder / photograph.name).write_bytes(photograph.read_bytes())
    tab.wait_for_selector("input:enabled")
    return tab.evaluate(READ, photograph.name)


def assert_same(found, expected, near=0.03):
    """The browser's JPEG decoder and its canvas may differ from Pillow's by a level here and there."""
    assert found["className"] == expected.class_name
    assert found["probability"] == pytest.approx(expected.probability, abs=1e-2)
    assert [step["name"] for step in found["path"]] == [step.name for step in expected.path]
    assert [step["probability"] for step in found["path"]] == pytest.approx(
        [step.probability for step in expected.path], abs=1e-2
    )
    maps = np.array(found["maps"])
    assert maps.shape == expected.maps.shape
    assert np.abs(maps - expected.maps).max() < near * np.abs(expected.maps).max()


def test_a_visitor_sees_path_and_maps(page, visit, cifar10):
    tab = visit(page)
    tab.wait_for_selector("input:enabled")
    tab.set_input_files("input", CAT)
    tab.wait_for_selector("#tiles li")
    expected = Reader(page / "model.onnx")(CAT)
    tiles = tab.locator("#tiles li")
    assert tiles.count() == len(expected.path)
    for index, step in enumerate(expected.path):
        name, _, chance = tiles.nth(index).inner_text().strip().removesuffix(" %").rpartition(" ")
        assert name == step.name
        assert float(chance) == pytest.approx(100 * step.probability, abs=1)
    assert f"Answer: {expected.answer.name}" in tab.inner_text("#says")
    assert "In red" in tab.inner_text("#legend")
    seen = tab.evaluate("""() => [...document.querySelectorAll("canvas")].map((canvas) =>
        [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data])""")
    side = expected.picture.width
    for index, pixels in enumerate(seen):
        found = np.array(pixels).reshape(side, side, 4)[..., :3]
        left = index * (TILE + GAP)  # a small picture is enlarged there
        tile = expected.draw().crop((left, 0, left + TILE, TILE))
        drawn = np.asarray(tile.resize((side, side)))
        assert np.abs(found.astype(int) - drawn).mean() < 12  # it scales maps in its own way


def pictures(folder):
    """A photograph larger and smaller than the input, upright, turned, grey, and partly clear."""
    with Image.open(CAT) as cat:
        cat.crop((20, 0, 321, 433)).save(folder / "portrait.png")
        cat.resize((31, 17)).save(folder / "small.png")
        cat.resize((900, 40)).save(folder / "strip.png")
        cat.convert("L").save(folder / "grey.jpg")
        exif = cat.getexif()
        exif[0x0112] = 6
        cat.save(folder / "turned.jpg", exif=exif, quality=95)
        cat.putalpha(Image.linear_gradient("L").resize(cat.size))
        cat.save(folder / "clear.png")
    return ["portrait.png", "small.png", "strip.png", "grey.jpg", "turned.jpg", "clear.png"]


def test_any_photograph_is_read_as_in_python(page, visit):
    tab, reader = visit(page), Reader(page / "model.onnx")
    for name in pictures(page):
        assert_same(in_browser(tab, page, page / name), reader(page / name))


def test_int8_runs_in_the_browser(onnxruntime_web, visit, tmp_path):
    small = in_onnx(made("resnet18,size=64"), "int8")
    small.save(tmp_path / "small", dtype=torch.int8)
    folder = tmp_path / "page"
    export(NBDT.load(tmp_path / "small"), folder, format="web")
    for name, data in onnxruntime_web.items():
        (folder / name).write_bytes(data)
    found = in_browser(visit(folder), folder, CAT)
    # One level of int8 is more than one of the photograph.
    assert_same(found, Reader(folder / "model.onnx")(CAT), near=0.1)
    assert found["answer"] is None
    model = NBDT.load(tmp_path / "small")
    path = model.paths(model.preprocess(open_image(CAT))[None])[0]
    assert found["probability"] == pytest.approx(path.probability, abs=1e-2)


def test_a_broken_photograph_is_reported(page, visit, tmp_path):
    tab = visit(page)
    tab.wait_for_selector("input:enabled")
    (tmp_path / "broken.jpg").write_text("no photograph")
    tab.set_input_files("input", tmp_path / "broken.jpg")
    tab.wait_for_function("document.querySelector('#says').textContent.includes('cannot be read')")


@pytest.mark.parametrize("name", RUNTIME)
@pytest.mark.parametrize("change", ["missing", "other"])
def test_without_the_runtime_the_page_says_what_to_fetch(page, visit, tmp_path, name, change):
    folder = tmp_path / "page"
    folder.mkdir()
    for file in page.iterdir():
        data = file.read_bytes() + (b"\\n" if change == "other" and file.name == name else b"")
        if (change, file.name) != ("missing", name):
            (folder / file.name).write_bytes(data)
    tab = visit(folder)
    tab.wait_for_selector("#files:not([hidden])")
    assert "onnxruntime-web 1.30.0" in tab.inner_text("#files")
    assert tab.is_disabled("input")


def test_a_folder_that_exists_is_kept(cifar10, tmp_path):
    with pytest.raises(NBDTError, match="exists already"):
        export(cifar10, tmp_path, format="web")
    assert not [*tmp_path.iterdir()]
