"""The server of the page: it listens, adds security headers, and contacts no other host."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import nbdt
from nbdt.errors import NBDTError

from .photographs import examples
from .ui.component import styles, theme

MAX_BYTES = 20 * 2**20  # of an upload
VISITORS = 200  # states kept at once; the least recently used is dropped first
WAITING = 64  # requests in the queue; further ones are refused

# Gradio's front end builds its components from scripts inside the page, and reads templates with
# `Function`. A picture may be in the page's data. Everything else must come from this server.
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
    """Middleware that adds `HEADERS` to every response and refuses requests of other web sites.

    Gradio lets every site use a page that is not on localhost, and sends its login there. Programs
    send no Origin header and do not need one. The server listens on `host`; `public` are names that the
    page is reached by through a proxy that hides them.
    """

    def __init__(self, app: Any, host: str = "", public: Collection[str] = ()) -> None:
        self.app = app
        self.local = is_loopback(host)
        self.public = {name.lower() for name in public}

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI defines it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [_same_site(*header) for header in message.get("headers", [])]
                message["headers"] = [*headers, *HEADERS.items()]
            await send(message)

        problem = self._problem(Headers(scope=dict(scope)))
        answer = PlainTextResponse(problem, 403) if problem else self.app
        await answer(scope, receive, sending)

    def _problem(self, headers: Headers) -> str:
        """Return why a request is refused; "" if it is not."""
        requested, origin = _authority(f"//{headers.get('host', '')}"), headers.get("origin")
        remedy = "If that is how people reach this page, start it with --public-host"
        # An attacker's name that resolves to this machine (DNS rebinding) would be same-origin.
        if (
            self.local
            and requested
            and not (is_loopback(_name(requested)) or self._is_public(requested))
        ):
            return (
                f"This page is for this machine alone, not for {requested!r}. {remedy} "
                f"{_name(requested)}."
            )
        if origin is None:
            return ""
        sender = _authority(origin)
        if sender and (sender == requested or self._is_public(sender)):
            return ""
        return f"Another web site, {origin[:80]!r}, may not use this page. {remedy} and its name."

    def _is_public(self, authority: str) -> bool:
        return authority in self.public or _name(authority) in self.public


def is_loopback(name: str) -> bool:
    """Return whether a name or an address means this machine itself."""
    bare = name.lower().strip("[]")
    if bare == "localhost" or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def _authority(url: str) -> str:
    """Return host and port in lower case, without a default port; "" if there is no host."""
    authority = url.lower().partition("//")[2].partition("/")[0]
    return authority.removesuffix(":443" if url.startswith("https") else ":80")


def _name(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _same_site(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Restrict a cookie to this site: requests of other sites would carry Gradio's login."""
    if name.lower() == b"set-cookie":
        value = re.sub(rb"(?i)samesite=none", b"SameSite=lax", value)
    return name, value


def launch(
    page: gr.Blocks,
    host: str,
    port: int,
    *,
    model: str = "",
    auth: Sequence[tuple[str, str]] | None = None,
    public: Collection[str] = (),
    browser: bool = False,
    block: bool = True,
) -> Any:
    """Serve the page; return the result of Gradio's ``launch``.

    `model` is named by ``/health``. Without `auth`, names and passwords, everyone who can reach the
    page may use it; `public` names are as in `SafeHeaders`. `block` waits until the server stops.

    Raises NBDTError: the port is taken.
    """
    check_port(host, port)
    page.queue(max_size=WAITING, default_concurrency_limit=2)
    _refuse_unknown(page)
    return page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        auth=list(auth) if auth else None,
        share=False,
        show_error=False,
        # Gradio serves files of packages only if the server was started in a folder above them;
        # these files and no others may be served.
        allowed_paths=[str(path) for path in examples().values()],
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
            "routes": [_health(model)],
            "middleware": [Middleware(SafeHeaders, host=host, public=public)],
        },
        quiet=True,  # Gradio would suggest a public link
    )


def _refuse_unknown(page: gr.Blocks) -> None:
    """Refuse a call of an event that does not exist; Gradio would log a traceback."""
    push = page._queue.push  # noqa: SLF001 - a request's number is not looked up anywhere else

    async def checked(body: Any, *args: Any, **options: Any) -> Any:
        if body.fn_index is not None and body.fn_index not in page.fns:
            return False, "There is no event of that number.", "error"
        if body.fn_index is not None:  # a program need not send what may be left out
            body.data += [None] * (len(page.fns[body.fn_index].inputs) - len(body.data))
        return await push(body, *args, **options)

    page._queue.push = checked  # type: ignore[method-assign]  # noqa: SLF001


def _health(model: str) -> Route:
    async def health(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "model": model, "version": nbdt.__version__})

    return Route("/health", health)


def check_port(host: str, port: int) -> None:
    """Raise NBDTError, which names the next free port, if the server cannot listen there."""
    problem = _bind_error(host, port)
    if problem is None:
        return
    free = next(
        (p for p in range(port + 1, min(port + 101, 65536)) if not _bind_error(host, p)), None
    )
    remedy = f"Port {free} is free: --port {free}." if free else "Choose another with --port."
    raise NBDTError(f"Cannot listen on {host}, port {port}: {problem}. {remedy}")


def _bind_error(host: str, port: int) -> str | None:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        # As the server does: a port that was just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None
