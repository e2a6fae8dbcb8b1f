"""How long `nbdt --help` and `import nbdt` take in a fresh process, against a bare interpreter.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import nbdt": [sys.executable, "-c", "import nbdt"],
    "nbdt --help": [sys.executable, "-m", "nbdt", "--help"],
    "from nbdt import NBDT": [sys.executable, "-c", "from nbdt import NBDT"],
}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    print("| process | seconds |\n|---|---|")
    for name, command in COMMANDS.items():
        print(f"| {name} | {min(seconds(command) for _ in range(5)):.2f} |")
