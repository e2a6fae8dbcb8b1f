"""What tests of the page share: a server in this process, and one in a process of its own."""

import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from nbdt.demo.app import build
from nbdt.demo.server import launch
from tests.browser import free_port, wait_until_open

SERVED = [  # marks of tests with a server, which is as quick as the machine
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings(  # pandas 3, in Gradio
        "ignore:.*no_silent_downcasting", "ignore:The copy keyword is deprecated"
    ),
]
CAT = Path(__file__).parents[2] / "demo" / "static" / "cat.jpg"
HOSTILE = "<img src=x onerror=alert(1)> ${alert(2)} {{constructor}}"


@contextmanager
def served(model, /, store=None, index=None, port=None, page=None, **options):
    """The address of the page, or of what `page` returns, served from this process.

    Gradio makes an event loop for every lock and closes none of them; memory that is collected
    later, in any test, would warn of it.
    """
    loops, make = [], asyncio.new_event_loop

    def remembered():
        loops.append(make())
        return loops[-1]

    port, uploads = port or free_port(), os.environ.get("GRADIO_TEMP_DIR")
    with patch.object(asyncio, "new_event_loop", remembered):
        blocks = page(model) if page else build(model, store=store, index=index)
        launch(blocks, "127.0.0.1", port, block=False, **options)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        blocks.close(verbose=False)
        asyncio.set_event_loop(None)
        for loop in loops:
            loop.close()
        if uploads is not None:  # of another page that is still served
            os.environ["GRADIO_TEMP_DIR"] = uploads


@contextmanager
def running(folder, *options, port=None, cwd=None, **environment):
    """``nbdt demo`` in a process of its own: its address, process and log."""
    port, log = port or free_port(), folder / f"log-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "nbdt", "demo", "--port", str(port), *map(str, options)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
    try:
        wait_until_open(port, process, log)
        yield f"http://127.0.0.1:{port}", process, log
    finally:
        process.kill()
        process.wait(30)
