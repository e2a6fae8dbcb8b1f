"""Serving the page: nothing leaves this machine, and nothing outside is asked."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping, Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import nbdt
from nbdt.errors import NBDTError

from .static_files import styles
from .theme import theme

MAX_BYTES = 20 * 2**20  # of an upload
VISITORS = 200  # whose state is kept at once; the one who did nothing for longest goes first
WAITING = 64  # requests in the queue; who comes then is told to come again

# Gradio's front end builds its components from scripts inside the page, and reads templates with
# `Function`. A picture may come with the page's data. Everything else comes from here or not at all.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' "
    "data:; connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}

Message = MutableMapping[str, Any]


class SafeHeaders:
    """Adds `HEADERS` to every response: a browser then refuses what the page should never ask."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """An ASGI application."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS.items()]
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


def launch(
    page: gr.Blocks,
    host: str,
    port: int,
    *,
    model: str = "",
    auth: Sequence[tuple[str, str]] | None = None,
    browser: bool = False,
    block: bool = True,
) -> Any:
    """Serve the page; returns what Gradio's ``launch`` does.

    Args:
        page: from `build`.
        host: address to listen on.
        port: port to listen on.
        model: its name, for ``/health``.
        auth: names and passwords; without any, everybody who can reach the page may use it.
        browser: open it in the default browser.
        block: return only when the server is stopped.

    Raises:
        NBDTError: the port is taken.
    """
    check_port(host, port)
    return page.queue(max_size=WAITING, default_concurrency_limit=2).launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        auth=list(auth) if auth else None,
        share=False,
        show_error=False,
        allowed_paths=[],
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
        app_kwargs={"routes": [_health(model)], "middleware": [Middleware(SafeHeaders)]},
        quiet=True,  # Gradio would suggest a public link
    )


def _health(model: str) -> Route:
    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": model, "version": nbdt.__version__})

    return Route("/health", health)


def check_port(host: str, port: int) -> None:
    """Raises NBDTError, with the next free port, if one cannot listen there."""
    problem = _problem(host, port)
    if problem is None:
        return
    free = next((p for p in range(port + 1, min(port + 101, 65536)) if not _problem(host, p)), None)
    remedy = f"Port {free} is free: --port {free}." if free else "Choose another with --port."
    raise NBDTError(f"Cannot listen on {host}, port {port}: {problem}. {remedy}")


def _problem(host: str, port: int) -> str | None:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        # As the server does: a port that was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None
