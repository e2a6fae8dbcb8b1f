"""Serving the page: nothing leaves this machine, and nothing outside is asked."""

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

from .examples import examples
from .ui.component import styles
from .ui.theme import theme

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
    """Adds `HEADERS` to every response, and refuses what another web site makes a browser ask.

    Gradio lets every site use a page that is not on localhost, and sends its login there. Programs
    send no Origin and are not asked for one.

    Args:
        app: an ASGI application.
        host: the address that the server listens on.
        public: names that the page is reached by through a proxy that hides them.
    """

    def __init__(self, app: Any, host: str = "", public: Collection[str] = ()) -> None:
        self.app = app
        self.local = is_loopback(host)
        self.public = {name.lower() for name in public}

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """An ASGI application."""
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
        """Why a request is refused; "" if it is not."""
        asked, origin = _authority(f"//{headers.get('host', '')}"), headers.get("origin")
        remedy = "If that is how people reach this page, start it with --public-host"
        # A name of an attacker's that leads to this machine (DNS rebinding) would be same-origin.
        if self.local and asked and not (is_loopback(_name(asked)) or self._known(asked)):
            return (
                f"This page is for this machine alone, not for {asked!r}. {remedy} {_name(asked)}."
            )
        if origin is None:
            return ""
        sender = _authority(origin)
        if sender and (sender == asked or self._known(sender)):
            return ""
        return f"Another web site, {origin[:80]!r}, may not use this page. {remedy} and its name."

    def _known(self, authority: str) -> bool:
        return authority in self.public or _name(authority) in self.public


def is_loopback(name: str) -> bool:
    """Whether only this machine itself is reached by a name or an address."""
    plain = name.lower().strip("[]")
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return False


def _authority(url: str) -> str:
    """Host and port in lower case, without a port that goes without saying; "" if there is none."""
    authority = url.lower().partition("//")[2].partition("/")[0]
    return authority.removesuffix(":443" if url.startswith("https") else ":80")


def _name(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


def _same_site(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A cookie that other sites' requests do not carry: Gradio's login is one that they do."""
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
    """Serve the page; returns what Gradio's ``launch`` does.

    Args:
        page: from `build`.
        host: address to listen on.
        port: port to listen on.
        model: its name, for ``/health``.
        auth: names and passwords; without any, everybody who can reach the page may use it.
        public: names that the page is reached by through a proxy; see `SafeHeaders`.
        browser: open it in the default browser.
        block: return only when the server is stopped.

    Raises:
        NBDTError: the port is taken.
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
        # Gradio takes files of its own package, and of ours, for strangers' unless the server was
        # started in a folder above them; these files and no others may be shown.
        allowed_paths=[str(example.path) for example in examples().values()],
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
    """A call of an event that there is none is the caller's mistake; Gradio would log a traceback."""
    push = page._queue.push  # noqa: SLF001 - a request's number is not looked up anywhere else

    async def known(body: Any, *args: Any, **options: Any) -> Any:
        if body.fn_index is not None and body.fn_index not in page.fns:
            return False, "There is no event of that number.", "error"
        return await push(body, *args, **options)

    page._queue.push = known  # type: ignore[method-assign]  # noqa: SLF001


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
