"""Work that goes on while a visitor reads the first answer.

One job runs at a time, and it pauses while anybody waits for a first answer. A visitor has at most one
job: a newer one ends the older.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple

PAUSE_S = 2  # that first answers can hold up one forward pass
Pause = Callable[[], None]  # called before every forward pass in the background

_first: list[None] = []  # an entry for each first answer that is being computed in this process


class Superseded(Exception):  # noqa: N818 - not an error
    """Something newer is wanted: raised by a `Pause`."""


class Job(NamedTuple):
    """Work for one visitor; equal keys are the same work."""

    key: Hashable
    task: asyncio.Task[None]


@contextmanager
def first_answer() -> Iterator[None]:
    """Let jobs pause while someone waits for what is computed inside."""
    _first.append(None)
    try:
        yield
    finally:
        _first.pop()


class Background:
    """Runs the jobs of one page, from the event loop of its server."""

    def __init__(self) -> None:
        self._turn, self._thread = asyncio.Lock(), ThreadPoolExecutor(1, "background")

    def job(self, old: Job | None, key: Hashable, work: Callable[[Pause], None]) -> Job:
        """Return a visitor's job: the old one if it still does this, else a new one in its place."""
        if old is not None and old.key == key and not old.task.done():
            return old
        if old is not None:
            old.task.cancel()
        return Job(key, asyncio.create_task(self._run(work)))

    async def _run(self, work: Callable[[Pause], None]) -> None:
        ended = threading.Event()

        def pause() -> None:
            latest = time.monotonic() + PAUSE_S
            while _first and time.monotonic() < latest:
                time.sleep(0.01)
            if ended.is_set():
                raise Superseded

        def run() -> None:
            with suppress(Superseded):
                work(pause)

        async with self._turn:  # first come, first served
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, run)
            finally:
                ended.set()
