"""Who a visitor is, to a store: a hash of what only they can show."""

from __future__ import annotations

import hashlib
import re
import secrets

import gradio as gr

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def new_token() -> str:
    """256 random bits, which the visitor's browser keeps."""
    return secrets.token_urlsafe(32)


def is_token(text: object) -> bool:
    """Whether that may be one of ours."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def visitor_id(token: object, request: gr.Request | None) -> str:
    """The id under which a store keeps what this visitor says.

    With a login it is the account's, so that it is the same from every browser. Else it is that of
    the browser's token: a hash, so that nobody who reads the database can pass for a visitor. Of
    the address nothing is kept.
    """
    name = getattr(request, "username", None)
    if name:
        known = f"user:{name}"
    elif is_token(token):
        known = f"token:{token}"
    else:  # a program, or a browser that keeps nothing: as long as this page is open
        known = f"session:{getattr(request, 'session_hash', None) or new_token()}"
    return hashlib.sha256(known.encode()).hexdigest()
