"""Correcting a decision: the form, what the visitor said so far, and the models that learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import gradio as gr

from nbdt.errors import NBDTError
from nbdt.explain import EvidenceIndex
from nbdt.model.model import NBDT

from ..store import Store
from ..store.learning import evidence_hash
from ..store.place import StoreError
from ..ui.part import dump
from ..ui.stage import Stage
from ..visitor import Visitor
from .api import correction_api
from .evidence_marks import own_view
from .form import correction_part as correction_part  # noqa: PLC0414 - a part of the panel
from .form import draw_form, evidence_record, form_props
from .history import compared_record, history_part, history_record
from .identity import is_token, new_token, visitor_id
from .model_versions import ModelVersions
from .saving import save_once
from .statement import stated
from .teaching import Teaching

OFF = (
    '<p class="nbdt-correct-lead">Corrections are not kept on this page. Whoever runs it can turn '
    "them on: <code>nbdt demo --store FILE</code></p>"
)

KEY = "nbdt-visitor"  # of the token in the browser's storage
QUICK: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "trigger_mode": "multiple",
    "api_visibility": "private",
}


def correction_panel(stage: Stage, form: gr.HTML, model: NBDT) -> None:
    """Lay out and wire the panel; without a store, one line that says how to turn it on.

    Args:
        stage: the page. With its `apply_data` everybody who reaches the page may have the model
            taught, or, with a login, everybody who is logged in.
        form: of `correction_part`.
        model: what the page was opened with.
    """
    if stage.store is None:
        form.visible = False  # it is a part of the stage all the same
        cast(Any, form).render()
        gr.HTML(OFF, html_template=OFF, js_on_load=None, apply_default_css=False)
        return
    cast(Any, form).render()
    history = history_part()
    # The secret hides nothing here: it keeps the token readable after the server was restarted.
    token = gr.BrowserState("", storage_key=KEY, secret=KEY)
    index = stage.visitor.value.index
    desk = Desk(stage, stage.store, form, history, ModelVersions(model, stage.store), index)
    who = [stage.visitor, token]
    stage.page.load(desk.arrive, who, [stage.visitor, token, history], **QUICK)
    form.say(desk.say, who, [stage.visitor, form, history], **QUICK)
    form.evidence_wanted(desk.evidence, who, form, **QUICK)
    form.mark(desk.mark, who, [stage.visitor, *stage.shown, history], **QUICK)
    history.withdraw(desk.withdraw, who, [stage.visitor, history], **QUICK)
    history.good_again(desk.good_again, who, [stage.visitor, *stage.shown, history], **QUICK)
    history.look(desk.look, who, [stage.visitor, history], **QUICK)
    history.choose(
        desk.choose, who, [stage.visitor, *stage.shown, history],
        show_progress="minimal", api_visibility="private", concurrency_id="network",
    )  # fmt: skip
    if stage.apply_data is not None:
        teaching = Teaching(desk.versions, stage.apply_data)
        history.teach(
            desk.teach(teaching), who, [stage.visitor, history], show_progress="hidden",
            api_visibility="private", concurrency_limit=1,
        )  # fmt: skip
    correction_api(model, stage.store)


@dataclass(frozen=True, eq=False)
class Desk:
    """The panel's parts, and what happens when somebody uses them. Payloads are hostile."""

    stage: Stage
    store: Store
    form: gr.HTML
    history: gr.HTML
    versions: ModelVersions
    index: EvidenceIndex | None

    def arrive(self, visitor: Visitor, token: object, request: gr.Request) -> tuple[Any, ...]:
        """The page was opened: know the visitor again, or give the browser a token."""
        kept = token if is_token(token) else new_token()
        self._know(visitor, kept, request)
        return visitor, kept, self._said(visitor)

    def say(
        self, visitor: Visitor, token: object, request: gr.Request, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Keep a correction; the answer names its number only once it is on the disk."""
        payload = _payload(event)
        try:
            self._know(visitor, token, request)
            photo = visitor.photo
            if photo is None or photo.layer is None:
                raise StoreError("There is no photograph yet; upload one first.")
            said = stated(payload, photo.hash, visitor.model, visitor.hierarchy)
            keep = payload.get("keep") is True
            kept = photo.image if keep else None
            number = save_once(self.store, said, visitor=visitor.id, photo=kept)
        except NBDTError as error:
            return visitor, gr.HTML(reply=_reply(payload, str(error))), gr.skip()
        what = "The photograph is kept with it." if keep else "No photograph was kept."
        text = f"Thank you. Correction {number} is saved. {what}"
        return visitor, gr.HTML(reply=_reply(payload, text, done=True)), self._said(visitor)

    def evidence(self, visitor: Visitor, token: object, request: gr.Request) -> gr.HTML:
        """The training images to choose from."""
        try:
            self._know(visitor, token, request)
            return gr.HTML(evidence=evidence_record(visitor))
        except NBDTError as error:
            return gr.HTML(reply=_reply({}, str(error)))

    def mark(
        self, visitor: Visitor, token: object, request: gr.Request, event: gr.EventData
    ) -> tuple[Any, ...]:
        """An image is bad evidence: it no longer counts for this visitor."""
        payload = _payload(event)
        try:
            self._know(visitor, token, request)
            reference = self._mark(visitor, payload, bad=True)
        except NBDTError as error:
            return self._redrawn(visitor, _reply(payload, str(error)))
        text = (
            f"Thank you. {reference} no longer counts as evidence for you. What is shown changed."
        )
        return self._redrawn(visitor, _reply(payload, text, done=True))

    def good_again(
        self, visitor: Visitor, token: object, request: gr.Request, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Take that back."""
        payload = _payload(event)
        try:
            self._know(visitor, token, request)
            self._mark(visitor, payload, bad=False)
        except NBDTError as error:
            return self._redrawn(visitor, _reply(payload, str(error)))
        return self._redrawn(visitor, "")

    def withdraw(
        self, visitor: Visitor, token: object, request: gr.Request, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Delete a correction of one's own."""
        number = _payload(event).get("id")
        try:
            self._know(visitor, token, request)
            if type(number) is not int or abs(number) >= 2**31:
                raise StoreError("There is no correction of yours with that number.")
            self.store.delete_corrections([number], visitor=visitor.id)
            text = f"Correction {number} is deleted."
        except NBDTError as error:
            text = str(error)
        return visitor, self._said(visitor, text)

    def look(self, visitor: Visitor, token: object, request: gr.Request) -> tuple[Any, ...]:
        """Whether there is a new model."""
        self._know(visitor, token, request)
        return visitor, self._said(visitor)

    def choose(
        self, visitor: Visitor, token: object, request: gr.Request, event: gr.EventData
    ) -> tuple[Any, ...]:
        """Another version of the model, for this visitor; their photographs before and after."""
        number = _payload(event).get("id")
        try:
            self._know(visitor, token, request)
            if type(number) is not int:
                raise StoreError("There is no such version of this model.")
            visitor.use(self.versions.load(number))
            self._own_evidence(visitor)
            compared = compared_record(visitor, self.versions)
        except NBDTError as error:
            return self._redrawn(visitor, "", str(error))
        name = f"version {number}" if number else "the first version"
        return self._redrawn(visitor, "", f"You now see {name} of the model.", compared)

    def teach(self, teaching: Teaching) -> Callable[..., Iterator[tuple[Any, ...]]]:
        """Apply corrections in a process of its own, and say how it goes."""

        def run(visitor: Visitor, token: object, request: gr.Request) -> Iterator[tuple[Any, ...]]:
            self._know(visitor, token, request)
            try:
                for line in teaching.run(visitor.model):
                    yield visitor, gr.HTML(progress=line)
                text = "The model has learnt. Try the new version."
            except NBDTError as error:
                text = str(error)
            yield visitor, self._said(visitor, text)

        return run

    # ---- what they share ------------------------------------------------------------------------

    def _know(self, visitor: Visitor, token: object, request: gr.Request) -> None:
        known = visitor_id(token, request)
        if visitor.id != known:
            visitor.id = known
            self._own_evidence(visitor)

    def _own_evidence(self, visitor: Visitor) -> None:
        if self.index is None:
            return
        try:
            self.index.for_model(visitor.model)
            visitor.index = own_view(self.index, self.store, visitor.id)
        except NBDTError:  # of another network
            visitor.index = None
        visitor.forget()

    def _mark(self, visitor: Visitor, payload: dict[str, Any], *, bad: bool) -> str:
        if self.index is None or not isinstance(payload.get("reference"), str):
            raise StoreError("There is no such training image.")
        rows = self.index.rows_of(payload["reference"])
        reference = self.index.reference(rows[0])
        note = payload.get("note")
        why = note if isinstance(note, str) else ""
        evidence = evidence_hash(self.index)
        self.store.mark_evidence(evidence, reference, visitor=visitor.id, bad=bad, why=why)
        self._own_evidence(visitor)
        return reference

    def _said(self, visitor: Visitor, text: str = "", compared: str | None = None) -> gr.HTML:
        evidence = None if self.index is None else evidence_hash(self.index)
        may_apply = self.stage.apply_data is not None
        try:
            record = history_record(visitor, self.versions, evidence, may_apply=may_apply)
        except NBDTError as error:
            return gr.HTML(progress=str(error))
        props: dict[str, Any] = {} if compared is None else {"compared": compared}
        return gr.HTML(record=record, progress=text, **props)

    def _redrawn(
        self, visitor: Visitor, reply: str, text: str = "", compared: str | None = None
    ) -> tuple[Any, ...]:
        drawn = [
            gr.HTML(**form_props(visitor), reply=reply) if draw is draw_form else draw(visitor)
            for _, draw in self.stage.parts
        ]
        return visitor, *drawn, self._said(visitor, text, compared)


def _payload(event: gr.EventData) -> dict[str, Any]:
    data = getattr(event, "_data", None)
    return data if isinstance(data, dict) else {}


def _reply(payload: dict[str, Any], text: str, *, done: bool = False) -> str:
    """An answer to one statement, which the browser knows again by its number."""
    sent = payload.get("seq")
    return dump({"seq": sent if type(sent) is int else 0, "done": done, "text": text})
