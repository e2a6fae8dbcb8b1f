"""What the tests need from outside, and what becomes of those whose need is not met.

Tests marked ``data`` need the shared data folder, those marked ``browser`` Chromium. Where that is
missing they are deselected and counted at the end of the run; with ``NBDT_REQUIRE=browser,data``
in the environment (as in CI) a missing one is an error instead.
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import hypothesis
import pytest
from PIL import Image

from nbdt.torchvision_cpu import import_torchvision
from tests.browser import FLAGS, record

DATA = Path(os.environ.get("NBDT_DATA") or Path(__file__).parents[2] / "shared" / "data")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
MISSING = {
    **({} if DATA.is_dir() else {"data": f"no folder {DATA} (set NBDT_DATA)"}),
    **({} if CHROMIUM else {"browser": "no chromium on PATH"}),
}

# A slow machine is no failure; a failing example is printed in a form that can be replayed.
hypothesis.settings.register_profile("nbdt", deadline=None, print_blob=True)
hypothesis.settings.load_profile("nbdt")

deselected = Counter()


def pytest_configure(config):
    required = set(filter(None, os.environ.get("NBDT_REQUIRE", "").split(",")))
    if unknown := required - {"browser", "data"}:
        raise pytest.UsageError(f"NBDT_REQUIRE names {sorted(unknown)}; it knows browser and data")
    if absent := sorted(required & MISSING.keys()):
        reasons = "; ".join(f"{name}: {MISSING[name]}" for name in absent)
        raise pytest.UsageError(f"NBDT_REQUIRE asks for what is not here: {reasons}")
    # Before anything loads torch, and inherited by worker processes: they share the cores.
    workers = config.getoption("numprocesses", None) or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, min(4, (os.cpu_count() or 1) // workers))))


def pytest_sessionstart(session):
    # Beside a CPU-only torch, timm and torchvision are importable only after this.
    controller = session.config.getoption("numprocesses", None) and not hasattr(
        session.config, "workerinput"
    )
    if not controller:
        import_torchvision()


def pytest_collection_modifyitems(config, items):
    kept = []
    for item in items:
        lacks = [name for name in MISSING if item.get_closest_marker(name)]
        if lacks:
            deselected[lacks[0]] += 1
            config.hook.pytest_deselected(items=[item])
        else:
            kept.append(item)
    items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = dict(deselected)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    # Each worker collects every test, so that any worker's count is the count.
    deselected.update(
        {
            name: count - deselected[name]
            for name, count in getattr(node, "workeroutput", {}).get("deselected", {}).items()
        }
    )


def pytest_terminal_summary(terminalreporter):
    for name, count in sorted(deselected.items()):
        terminalreporter.write_line(f"{count} {name} tests deselected: {MISSING[name]}")


@pytest.fixture(scope="session")
def data_dir():
    """The shared data folder; for tests marked ``data``."""
    return DATA


@pytest.fixture(scope="module")
def noise_folders(tmp_path_factory):
    """Makes three class folders of 16 pictures of noise each."""

    def make(size):
        root = tmp_path_factory.mktemp("photos")
        rng = random.Random(0)
        for name in ("ant", "bee", "cat"):
            (root / name).mkdir()
            for index in range(16):
                colours = [rng.randbytes(3) for _ in range(16)]
                image = Image.frombytes("RGB", (4, 4), b"".join(colours))
                image.resize(size).save(root / name / f"{index}.png")
        return root

    return make


@pytest.fixture(scope="session")
def chromium():
    """The path of a Chromium; for tests marked ``browser``."""
    return CHROMIUM


@pytest.fixture(scope="module")  # not longer: while it runs, no other event loop may
def browser(chromium):
    """A Chromium without network of its own; for tests marked ``browser``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        opened = tools.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_file(browser):
    """Open a page of a file offline; at the end it must have requested and reported nothing."""
    opened = []

    def go(path, width=1200, height=800, **options):
        size = {"width": width, "height": height}
        tab = browser.new_page(viewport=size, offline=True, **options)
        opened.append((tab, record(tab, console=True), path.as_uri()))
        tab.goto(path.as_uri())
        return tab

    yield go
    for tab, seen, address in opened:
        tab.close()
        assert seen.messages == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [address]


@pytest.fixture(scope="session")
def cifar10():
    """The bundled model of ten classes; tests must not change it."""
    from nbdt import NBDT

    return NBDT.load("cifar10")


@pytest.fixture(scope="session")
def imagenet():
    """The default model; tests must not change it."""
    from nbdt import NBDT

    return NBDT.load("imagenet")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep embeddings in a folder of this run; Matplotlib's fonts stay where they are."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
