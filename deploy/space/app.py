# ruff: noqa: INP001 - a script that is alone in its Space
"""The page as a Hugging Face Space: `nbdt demo`, where Spaces expect it.

Variables of the Space: NBDT_MODEL, what `nbdt demo --model` takes; NBDT_USER, who may use the page,
with the secret NBDT_DEMO_PASSWORD. Gradio's own variables set host and port.
"""

from __future__ import annotations

import os
import sys

from nbdt.__main__ import main

KEPT = "/data"  # the persistent storage of a Space that has some


def arguments() -> list[str]:
    """Return the command line."""
    host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0")  # noqa: S104 - a Space is public
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    store = f"{KEPT}/corrections.sqlite" if os.access(KEPT, os.W_OK) else "none"
    words = ["demo", "--host", host, "--port", port, "--store", store]
    for option, name in (("--model", "NBDT_MODEL"), ("--auth", "NBDT_USER")):
        if value := os.environ.get(name):
            words += [option, value]
    return words


if __name__ == "__main__":
    sys.argv[1:] = arguments()
    main()
