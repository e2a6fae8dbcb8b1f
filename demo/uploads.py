"""Uploaded files: in a folder of our own, bounded by quotas, deleted by age whatever was sent."""

import asyncio
import atexit
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gradio_client.utils import strip_invalid_filename_characters
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from nbdt.allocator import return_memory

from .accounts import Accounts
from .guard import MAX_BYTES, Window, account, address, too_large

MAX_FILES = 20  # of one upload
LEAST = 64 << 10  # bytes that a file counts as, at least
PREFIX = "nbdt-demo-"  # of folders with uploaded files
FILES_S = 3600  # seconds that a file is kept
SWEEP_S = 60  # seconds between two looks for older ones
OF_VISITOR, IN_ALL = 1 << 30, 8 << 30  # bytes that are taken within `FILES_S`


def use_upload_folder() -> Path:
    """Let Gradio keep files in a new folder, which is removed when the process ends; return it.

    Every component reads the variable when it is made.
    """
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    atexit.register(partial(shutil.rmtree, folder, ignore_errors=True))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def sweep(known: Iterable[set[str]] = ()) -> None:
    """Delete what is older than `FILES_S` in this user's upload folders.

    That includes uploads that broke off, whatever Gradio wrote, and what killed servers left. Names of
    deleted files are also removed from the `known` sets, which Gradio keeps.
    """
    oldest = time.time() - FILES_S
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process removed it
            if folder.is_symlink() or (os.name == "posix" and folder.stat().st_uid != os.getuid()):
                continue
            for entry in folder.iterdir():
                with suppress(OSError):
                    if entry.lstat().st_mtime >= oldest:
                        continue
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink()
            if folder.stat().st_mtime < oldest:
                folder.rmdir()  # fails unless it is empty
    for names in known:
        names -= {name for name in [*names] if not os.path.exists(name)}


@asynccontextmanager
async def sweeping(app: Any) -> AsyncIterator[None]:
    """Sweep, and return freed memory to the system, as long as the server runs."""
    stop, known = threading.Event(), app.get_blocks().temp_file_sets

    def regularly() -> None:
        while not stop.wait(SWEEP_S):
            sweep(known)
            return_memory()

    threading.Thread(target=regularly, daemon=True).start()
    yield
    stop.set()


class Charge:
    """What one upload adds to the sum of its visitor and to that of all, until it is given back."""

    def __init__(self, taken: Window, visitor: str) -> None:
        self._taken, self._keys = taken, (f"of {visitor}", "in all")
        self._period, self._size = taken.period, 0

    def add(self, size: int) -> list[int]:
        """Add bytes; return the two sums."""
        self._size += size
        return [self._taken.add(key, size) for key in self._keys]

    def give_back(self) -> None:
        """Subtract what was added, unless the sums have started again since."""
        if self._period == self._taken.period:
            self.add(-self._size)


class Uploads:
    """Takes uploads in Gradio's place."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._taken = Window(FILES_S)

    async def take(self, request: Request) -> Response:
        """Keep files and return their paths, as Gradio does. An upload that fails leaves nothing."""
        owner, folder = account(request) or "", Path(request.app.uploaded_file_dir)
        charge = Charge(self._taken, owner or address(request))
        size = int(request.headers.get("content-length") or MAX_BYTES)
        paths, done = list[Path](), False
        try:
            if problem := _no_room(charge, size, folder):
                return PlainTextResponse(problem, 507, {"connection": "close"})
            async with request.form(max_files=MAX_FILES, max_fields=0) as form:
                sent = form.getlist("files")
                files = [file for file in sent if isinstance(file, UploadFile)]
                sizes = [file.size or 0 for file in files]
                more = sum(max(one, LEAST) for one in sizes) - size
                if refusal := _refused(sizes, len(sent)):
                    return refusal
                if more > 0 and (problem := _no_room(charge, more, folder)):
                    return PlainTextResponse(problem, 507)
                for file in files:
                    name = strip_invalid_filename_characters(Path(file.filename or "").name)
                    # a path that cannot be guessed
                    paths.append(folder / f"{secrets.token_hex(16)}-{name or 'photograph'}")
                    await asyncio.to_thread(_keep, file, paths[-1])
                done = True
        except ClientDisconnect:
            return Response(status_code=400)  # to no one
        except OSError as error:
            return PlainTextResponse(f"The file cannot be kept: {error.strerror}.", 507)
        finally:
            if not done:
                charge.give_back()
                for path in paths:
                    with suppress(OSError, ValueError):  # never made; a name that no file can have
                        path.unlink()
        for path in paths:
            self._accounts.allow(str(path), owner)
        return JSONResponse([*map(str, paths)])


def _refused(sizes: list[int], sent: int) -> Response | None:
    """Return the answer to files of these sizes, of all parts that were sent, that are not taken."""
    if not sizes or len(sizes) < sent:
        return PlainTextResponse("Send files, named 'files'.", 400)
    return PlainTextResponse(too_large(MAX_BYTES), 413) if sum(sizes) > MAX_BYTES else None


def _no_room(charge: Charge, size: int, folder: Path) -> str:
    """Take the size of an upload into account; return why there is no room for it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    of_visitor, in_all = charge.add(size)
    disk = shutil.disk_usage(folder)
    if of_visitor > OF_VISITOR:
        return f"You sent {OF_VISITOR:,} bytes within an hour; wait until some are deleted."
    if in_all > IN_ALL or disk.free < size + disk.total // 100:
        return "This server has no room for more photographs at the moment; try again later."
    return ""


def _keep(file: UploadFile, path: Path) -> None:
    with path.open("xb") as kept:
        shutil.copyfileobj(file.file, kept)


async def progress(_request: Request) -> Response:
    """Say that an upload is done: the page asks for its progress, which is not followed."""
    return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
