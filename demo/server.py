"""The server of the page: where it listens, and with which settings."""

import os
import re
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import nbdt
from nbdt.errors import NBDTError
from nbdt.tree.nodes import short

from .accounts import Accounts
from .guard import MAX_BYTES, Guard, SafeHeaders
from .photographs import examples
from .ui.component import styles, theme
from .uploads import Uploads, progress, sweeping

_BELIEVED = "FORWARDED_ALLOW_IPS"
_PROXIES = os.environ.get(_BELIEVED, "127.0.0.1,::1")
VISITORS = 200  # states kept at once; the least recently used is dropped first
WAITING = 64  # requests in the queue; further ones are refused


def launch(
    page: gr.Blocks,
    host: str,
    port: int,
    *,
    model: str = "",
    auth: Sequence[tuple[str, str]] | None = None,
    public: Collection[str] = (),
    root_path: str = "",
    browser: bool = False,
    block: bool = True,
) -> Any:
    """Serve the page; return the result of Gradio's ``launch``.

    `model` is named by ``/health``. Without `auth`, names and passwords, everyone who can reach the
    page may use it; `public` names are as in `SafeHeaders`. A proxy serves the page below the path, or
    at the address, `root_path`. `block` waits until the server stops.

    Raises NBDTError: the port is taken, or `root_path` is neither a path nor an address.
    """
    check_port(host, port)
    root_path, names = public_address(root_path)
    public = {*public, *names}
    page.queue(max_size=WAITING, default_concurrency_limit=2)
    page._queue.ANALYTICS_MAX_EVENTS = 1  # noqa: SLF001 - a table of them is made after every event
    accounts, shown = Accounts(), [str(path) for path in examples().values()]
    accounts.bind(page)
    # Uvicorn reads whose headers it believes when it starts: a proxy's on this machine, or no one's.
    os.environ[_BELIEVED] = _PROXIES if public or root_path else ""
    return page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        auth=list(auth) if auth else None,
        share=False,
        show_error=False,
        root_path=root_path,
        # Gradio serves files of packages only if the server was started in a folder above them;
        # these files and no others may be served.
        allowed_paths=shown,
        max_file_size=MAX_BYTES,
        strict_cors=True,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        state_session_capacity=VISITORS,
        prevent_thread_lock=not block,
        footer_links=["api"],
        theme=theme(),
        css_paths=styles(),
        app_kwargs={
            "routes": [
                _health(model),
                Route("/gradio_api/upload", Uploads(accounts).take, methods=["POST"]),
                Route("/gradio_api/upload_progress", progress),
            ],
            "lifespan": sweeping,
            "middleware": [
                Middleware(SafeHeaders, host, public, forwarded=bool(root_path)),
                Middleware(Guard, accounts, shown),
            ],
        },
        quiet=True,  # Gradio would suggest a public link
    )


def _health(model: str) -> Route:
    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": model, "version": nbdt.__version__})

    return Route("/health", health)


def public_address(root_path: str) -> tuple[str, list[str]]:
    """Return a path or an address without the last slash, and the name of its host, if any.

    Raises NBDTError: anything else.
    """
    found = re.fullmatch(r"(?:https?://([\w.\-]+(?::\d+)?))?((?:/[\w.~\-]+)*)/?", root_path)
    if not found:
        raise NBDTError(
            f"Expected a path such as /nbdt or an address such as https://example.org/nbdt, got "
            f"{short(root_path)}; give --root-path the one that people open."
        )
    return root_path.rstrip("/"), [found[1]] if found[1] else []


def check_port(host: str, port: int) -> int:
    """Return the port, or any free one for 0.

    Raises NBDTError, which names the next free port: the server cannot listen there.
    """
    try:
        return _listen(host, port)
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    remedy = "Choose another with --port."
    for free in range(port + 1, min(port + 101, 65536)):
        with suppress(OSError):
            remedy = f"Port {_listen(host, free)} is free: --port {free}."
            break
    raise NBDTError(f"Cannot listen on {host}, port {port}: {problem}. {remedy}")


def _listen(host: str, port: int) -> int:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        # As the server does: a port that was just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
