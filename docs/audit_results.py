"""Runs the audit of audit.md and puts its tables and plots there.

``.venv/bin/python docs/audit_results.py``, with the options of `nbdt audit` if others are wanted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
DATA = Path(os.environ.get("NBDT_DATA") or HERE.parents[1] / "shared" / "data")
START, END = "<!-- results -->\n", "<!-- end of results -->"


def main(options: list[str]) -> None:
    """Audit the bundled model; options go to the command."""
    shown = " ".join(["nbdt audit cifar10 --data cifar10_test_lossless.tar.xz", *options])
    data = DATA / "cifar10_test_lossless.tar.xz"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "audit"
        command = ["audit", "cifar10", "--data", str(data), "--out", str(out), *options]
        start = time.monotonic()
        subprocess.run([sys.executable, "-m", "nbdt", *command], check=True)
        minutes = (time.monotonic() - start) / 60
        for name in ("curves", "checks"):
            shutil.copyfile(out / f"{name}.png", HERE / "img" / f"audit-{name}.png")
        found = (out / "tables.md").read_text(encoding="utf-8")
    page = HERE / "audit.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    took = f"`{shown}`, {minutes:.0f} minutes.\n\n"
    page.write_text(before + START + took + found + END + after, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
