"""What the demo's tests share: one page of the session, and visitors in a browser."""

from contextlib import closing

import pytest

from nbdt.demo.store import Store
from tests.browser import record
from tests.demo.colours import saved_model
from tests.demo.pages import served


@pytest.fixture(scope="session")
def page(cifar10):
    """The address of the page of the ten classes, without a store."""
    with served(cifar10, model="cifar10") as address:
        yield address


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of `colours.saved_model`, which tests only read."""
    return saved_model(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def store(tmp_path):
    """A new store, in ``kept.sqlite``."""
    with closing(Store.open(str(tmp_path / "kept.sqlite"))) as opened:
        yield opened


@pytest.fixture
def visit(browser):
    """Open a page as a new visitor; at the end no script may have failed or asked another host."""
    tabs = []

    def open_page(url, *, theme="light", width=1440, height=1000, ready=".nbdt-example", **options):
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, **options)
        tab = context.new_page()
        tab.seen = record(tab)
        tabs.append((tab, url))
        tab.goto(f"{url}/?__theme={theme}")
        tab.wait_for_selector(ready)  # the page is alive now
        return tab

    yield open_page
    for tab, _ in tabs:
        tab.context.close()
    for tab, url in tabs:
        assert tab.seen.outside(url) == []
        assert tab.seen.messages == []
