"""Open the images of strangers in processes of their own, within limits of memory and time.

Decoders do what a file tells them: some files ask for gigabytes or minutes. Here such a file costs
its sender an error, and no one else a pause. `python -m nbdt.images.apart` is the other side.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, Any, cast

from PIL import Image

from .image import ImageError, StrPath, open_image, refusal

MEMORY = 1 << 30  # bytes of address space of a process; Python and its libraries take a tenth
CPU_S = 4  # seconds of computing; 50 million pixels take less than two
DEADLINE_S = 20  # seconds by the clock, on a busy machine
MOST = 4  # processes, each started when all others are busy
_LONGEST_LINE = 1 << 16
_TURNS = threading.BoundedSemaphore(MOST)
_idle: list[_Process] = []


def open_apart(path: StrPath, *, name: str, max_pixels: int, max_side: int) -> Image.Image:
    """Open an image file as `open_image` does, in another process.

    Safe to call from many threads; a call waits while `MOST` others run.

    Raises ImageError: as `open_image`, or the limit of memory or time was reached.
    """
    with _TURNS:
        process = _living()
        try:
            answer, pixels = process.ask(
                path=os.fsdecode(path), name=name, max_pixels=max_pixels, max_side=max_side
            )
            image = None if "error" in answer else Image.frombytes("RGB", answer["size"], pixels)
        except (OSError, ValueError, KeyError, TypeError):  # it was killed, or it was taken over
            process.stop()
            expected = f"an image that opens within {CPU_S} seconds and {MEMORY >> 20} MB"
            remedy = "export it again as a JPEG or PNG of fewer pixels"
            raise refusal(name, expected, "one that takes more", remedy) from None
        _idle.append(process)
    if image is None:
        raise ImageError(str(answer["error"]))
    image.info |= answer["info"]
    return image


def _living() -> _Process:
    """Return a process that waits for a question."""
    while _idle:
        with contextlib.suppress(IndexError):  # another thread took it
            process = _idle.pop()
            if process.process.poll() is None:
                return process
            process.stop()
    return _Process()


class _Process:
    """One process, which answers one question after the other."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "nbdt.images.apart"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in a terminal is for the server
        )

    def ask(self, **question: Any) -> tuple[dict[str, Any], bytes]:
        """Return the answer and the pixels; raises whatever reading from a dead process raises."""
        asked, answers = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        timer = threading.Timer(DEADLINE_S, self.process.kill)
        timer.start()
        try:
            asked.write(json.dumps(question).encode() + b"\n")
            asked.flush()
            answer = json.loads(answers.readline(_LONGEST_LINE))
            width, height = answer.get("size", (0, 0))
            if not 0 <= width * height <= question["max_side"] ** 2:
                raise ValueError(answer)
            return answer, answers.read(width * height * 3)
        finally:
            timer.cancel()

    def stop(self) -> None:
        """End the process and wait for it, so that none is left."""
        self.process.kill()
        with contextlib.suppress(OSError):  # what was to be written
            self.process.communicate()


@atexit.register
def _stop_all() -> None:
    while _idle:
        _idle.pop().stop()


# ---- the other side ----------------------------------------------------------------------------


def _serve() -> None:
    """Answer questions from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints
    for line in sys.stdin.buffer:
        question = json.loads(line)
        _limit()
        try:
            image = open_image(question.pop("path"), **question)
            answer: dict[str, Any] = {"size": image.size, "info": image.info}
            pixels = image.tobytes()
        except ImageError as error:
            answer, pixels = {"error": str(error)}, b""
        if os.name == "posix":
            signal.alarm(0)
        answers.write(json.dumps(answer).encode() + b"\n" + pixels)
        answers.flush()


def _limit() -> None:
    """Let the system end this process if the next image takes more than it may."""
    if os.name == "posix":
        import resource

        signal.alarm(DEADLINE_S)  # if the server is gone and cannot do it
        spent, most = math.ceil(time.process_time()), resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_S, most))
        with contextlib.suppress(OSError, ValueError):  # macOS knows no limit of memory
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    _serve()
