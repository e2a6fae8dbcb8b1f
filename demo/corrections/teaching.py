"""Teaching from the page: ``nbdt corrections apply`` as a process of its own, one at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from nbdt.errors import NBDTError
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..store.url import default_url
from .model_versions import ModelVersions

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TABLE = "┏┃┡│└├┌"
LINE = 200  # characters shown of a line


class Teaching:
    """What the page's button starts.

    Args:
        versions: whose store it is, and where new models are recorded.
        data: what the model was trained on, named by whoever runs the page.
    """

    def __init__(self, versions: ModelVersions, data: Path) -> None:
        self.versions = versions
        self.data = data
        self._busy = Lock()

    def run(self, model: NBDT) -> Iterator[str]:
        """What the process says, line by line.

        Raises:
            NBDTError: somebody else is teaching, or it failed: with its last line.
        """
        if not self._busy.acquire(blocking=False):
            raise NBDTError("The model is being taught already; look again in a while.")
        try:
            yield "Starting …"
            yield from self._lines(model)
        finally:
            self._busy.release()

    def _lines(self, model: NBDT) -> Iterator[str]:
        root = Path(default_url()).parent / "models"
        root.mkdir(parents=True, exist_ok=True)
        out = Path(tempfile.mkdtemp(prefix="corrected-", dir=root))
        source = self.versions.folder(model_hash(model))
        if source is None:  # the page's own, wherever it came from
            source = str(out / "parent")
            model.save(source)
        command = [
            sys.executable, "-m", "nbdt", "corrections", "apply", "--model", source,
            "--data", str(self.data), "--out", str(out),
        ]  # fmt: skip
        place = {
            "NBDT_STORE": self.versions.store.url
        }  # not where others see it: it has a password
        last = ""
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | place,
        ) as process:
            for line in process.stdout or ():
                if (plain := _ESCAPES.sub("", line).strip()) and plain[0] not in _TABLE:
                    last = plain[:LINE]
                    yield last
        if process.returncode:
            raise NBDTError(f"The model could not be taught: {last}")
