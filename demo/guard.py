"""What every request must pass before the page sees it: its host, route, login, size and pace."""

import asyncio
import ipaddress
import re
import time
from collections import Counter
from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from .accounts import NOT_YOURS, Accounts, is_known

MAX_BYTES = 20 << 20  # of an uploaded file
MAX_JSON = 5 << 20  # bytes of a call; a hierarchy that a visitor opens has 4 million characters
SILENCE_S = 20  # seconds between two parts of a body
BODY_S = 180  # seconds for a whole body
OPEN_AT_ONCE = 900  # requests; most systems let a process open 1,024 files
LOGIN_S, FAILED_LOGINS = 300, 20  # seconds, and wrong passwords from one address in that time

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
# Gradio has some 80 routes: recordings, streams, proxies, code assistants, cancelling by number.
# These are the ones that the page and `gradio_client` use.
_API = "/gradio_api"
_OPEN = re.compile(
    r"/(health|login|logout|favicon\.ico|manifest\.json|robots\.txt|theme\.css)?"
    rf"|/(assets|static|svelte)/.*|{_API}/(theme\.css|startup-events)"
)
_READ = re.compile(
    rf"/config/?|{_API}/(info/?|app_id|upload_progress|queue/data|file=.*|heartbeat/\w+"
    r"|call/\w+/\w+)",
    re.DOTALL,
)
_FILE = f"{_API}/file="
_OF_SESSION = re.compile(rf"{_API}/(heartbeat/|call/\w+/)(\w+)")
_SIZES = {
    "/login": 8 << 10,
    f"{_API}/upload": MAX_BYTES + (64 << 10),  # and what frames the file
    f"{_API}/queue/join": MAX_JSON,
}
_CALL = re.compile(rf"{_API}/(run|call)/\w+/?")
_CLOSE = (b"connection", b"close")
_FORWARDED = re.compile(rb"x-forwarded-.*|forwarded|x-real-ip|x-gradio-server")

Message = MutableMapping[str, Any]


class Window:
    """A sum for each key, which starts again in every period."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._period = seconds, 0
        self._sums: Counter[str] = Counter()

    def add(self, key: str, amount: int = 0) -> int:
        """Add to a key's sum; returns the sum."""
        if self._period != self.period:
            self._period, self._sums = self.period, Counter()
        self._sums[key] += amount
        return self._sums[key]

    @property
    def period(self) -> int:
        """Return the number of the period that it is now."""
        return int(time.monotonic() / self.seconds)


class SafeHeaders:
    """Middleware that adds `HEADERS` to every response and refuses requests of other web sites.

    Gradio lets every site use a page that is not on localhost, and sends its login there. Programs
    send no Origin header and do not need one. The server listens on `host`; `public` are names that the
    page is reached by through a proxy that hides them. Headers in which a proxy says who asks
    are dropped unless there is a proxy (`forwarded`), since visitors can send them too.
    """

    def __init__(
        self, app: Any, host: str = "", public: Collection[str] = (), *, forwarded: bool = False
    ) -> None:
        self.app = app
        self.local = is_loopback(host)
        self.public = {name.lower() for name in public}
        self.forwarded = forwarded or bool(public)

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

        scope["headers"] = [header for header in scope["headers"] if self._is_believed(*header)]
        problem = self._problem(Headers(scope=dict(scope)))
        answer = PlainTextResponse(problem, 403) if problem else self.app
        await answer(scope, receive, sending)

    def _is_believed(self, name: bytes, value: bytes) -> bool:
        if not _FORWARDED.fullmatch(name):
            return True
        if name == b"x-forwarded-host":
            return self._is_public(_authority(f"//{value.decode('latin-1')}"))
        return self.forwarded and name in {b"x-forwarded-proto", b"x-forwarded-for"}

    def _problem(self, headers: Headers) -> str:
        """Return why a request is refused; "" if it is not."""
        requested, origin = _authority(f"//{headers.get('host', '')}"), headers.get("origin")
        remedy = "If that is how people reach this page, start it with --public-host"
        # An attacker's name that resolves to this machine (DNS rebinding) would be same-origin.
        name = _name(requested)
        if self.local and requested and not (is_loopback(name) or self._is_public(requested)):
            return (
                f"This page is for this machine alone, not for {requested[:80]!r}. {remedy} "
                f"{name[:80]}."
            )
        if origin is None:
            return ""
        sender = _authority(origin)
        if sender and (sender == requested or self._is_public(sender)):
            return ""
        return f"Another web site, {origin[:80]!r}, may not use this page. {remedy} and its name."

    def _is_public(self, authority: str) -> bool:
        return authority in self.public or _name(authority) in self.public


