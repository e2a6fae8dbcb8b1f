"""Work that goes on while a visitor reads the first answer.

One job runs at a time, and it pauses while anybody waits for a first answer. A visitor has at most one
job: a newer one ends the older.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

PAUSE_S = 2  # that first answers can hold up one forward pass

Pause = Callable[[], None]  # called before every forward pass in the background


class FirstAnswers:
    """Counts the first answers that are being computed, each inside ``with``."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def __enter__(self) -> None:
        self._add(1)

    def __exit__(self, *_: object) -> None:
        self._add(-1)

    def _add(self, number: int) -> None:
        with self._changed:
            self._count += number
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until there is none, at most so long."""
        with self._changed:
            self._changed.wait_for(lambda: not self._count, seconds)


FIRST_ANSWERS = FirstAnswers()  # of all pages of this process: they share the processor


class Superseded(Exception):  # noqa: N818 - not an error
    """Something newer is wanted: raised by a `Pause`."""


@dataclass(frozen=True, eq=False)
class Job:
    """Work for one visitor."""

    key: Hashable  # equal keys are the same work
    task: asyncio.Task[None]


@dataclass(frozen=True, eq=False)
class Background:
    """Runs the jobs of one page, from the event loop of its server."""

    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # first come, first served
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "background"))

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
            FIRST_ANSWERS.wait(PAUSE_S)
            if ended.is_set():
                raise Superseded

        def run() -> None:
            with suppress(Superseded):
                work(pause)

        async with self._turn:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, run)
            finally:
                ended.set()
