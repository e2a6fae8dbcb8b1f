"""The correction panel: wiring of the form and the history, and their handlers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import gradio as gr

from nbdt.errors import NBDTError
from nbdt.explain import Evidence
from nbdt.model.model import NBDT
from nbdt.progress import counted

from ..store import Store
from ..store.place import StoreError
from ..ui.events import (
    NETWORK,
    QUICK,
    PageContext,
    for_arrived,
    mark_arrived,
    payload,
    reply_to,
)
from ..visitor import Visitor
from .apply import train_version
from .model_versions import ModelVersions
from .new_class import same_class, save_class, wire_new_class
from .own import (
    acts,
    marked_bad,
    memory_key,
    now_says,
    own_model,
    seen_features,
    view_without_bad,
)
from .submission import correction_api, is_token, new_token, parse_correction, save_once, visitor_id
from .views import (
    compared_record,
    draw_form,
    evidence_record,
    form_props,
    history_component,
    history_record,
)

OFF = (
    '<p class="nbdt-correct-lead">Corrections are not kept on this page. Whoever runs it can turn '
    "them on: <code>nbdt demo --store FILE</code></p>"
)

KEY = "nbdt-visitor"  # of the token in the browser's storage
_Act = Callable[[Visitor, dict[str, Any]], Any]  # takes the visitor and what the browser sent


def correction_panel(context: PageContext, form: gr.HTML, strip: gr.HTML, model: NBDT) -> None:
    """Place and wire the form; without a store, one line that says how to turn it on.

    With the context's `apply_data` every visitor who may use the page may train the model.
    """
    form.visible = context.store is not None
    cast(Any, form).render()  # it is a component of the page in either case
    if context.store is None:
        gr.HTML(OFF, html_template=OFF, js_on_load=None, apply_default_css=False)
        return
    history = history_component()
    # The secret hides nothing here: it keeps the token readable after the server was restarted.
    token = gr.BrowserState("", storage_key=KEY, secret=KEY)
    visitor, index = context.visitor, context.visitor.value.index
    versions = ModelVersions(model, context.store)
    handlers = _Handlers(context, context.store, form, history, versions, index)
    inputs, everything = [visitor, token], [visitor, *context.outputs, history]
    context.page.load(handlers.arrive, inputs, [visitor, token, history], **QUICK)

    act: _Act
    for event, act, outputs in (
        (form.correct, handlers.correct, [visitor, form, history]),
        (form.list_evidence, handlers.list_evidence, [form]),
        (form.mark, handlers.mark, everything),
    ):
        handle = for_arrived(handlers.identified(act), form, "reply", outputs)
        saved = event(handle, inputs, outputs, **QUICK)
        if act == handlers.correct and acts(model):
            saved.then(handlers.act, inputs, everything, show_progress="hidden", **NETWORK)
    if acts(model):
        wire_new_class(form, visitor, inputs, handlers.identified)
    for event, act, outputs in (
        (history.withdraw, handlers.withdraw, everything),
        (history.unmark, partial(handlers.mark, bad=False), everything),
        (strip.strike, handlers.mark, everything),
        (strip.take_back, partial(handlers.mark, bad=False), everything),
        (history.refresh, handlers.refresh, [visitor, history]),
    ):
        event(handlers.identified(act), inputs, outputs, **QUICK)
    choose = handlers.identified(handlers.choose)
    history.choose(choose, inputs, everything, show_progress="minimal", **NETWORK)
    if context.apply_data is not None:
        history.train(
            handlers.train(context.apply_data), inputs, [visitor, history],
            show_progress="hidden", api_visibility="private", concurrency_limit=1,
        )  # fmt: skip
    correction_api(model, context.store)


@dataclass(frozen=True, eq=False)
class _Handlers:
    """Handlers of the form's and the history's events. What the browser sends is hostile."""

    context: PageContext
    store: Store
    form: gr.HTML
    history: gr.HTML
    versions: ModelVersions
    index: Evidence | None

    def arrive(self, visitor: Visitor, token: object, request: gr.Request) -> tuple[Any, ...]:
        """Recognise the visitor when the page is opened, or give the browser a token."""
        mark_arrived(visitor)
        kept = token if is_token(token) else new_token()
        self._identify(visitor, kept, request)
        return visitor, kept, self._history(visitor)

    def identified(self, act: _Act) -> Callable[..., Any]:
        """Return a handler that identifies the visitor, then acts on what the browser sent."""

        def handle(
            visitor: Visitor, token: object, request: gr.Request, event: gr.EventData
        ) -> Any:
            self._identify(visitor, token, request)
            return act(visitor, payload(event))

        return handle

    def correct(self, visitor: Visitor, sent: dict[str, Any]) -> tuple[Any, ...]:
        """Save a correction; the reply has its number only once it is on the disk."""
        try:
            photo, _ = visitor.shown()
            if sent.get("kind") == "class":
                numbers = save_class(self.store, visitor, sent)
                visitor.unheard = numbers[-1]
                text = f"{counted(len(numbers), 'photograph')} of the class are saved."
            else:
                correction = parse_correction(sent, photo.hash, visitor.model, visitor.hierarchy)
                copy = photo.image if sent.get("keep") is True else None
                seen = seen_features(visitor.model, photo)
                number = save_once(
                    self.store, correction, visitor=visitor.id, photo=copy, seen=seen
                )
                visitor.unheard = number if seen else visitor.unheard
                kept = "The photograph is kept with it." if copy else "No photograph was kept."
                text = f"Correction {number} is saved. {kept}"
        except NBDTError as error:
            return visitor, gr.HTML(reply=reply_to(sent, str(error))), gr.skip()
        text = f"Thank you. {text}"
        return visitor, gr.HTML(reply=reply_to(sent, text, done=True)), self._history(visitor)

    def act(self, visitor: Visitor, token: object, request: gr.Request) -> tuple[Any, ...]:
        """Fit the visitor's own model with a correction that was just saved."""
        number, visitor.unheard = visitor.unheard, None
        if number is None:  # nothing was saved
            return tuple(gr.skip() for _ in range(len(self.context.components) + 2))
        self._identify(visitor, token, request)
        text = f"Correction {number} is saved. {self._adapt(visitor, number)}"
        return self._redrawn(visitor, reply_to({}, text, done=True))

    def list_evidence(self, visitor: Visitor, _: dict[str, Any]) -> gr.HTML:
        """Return the training images to choose from."""
        try:
            return gr.HTML(evidence=evidence_record(visitor))
        except NBDTError as error:
            return gr.HTML(reply=reply_to({}, str(error)))

    def mark(self, visitor: Visitor, sent: dict[str, Any], *, bad: bool = True) -> tuple[Any, ...]:
        """Mark an image as bad evidence, which no longer counts for this visitor; or take that back."""
        note = sent.get("note")
        try:
            if self.index is None or not isinstance(sent.get("reference"), str):
                raise StoreError("There is no such training image.")
            rows = self.index.memory.rows
            place = rows.place(sent["reference"])
            self.store.mark_evidence(
                memory_key(self.index.memory.table.facts), rows.ids[place], visitor=visitor.id, bad=bad,
                why=note if isinstance(note, str) else "",
            )  # fmt: skip
            self._update_evidence(visitor)
        except NBDTError as error:
            return self._redrawn(visitor, reply_to(sent, str(error)))
        changed = self._adapt(visitor) if acts(visitor.model) else "What is shown changed."
        text = f"Thank you. {rows.names[place]} no longer counts as evidence for you. {changed}"
        return self._redrawn(visitor, reply_to(sent, text, done=True) if bad else "")

    def withdraw(self, visitor: Visitor, sent: dict[str, Any]) -> tuple[Any, ...]:
        """Delete one of the visitor's own corrections."""
        number = sent.get("id")
        try:
            if type(number) is not int or abs(number) >= 2**31:
                raise StoreError("There is no correction of yours with that number.")
            numbers = same_class(self.store, visitor.id, number)
            self.store.delete_corrections(numbers, visitor=visitor.id)
            text = f"Correction {number} is deleted."
            if len(numbers) > 1:
                text = f"{counted(len(numbers), 'correction')} of the class are deleted."
        except NBDTError as error:
            return self._redrawn(visitor, "", str(error))
        return self._redrawn(visitor, "", f"{text} {self._adapt(visitor)}".strip())

    def refresh(self, visitor: Visitor, _: dict[str, Any]) -> tuple[Any, ...]:
        """Look for a new model."""
        return visitor, self._history(visitor)

    def choose(self, visitor: Visitor, sent: dict[str, Any]) -> tuple[Any, ...]:
        """Give this visitor another version of the model; show their photographs before and after."""
        number = sent.get("id")
        try:
            if type(number) is not int:
                raise StoreError("There is no such version of this model.")
            visitor.use(self.versions.load(number))
            self._update_evidence(visitor)
            self._adapt(visitor)
            compared = compared_record(visitor, self.versions)
        except NBDTError as error:
            return self._redrawn(visitor, "", str(error))
        name = f"version {number}" if number else "the first version"
        return self._redrawn(visitor, "", f"You now see {name} of the model.", compared)

    def train(self, data: Path) -> Callable[..., Iterator[tuple[Any, ...]]]:
        """Return the handler that applies corrections in another process and reports progress."""

        def run(visitor: Visitor, token: object, request: gr.Request) -> Iterator[tuple[Any, ...]]:
            self._identify(visitor, token, request)
            try:
                for line in train_version(self.versions, visitor.model, data):
                    yield visitor, gr.HTML(progress=line)
                text = "The model has learnt. Try the new version."
            except NBDTError as error:
                text = str(error)
            yield visitor, self._history(visitor, text)

        return run

    def _identify(self, visitor: Visitor, token: object, request: gr.Request) -> None:
        identity = visitor_id(token, request)
        if visitor.id != identity:
            visitor.id = identity
            self._update_evidence(visitor)
            self._adapt(visitor)

    def _adapt(self, visitor: Visitor, number: int | None = None) -> str:
        """Let the visitor's corrections act for them; return what changed, or why `number` cannot."""
        if not acts(visitor.model):
            return ""
        try:
            visitor.adapt(own_model(visitor.model, self.store, visitor.id))
            if visitor.own and number is not None:
                (saved,) = self.store.corrections(ids=[number], visitor=visitor.id)
                if reason := visitor.own.reason(saved.correction.image):
                    return f"It does not act, and is kept aside: {reason}"
            return now_says(visitor)
        except NBDTError as error:
            return f"It does not act: {error}"

    def _update_evidence(self, visitor: Visitor) -> None:
        if self.index is None:
            return
        try:
            self.index.for_model(visitor.model)
            visitor.index = view_without_bad(self.index, self.store, visitor.id)
        except NBDTError:  # of another network
            visitor.index = None
        visitor.forget()

    def _history(self, visitor: Visitor, text: str = "", compared: str | None = None) -> gr.HTML:
        may_apply = self.context.apply_data is not None
        try:
            bad = marked_bad(self.index, self.store, visitor.id) if self.index else {}
            marks = [*bad.values()]
            record = history_record(visitor, self.versions, marks, may_apply=may_apply)
        except NBDTError as error:
            return gr.HTML(progress=str(error))
        props: dict[str, Any] = {} if compared is None else {"compared": compared}
        return gr.HTML(record=record, progress=text, **props)

    def _redrawn(
        self, visitor: Visitor, reply: str, text: str = "", compared: str | None = None
    ) -> tuple[Any, ...]:
        drawn = [
            gr.HTML(**form_props(visitor), reply=reply) if draw is draw_form else draw(visitor)
            for _, draw in self.context.components
        ]
        return visitor, *drawn, self._history(visitor, text, compared)
