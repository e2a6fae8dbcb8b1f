"""Fifty visitors at once: does the page stay quick, fair and bounded?

    python benchmarks/demo.py --minutes 2

Each visitor has a session. It uploads a photograph, waits for path and maps, clicks three nodes and
edits the hierarchy, with a pause of a second or two between, and repeats this. All requests are
HTTP, as a browser's. Times run from the request to the last byte of its answer while all visitors
are active; the first lines are for a single visitor. Memory is the server's.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from nbdt.demo.photographs import examples

EVENTS = {"photograph": "change", "click": "node_select", "edit": "tree_edit"}
THINK = (1.0, 2.0)  # seconds


@dataclass
class Record:
    """Measured times by action, and errors; all threads append to it."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)


class Page:
    """A running page, used as a browser uses it."""

    def __init__(self, url: str) -> None:
        self.api = f"{url}/gradio_api"
        config = json.loads(_ask(f"{url}/config"))
        self.calls = {
            action: next(d for d in config["dependencies"] if d["targets"][0][1] == event)
            for action, event in EVENTS.items()
        }

    def upload(self, content: bytes) -> dict[str, Any]:
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="p.jpg"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        kind = f"multipart/form-data; boundary={mark}"
        (path,) = json.loads(_ask(f"{self.api}/upload", body, kind))
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def call(self, action: str, session: str, event: Any = None, **values: Any) -> None:
        """Send one event and read its whole answer. Raises RuntimeError if the page refuses it."""
        call = self.calls[action]
        data = [values.get("photo")] * len(call["inputs"])
        body = {
            "data": data, "fn_index": call["id"], "session_hash": session, "event_data": event,
            "trigger_id": call["targets"][0][0],
        }  # fmt: skip
        text = json.dumps(body).encode()
        if call.get("queue") is False:
            _ask(f"{self.api}/run/predict", text)
            return
        _ask(f"{self.api}/queue/join", text)
        answer = _ask(f"{self.api}/queue/data?session_hash={session}").decode()
        last = json.loads(answer.rpartition("data: ")[2])
        completed = [line for line in answer.splitlines() if "process_completed" in line]
        if not completed or '"success":true' not in completed[-1].replace(" ", ""):
            raise RuntimeError(f"{action}: {str(completed or last)[:200]}")


def _ask(url: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    request = urllib.request.Request(url, body, {"content-type": kind})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return bytes(answer.read())


def visit(page: Page, photos: list[bytes], record: Record, until: float, seed: int) -> None:
    """Act as one visitor until the given time."""
    rng, session = random.Random(seed), uuid.uuid4().hex[:12]
    time.sleep(rng.uniform(0, THINK[1]))
    while time.monotonic() < until:
        try:
            _timed(record, "photograph", lambda: _show(page, session, rng.choice(photos)))
            for node in rng.sample(["cat", "dog", "bird", "truck", "ship"], 3):
                time.sleep(rng.uniform(*THINK))
                event = {"id": node, "seq": 1}
                _timed(record, "click", lambda event=event: page.call("click", session, event))
            change = {"kind": "move", "nodes": ["frog"], "to": "mammal", "name": None, "seq": 1}
            time.sleep(rng.uniform(*THINK))
            _timed(record, "edit", lambda change=change: page.call("edit", session, change))
        except (OSError, RuntimeError, ValueError) as error:
            record.errors.append(f"{type(error).__name__}: {error}")
        time.sleep(rng.uniform(*THINK))


def _show(page: Page, session: str, content: bytes) -> None:
    page.call("photograph", session, photo=page.upload(content))


def _timed(record: Record, action: str, do: Callable[[], None]) -> None:
    started = time.perf_counter()
    do()
    record.seconds[action].append(time.perf_counter() - started)


@contextmanager
def served(model: str, store: str) -> Iterator[tuple[str, int]]:
    """Run the page in another process; yields its address and process id."""
    command = [sys.executable, "-m", "nbdt", "demo", "--model", model, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--store", store], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "http://" in line)
        url = next(word for word in line.split() if word.startswith("http://")).rstrip("/")
        for _ in range(120):
            try:
                _ask(f"{url}/health")
                break
            except OSError:
                time.sleep(0.5)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def megabytes(pid: int) -> float:
    """Return the resident memory of a process (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def crowd(url: str, pid: int, visitors: int, seconds: float) -> tuple[Record, list[float]]:
    """Run visitors at once; returns their times, and the server's memory every five seconds."""
    page, record, memory = Page(url), Record(), [megabytes(pid)]
    photos = [_jpeg(path) for path in examples().values()]
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=visit, args=(page, photos, record, until, seed))
        for seed in range(visitors)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(5)
        memory.append(megabytes(pid))
    return record, memory


def _jpeg(path: Any) -> bytes:
    stream = io.BytesIO()
    Image.open(path).convert("RGB").save(stream, "JPEG", quality=90)
    return stream.getvalue()


def report(title: str, record: Record, memory: list[float]) -> None:
    for action, values in sorted(record.seconds.items()):
        times = sorted(1000 * value for value in values)
        p95 = times[min(len(times) - 1, int(0.95 * len(times)))]
        print(
            f"| {title} | {action} | {len(times):,} | {statistics.median(times):.0f} | {p95:.0f} |"
        )
    print(f"| {title} | errors | {len(record.errors)} | | |")
    print(f"| {title} | memory, MB: start, most, end | {memory[0]:.0f} | {max(memory):.0f} | "
          f"{memory[-1]:.0f} |", flush=True)  # fmt: skip
    for error in record.errors[:3]:
        print(f"error: {error}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--store", default="none")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=2)
    options = parser.parse_args()
    with served(options.model, options.store) as (url, pid):
        print("| visitors | action | count | median ms | p95 ms |\n|---|---|---|---|---|")
        report("1", *crowd(url, pid, 1, 20))
        report(str(options.visitors), *crowd(url, pid, options.visitors, 60 * options.minutes))


if __name__ == "__main__":
    main()
