"""Keep freed memory in the process: for the commands, which compute large tensors again and again."""

import ctypes
import sys
from contextlib import suppress
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
SETTINGS = {MMAP_THRESHOLD: 1 << 30, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 64 << 20}  # bytes


def keep_memory() -> bool:
    """Tell glibc not to return large blocks to the system; return whether it will do so.

    By default it maps every activation of a network again, and the system clears each page: half of
    the processor time of a convolutional network. Other systems and libraries are left alone.
    """
    mallopt = _of_glibc("mallopt")
    return bool(mallopt) and all(mallopt(*setting) == 1 for setting in SETTINGS.items())


def return_memory() -> bool:
    """Return to the system what glibc keeps of freed memory; return whether there was any.

    For servers, now and then: their threads leave gaps that add up to a gigabyte. It takes some 50 ms.
    """
    trim = _of_glibc("malloc_trim")
    return bool(trim) and trim(0) == 1


def _of_glibc(name: str) -> Any:
    """Return a function of glibc's own, or None where there is another library."""
    if not sys.platform.startswith("linux"):
        return None
    with suppress(OSError):
        return getattr(ctypes.CDLL(None), name, None)  # musl has neither
    return None
