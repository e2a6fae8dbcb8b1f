"""Commands keep freed memory; importing the library changes nothing."""

import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
PROGRAM = """
import sys, resource
import torch
{start}
for _ in range(20):
    torch.ones(16, 1 << 20).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(start):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(start=start)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(run.stdout)


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_memory_that_was_freed_is_used_again():
    before = faults("import nbdt")
    after = faults("from nbdt.allocator import keep_memory; print(keep_memory(), file=sys.stderr)")
    assert after < before - 100_000  # pages of 4 KiB, of 20 × 64 MiB


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_kept_memory_is_returned():
    program = """
from nbdt.allocator import keep_memory, return_memory
keep_memory()
blocks = [bytearray(b"1" * (1 << 20)) for _ in range(200)]
last = bytearray(1 << 20)  # above the gap
del blocks
def resident(): return int(open("/proc/self/statm").read().split()[1]) >> 8  # MiB
before = resident(); assert return_memory(); print(before - resident())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 150


def test_other_systems_are_left_alone(monkeypatch):
    from nbdt import allocator

    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_memory()
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_memory()
    assert not allocator.return_memory()
