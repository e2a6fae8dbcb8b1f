"""One visitor, then fifty at once: does the page stay quick, fair and bounded?

    python benchmarks/demo.py --minutes 2

Each visitor has a session. It uploads a photograph, waits for path and maps, clicks three nodes,
moves a class and takes that back, with a pause between, and repeats this. With ``--regions`` it asks
for tested regions after each photograph, as the page does, and goes on meanwhile. All requests are HTTP, as
a browser's. Times run from the request to the last byte of its answer. For the single visitor, who
comes first and does not pause, the table also has the server's processor time, user and system, of
all threads: the time that an idle machine would take with one core. Memory is the server's.
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
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from nbdt.demo.photographs import examples
from nbdt.hierarchies.library import DEFAULT_MODEL, open_model
from nbdt.torchvision_cpu import import_torchvision
from nbdt.tree.hierarchy import Hierarchy

EVENTS = {"photograph": "change", "click": "node_select", "edit": "tree_edit", "regions": "deepen"}
THINK = (1.0, 2.0)  # seconds
WARM = 5  # rounds of the single visitor that are not counted


@dataclass
class Record:
    """Measured times by action, and errors; all threads append to it.

    Attributes:
        pid: the server's, if its processor time is to be measured: only for a single visitor.
    """

    pid: int | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    processor: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)

    def time(self, action: str, do: Callable[[], None]) -> None:
        busy, started = self._processor(), time.perf_counter()
        do()
        self.seconds[action].append(time.perf_counter() - started)
        self.processor[action].append(self._processor() - busy)

    def _processor(self) -> float:
        """Seconds that the server's threads have run (Linux)."""
        times = Path(f"/proc/{self.pid}/task").glob("*/schedstat") if self.pid else []
        return sum(int(file.read_text().split()[0]) for file in times) / 1e9


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
            answer = _ask(f"{self.api}/run/predict", text).decode()
            if '\\"ok\\":false' in answer:
                raise RuntimeError(f"{action}: {answer[:300]}")
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


def visit(
    page: Page,
    tree: Hierarchy,
    photos: list[bytes],
    record: Record,
    *,
    until: float,
    seed: int,
    regions: bool,
) -> None:
    """Act as one visitor until the given time."""
    rng, session = random.Random(seed), uuid.uuid4().hex[:12]
    alone = record.pid is not None

    def pause() -> None:
        time.sleep(0 if alone else rng.uniform(*THINK))

    def send(action: str, name: str, event: Any) -> None:
        pause()
        record.time(action, lambda: page.call(name, session, {**event, "seq": 1}))

    time.sleep(0 if alone else rng.uniform(0, THINK[1]))
    while time.monotonic() < until:
        try:
            photo = rng.choice(photos)
            record.time(
                "photograph",
                lambda photo=photo: page.call("photograph", session, photo=page.upload(photo)),
            )
            if regions:
                asked = {"level": "default", "seq": 1}
                call = partial(page.call, "regions", session, asked)
                threading.Thread(target=record.time, args=("regions", call)).start()
            for node in rng.sample(tree.ids, 3):
                send("click", "click", {"id": node})
            send("edit", "edit", _move(tree, rng))
            send("undo", "edit", {"kind": "undo"})
        except (OSError, RuntimeError, ValueError) as error:
            record.errors.append(f"{type(error).__name__}: {error}")
        pause()


def _move(tree: Hierarchy, rng: random.Random) -> dict[str, Any]:
    """A class into another group."""
    leaf = rng.choice(tree.leaf_nodes)
    groups = [node for node in tree.inner_nodes if node not in {0, tree.parents[leaf]}]
    return {"kind": "move", "nodes": [tree.ids[leaf]], "to": tree.ids[rng.choice(groups)]}


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


def crowd(
    url: str, pid: int, tree: Hierarchy, visitors: int, seconds: float, *, regions: bool
) -> tuple[Record, list[float]]:
    """Run visitors at once; returns their times, and the server's memory every five seconds."""
    page, memory = Page(url), [megabytes(pid)]
    record = Record(pid if visitors == 1 else None)
    photos = [_jpeg(path) for path in examples().values()]
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=partial(visit, until=until, seed=seed, regions=regions),
            args=(page, tree, photos, record),
        )
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
        skipped = min(WARM * (3 if action == "click" else 1), len(values) // 2) if record.pid else 0
        times = [_quantiles(values[skipped:])]
        times += [_quantiles(record.processor[action][skipped:])] if record.pid else []
        shown = " | ".join(f"{middle:.0f} | {p95:.0f}" for middle, p95 in times)
        print(f"| {title} | {action} | {len(values) - skipped:,} | {shown} |")
    print(f"| {title} | errors | {len(record.errors)} | | |")
    print(f"| {title} | memory, MB: start, most, end | {memory[0]:.0f} | {max(memory):.0f} | "
          f"{memory[-1]:.0f} |", flush=True)  # fmt: skip
    for error in record.errors[:3]:
        print(f"error: {error}", file=sys.stderr)


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    """Milliseconds: the median and the 95th percentile."""
    times = sorted(1000 * value for value in seconds)
    return statistics.median(times), times[min(len(times) - 1, int(0.95 * len(times)))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--store", default="none")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--alone", type=float, default=30, help="seconds of the single visitor")
    parser.add_argument("--regions", action="store_true", help="test regions after photographs")
    options = parser.parse_args()
    import_torchvision()
    tree = open_model(options.model, None).hierarchy
    with served(options.model, options.store) as (url, pid):
        print("| visitors | action | count | median ms | p95 ms | processor: median ms | p95 ms |")
        print("|---|---|---|---|---|---|---|")
        measured = partial(crowd, url, pid, tree, regions=options.regions)
        report("1", *measured(1, options.alone))
        if options.visitors > 1:
            seconds = 60 * options.minutes
            report(str(options.visitors), *measured(options.visitors, seconds))


if __name__ == "__main__":
    main()
