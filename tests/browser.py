"""What tests of pages share: a free port, a server that answers, and what a tab asked and said."""

import http.client
import socket
import time
from dataclasses import dataclass, field

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SLOW = 60_000  # milliseconds: a slow machine is no failure


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_open(port, process, log, seconds=250):
    """Wait until a server process answers; fail with its log (a path) if it stops or stays silent."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server stopped: {log.read_text()}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
        finally:
            connection.close()
    pytest.fail(f"the server did not answer in {seconds} s: {log.read_text()}")


@dataclass
class Record:
    """What a tab requested, and the errors, dialogs and (if asked for) console lines it produced."""

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def outside(self, *own):
        """Requests for anything but inline data and addresses that start with one of `own`."""
        return [url for url in self.requests if not url.startswith((*own, "data:", "blob:"))]


def record(tab, console=False):
    """Start a `Record` of a tab; do it before the tab opens a page."""
    kept = Record()
    tab.set_default_timeout(SLOW)
    tab.on("request", lambda request: kept.requests.append(request.url))
    tab.on("pageerror", lambda error: kept.messages.append(str(error)))
    tab.on("dialog", lambda dialog: (kept.messages.append(dialog.message), dialog.dismiss()))
    if console:
        tab.on("console", lambda message: kept.messages.append(message.text))
    return kept
