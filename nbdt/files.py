"""Writing a file so that a reader sees the old content or the new, never a half."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` beside `path`, flush it to the disk, then rename it over `path`.

    Raises:
        OSError: the folder is missing, read-only or full; `path` is then as it was before.
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


def umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
