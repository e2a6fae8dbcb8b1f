"""Keep freed memory in the process: for the commands, which compute large tensors again and again."""

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
SETTINGS = {MMAP_THRESHOLD: 1 << 30, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 64 << 20}  # bytes


def keep_memory() -> bool:
    """Tell glibc not to return large blocks to the system; return whether it will do so.

    By default it maps every activation of a network again, and the system clears each page: half of
    the processor time of a convolutional network. Other systems and libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    return all(mallopt(setting, value) == 1 for setting, value in SETTINGS.items())
