"""Write files and folders atomically, check our own files, and make file names."""

import hashlib
import json
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import NBDTError

LONGEST_STEM = 150  # bytes of a derived file name, before its endings

# What reading a damaged or malicious .npz can raise.
NPZ_ERRORS = (ValueError, OSError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile,
              zlib.error, lzma.LZMAError)  # fmt: skip


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` beside `path`, flush it to the disk, then rename it over `path`.

    Raises OSError: the folder is missing, read-only or full; `path` is then as it was before.
    """
    target = Path(path)
    content = data.encode() if isinstance(data, str) else data
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~umask())  # mkstemp's 0600 would surprise whoever shares the file
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_new(path: str | os.PathLike[str]) -> None:
    """Raise NBDTError if `path` exists; long work checks this before it starts."""
    if os.path.lexists(path):
        raise NBDTError(f"{os.fspath(path)!r} exists already; name a new folder.")


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder that becomes `path` when the block ends and is removed if the block fails.

    Raises:
        NBDTError: `path` exists.
        OSError: it cannot be made.
    """
    check_new(path)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield aside
        aside.chmod(0o777 & ~umask())
        for file in aside.iterdir():  # some writers make files that only their owner reads
            file.chmod((0o777 if file.is_dir() else 0o666) & ~umask())
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def locked(path: str | os.PathLike[str], who: str) -> Iterator[None]:
    """Hold a lock file inside the block, against all processes that can reach it.

    Raises NBDTError: at once, starting with `who`, if another process holds it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise NBDTError(f"{who} at the moment; wait for it, or name another folder.") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps it until the release
            os.unlink(path)
        lock.release()


def read_record(
    text: str | bytes,
    path: object,
    form: str,
    version: int | tuple[int, ...],
    error: type[NBDTError] = NBDTError,
) -> dict[str, Any]:
    """Return the JSON object that one of our files holds, if its format and version are right.

    Raises NBDTError: or `error`; no JSON, no object, another "format", or a version that this release
    does not read.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{str(path)!r} is not JSON ({type(problem).__name__}: {problem}).") from None
    if not isinstance(record, dict) or record.get("format") != form:
        raise error(f'{str(path)!r} is no JSON object with "format": "{form}".')
    known = version if isinstance(version, tuple) else (version,)
    if record.get("version") not in known:
        raise error(
            f"{str(path)!r} has {form} format version {record.get('version')!r:.20}; this release "
            f"reads version {' and '.join(map(str, known))}. Upgrade nbdt-vision, or make it again with this release."
        )
    return record


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_name(reference: str, taken: set[str], ending: str = "") -> str:
    """Return a new file name made from `reference`, with `ending` instead of its own.

    Characters that some system forbids become underscores. The name is added to `taken`, and
    numbered if it is there already in upper or lower case.
    """
    file = os.path.basename(reference) or "image"
    stem = file.rpartition(".")[0] or file
    stem = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in stem)
    stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
    name, count = f"{stem}{ending}", 1
    while name.casefold() in taken:
        count += 1
        name = f"{stem}-{count}{ending}"
    taken.add(name.casefold())
    return name


def umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
