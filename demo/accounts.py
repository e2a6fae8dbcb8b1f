"""What belongs to which login, sessions, files and results, and how much of it may wait unread.

Gradio lets everyone who knows the name of a session, a result or a file use it.
"""

from functools import partial
from typing import Any

import gradio as gr
from gradio_client.utils import is_file_obj, traverse

from .ui.events import refused

KNOWN = 100_000  # sessions, and files, whose login is known, in all
UNREAD = 8  # calls of one page that wait, for the network or for being read
MESSAGES = 4 * UNREAD  # that belong to them
UNREAD_PAGES = 32  # pages that left results unread; those of the oldest are dropped first
NOT_YOURS = "That belongs to another login."


class Owned:
    """Names and their owners. At most `most`: the oldest goes, of the owner who has the most names."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[str, dict[str, None]] = {}  # of each owner, the oldest first

    def add(self, name: str, owner: str) -> None:
        """Give a name to an owner; it is the newest then."""
        names = self._names.setdefault(owner, {})
        names.pop(name, None)
        names[name] = None
        if sum(map(len, self._names.values())) > self._most:
            largest = max(self._names, key=lambda one: len(self._names[one]))
            del self._names[largest][next(iter(self._names[largest]))]
            if not self._names[largest]:
                del self._names[largest]

    def holds(self, name: str, owner: str) -> bool:
        """Return whether a name is this owner's."""
        return name in self._names.get(owner, {})

    def owner_of(self, name: str) -> str | None:
        """Return the first owner of a name; None if it has none."""
        return next((owner for owner, names in self._names.items() if name in names), None)


class Accounts:
    """Remembers owners. An owner is a login's name; without logins everything belongs to ""."""

    def __init__(self) -> None:
        self._sessions, self._files = Owned(KNOWN), Owned(KNOWN)

    def claim(self, session: str, owner: str) -> bool:
        """Return whether a session, or a result by its id, is this owner's; the first to ask is."""
        if not owner:
            return True
        holder = self._sessions.owner_of(session)
        if holder is None:
            self._sessions.add(session, owner)
        return holder in {None, owner}

    def allow(self, path: str, owner: str) -> None:
        """Let an owner use a file."""
        if owner:
            self._files.add(path, owner)

    def may_use(self, path: str, owner: str) -> bool:
        """Return whether an owner may use a file."""
        return not owner or self._files.holds(path, owner)

    def bind(self, page: gr.Blocks) -> None:
        """Check the owner, and what waits unread, at every call of the page's events."""
        queue, process = page._queue, page.process_api  # noqa: SLF001 - there is no other way in
        push = queue.push

        async def pushing(body: Any, username: str | None = None, **options: Any) -> Any:
            session, owner = body.session_hash, username or ""
            if body.fn_index not in page.fns:  # Gradio would log a traceback
                return False, "There is no event of that number.", "error"
            if session and not self.claim(session, owner):
                return False, NOT_YOURS, "error"
            if _waits(queue, session):
                return False, "Read the results that are waiting first.", "queue_full"
            # A program need not send what may be left out.
            body.data += [None] * (len(page.fns[body.fn_index].inputs) - len(body.data))
            done, event, state = await push(body=body, username=username, **options)
            if done:
                self.claim(str(event), owner)
            return done, event, state

        async def processing(**options: Any) -> Any:
            session, owner = options.get("session_hash"), options["request"].username or ""
            if session and not self.claim(session, owner):
                raise refused(NOT_YOURS)
            if owner:
                traverse(options["inputs"], partial(self._check, owner), is_file_obj)
            output = await process(**options)
            if owner:
                traverse(output["data"], lambda file: self.allow(file["path"], owner), is_file_obj)
            return output

        queue.push = pushing  # type: ignore[method-assign, assignment]
        page.process_api = processing  # type: ignore[method-assign, assignment]

    def _check(self, owner: str, file: Any) -> None:
        if not self.may_use(file["path"], owner):
            raise refused(NOT_YOURS)


def is_known(page: gr.Blocks, name: str) -> bool:
    """Return whether a session or a result can be read; Gradio would log a traceback if not."""
    queue = page._queue  # noqa: SLF001
    results = queue.pending_event_ids_session.values()
    return name in queue.pending_messages_per_session or any(name in ids for ids in results)


def _waits(queue: Any, session: str | None) -> bool:
    """Return whether too much of a page waits already; drop what older pages left unread."""
    messages, events = queue.pending_messages_per_session, queue.pending_event_ids_session
    alive = queue.event_ids_to_events.keys()
    left = [one for one, sent in messages.items() if sent.qsize() and not events[one] & alive]
    for one in left[:-UNREAD_PAGES]:
        del messages[one], events[one]
    if session not in messages:
        return False
    return len(events[session] & alive) >= UNREAD or messages[session].qsize() >= MESSAGES