class Guard:
    """Middleware that refuses, before their bodies are read, requests that the page has no use for."""

    def __init__(self, app: Any, accounts: Accounts, public_files: Collection[str] = ()) -> None:
        self.app = app
        self.accounts = accounts
        self.public_files = public_files
        self.open = 0  # requests that are being answered
        self.failed = Window(LOGIN_S)

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI defines it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        path, size = route(scope), allowed_bytes(scope)
        problem = self._problem(request, path, size)
        if problem:
            # What is left of the body is not read.
            answer = PlainTextResponse(problem[1], problem[0], {"connection": "close"})
            await answer(scope, receive, send)
            return

        body = Body(request, receive, size or 0)

        async def sending(message: Message) -> None:
            if path == "/login" and message.get("status") == 400:
                self.failed.add(address(request), 1)
            if message["type"] == "http.response.start" and body.is_unread:
                message["headers"] = [*message.get("headers", ()), _CLOSE]
            await send(message)

        self.open += 1
        try:
            await self.app(scope, body.receive, sending)
        finally:
            self.open -= 1

    def _problem(self, request: Request, path: str, size: int | None) -> tuple[int, str] | None:
        """Return the status and the reason with which a request is refused."""
        if size is None:
            return 404, "There is nothing here."
        if self.open >= OPEN_AT_ONCE:
            return 503, "Too many requests are open; try again in a minute."
        if path == "/login" and self.failed.add(address(request)) >= FAILED_LOGINS:
            return 429, f"Too many wrong passwords; try again in {LOGIN_S // 60} minutes."
        length = request.headers.get("content-length", "0")
        endless = not size and "transfer-encoding" in request.headers
        if endless or not length.isdecimal() or int(length[:20]) > size:
            return 413, too_large(size)
        return None if _OPEN.fullmatch(path) else self._not_theirs(request, path)

    def _not_theirs(self, request: Request, path: str) -> tuple[int, str] | None:
        """Refuse strangers, and what is another's: a file, a session's messages or a result."""
        owner = account(request)
        if owner is None:
            return 401, "Log in first."
        if path.startswith(_FILE):
            file = path.removeprefix(_FILE)
            theirs = file in self.public_files or self.accounts.may_use(file, owner)
            return None if theirs else (403, NOT_YOURS)
        kind, session = _session(request, path)
        if session and not self.accounts.claim(session, owner):
            return 403, NOT_YOURS
        if kind in {"queue", "call"} and not is_known(request.app.get_blocks(), session):
            return 404, "There are no results of that name."
        return None


def _session(request: Request, path: str) -> tuple[str, str]:
    """Return what a request reads, and the session or the result that it names; "" for others."""
    if named := _OF_SESSION.match(path):
        return named[1].partition("/")[0], named[2]
    session = request.query_params.get("session_hash", "")
    return "queue" if path == f"{_API}/queue/data" else "", session


def route(scope: Message) -> str:
    """Return the path of a request below the page's own, whether or not the proxy cut that off."""
    path, root = str(scope["path"]), urlsplit(scope.get("root_path", "")).path.rstrip("/")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def allowed_bytes(scope: Message) -> int | None:
    """Return the size that the body of a request may have; None if there is no such route."""
    path, method = route(scope), scope["method"]
    if method == "POST":
        return MAX_JSON if _CALL.fullmatch(path) else _SIZES.get(path.removesuffix("/"))
    known = _OPEN.fullmatch(path) or _READ.fullmatch(path)
    return 0 if method in {"GET", "HEAD", "OPTIONS"} and known else None


class Body:
    """The body of one request, which may be neither too large nor too slow."""

    def __init__(self, request: Request, receive: Any, size: int) -> None:
        self._receive = receive
        self._size = self._left = size
        self._ends = time.monotonic() + BODY_S
        headers = request.headers
        # If the page answers before it has read everything, the rest may never end.
        self.is_unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self._reading = True

    async def receive(self) -> Message:
        """Return the next message. Raises HTTPException where the body is too large or too slow."""
        if not self._reading:  # what comes now is the end of the connection
            return dict(await self._receive())
        patience = min(SILENCE_S, self._ends - time.monotonic())
        try:
            message = dict(await asyncio.wait_for(self._receive(), patience))
        except TimeoutError:
            raise HTTPException(408, "The request came too slowly.") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, too_large(self._size))
        self._reading = message.get("more_body", False)
        self.is_unread = self.is_unread and self._reading
        return message


def too_large(size: int) -> str:
    """Return the words that refuse a larger body."""
    return f"At most {size:,} bytes may be sent here." if size else "Send no data here."


def account(request: Request) -> str | None:
    """Return who is logged in: a name; "" where no login is asked for; None for a stranger."""
    app = request.app
    if app.auth is None:
        return ""
    kinds = "access-token", "access-token-unsecure"
    tokens = (request.cookies.get(f"{kind}-{app.cookie_id}") for kind in kinds)
    return next((app.tokens[token] for token in tokens if token in app.tokens), None)


def address(request: Request) -> str:
    """Return the network address that a request comes from; of IPv6 the network of one household."""
    host = request.client.host if request.client else ""
    return str(ipaddress.ip_network(f"{host}/64", strict=False)) if ":" in host else host


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
