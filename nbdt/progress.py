"""Progress of long work: callbacks that library functions take, bars on stderr, JSON lines."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeAlias, TypeVar

if TYPE_CHECKING:  # Rich is loaded only to draw
    from rich.progress import Progress as Bar
    from rich.status import Status

Item = TypeVar("Item")
Say: TypeAlias = Callable[[str], None]  # takes a message for people
INTERVAL = 0.2  # seconds between two lines of `JsonProgress` about the same work


class Progress(Protocol):
    """A callback that yields the items it is given and reports how many were taken.

    `no_progress` reports nothing; `tracked` draws a bar.
    """

    def __call__(self, items: Iterable[Item], count: int | None, what: str, /) -> Iterable[Item]:
        """Yield `items`; `count` is their number, None if unknown, and `what` a noun for them."""
        ...


def no_progress(items: Iterable[Item], _count: int | None, _what: str, /) -> Iterable[Item]:
    """Return `items` and report nothing."""
    return items


def say_nothing(_text: str) -> None:
    """Ignore a message."""


def progress(what: str) -> "Bar":
    """Return a bar on stderr with count, items per second and time left; it vanishes at the end."""
    from rich import progress as bars
    from rich.console import Console
    from rich.text import Text

    class Rate(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (
        bars.SpinnerColumn(), bars.TextColumn(what), bars.BarColumn(), bars.MofNCompleteColumn(),
        Rate(), bars.TimeElapsedColumn(), bars.TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    return bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def tracked(items: Iterable[Item], count: int | None, what: str = "images") -> Iterator[Item]:
    """Yield `items` while a bar shows the progress; `count` is None if unknown."""
    with progress(what) as bar:
        yield from bar.track(items, total=count)


def working(what: str) -> "Status":
    """Return a context in which a spinner on stderr says what is being done."""
    from rich.console import Console

    return Console(stderr=True).status(what)


def escape_terminal(text: str) -> str:
    """Return `text` without characters that control a terminal; use it for names from files."""
    return text if text.isprintable() else ascii(text)


def counted(number: int, noun: str) -> str:
    """Return ``"1 model"`` or ``"1,200 models"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# ---- between processes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ProgressEvent:
    """What a process reports to the one that started it, one JSON object a line.

    - ``{"event": "progress", "text": "training images", "done": 120, "count": 400}``;
    - ``{"event": "message", "text": …}`` and ``{"event": "error", "text": …}``, for people.
    """

    event: str  # "progress", "message" or "error"
    text: str  # a noun for the items, or the message
    done: int = 0  # how many items were taken
    count: int | None = None  # of how many; None if unknown

    def __str__(self) -> str:
        if self.event != "progress":
            return self.text
        return f"{self.text}: {self.done:,}" + (f" of {self.count:,}" if self.count else "")


class JsonProgress:
    """A `Progress` and a `Say` that write `ProgressEvent` lines to a stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, items: Iterable[Item], count: int | None, what: str, /) -> Iterator[Item]:
        """Yield `items`; write how many were taken, at most every `INTERVAL` seconds."""
        done, last = 0, -INTERVAL
        for item in items:
            if time.monotonic() - last >= INTERVAL:
                last = time.monotonic()
                self._write(ProgressEvent("progress", what, done, count))
            yield item
            done += 1
        self._write(ProgressEvent("progress", what, done, count))

    def say(self, text: str) -> None:
        """Write a message."""
        self._write(ProgressEvent("message", text))

    def fail(self, text: str) -> None:
        """Write the reason why the work ended."""
        self._write(ProgressEvent("error", text))

    def _write(self, event: ProgressEvent) -> None:
        self.stream.write(json.dumps(asdict(event)) + "\n")
        self.stream.flush()


def read_progress(lines: Iterable[str]) -> Iterator[ProgressEvent]:
    """Yield the events among `lines`; lines that another library wrote are skipped."""
    for line in lines:
        try:
            record: Any = json.loads(line)
            event = ProgressEvent(**record)
        except (ValueError, TypeError):
            continue
        if event.event in {"progress", "message", "error"} and isinstance(event.text, str):
            yield event
