"""The review page: suspicious photographs, what a person says of each, and what that would do."""

from dataclasses import dataclass
from typing import Any, cast

import gradio as gr

from nbdt.errors import NBDTError
from nbdt.explain.evidence.pictures import Pictures
from nbdt.explain.memory.review import node_name, ranked_rows
from nbdt.images.image import ImageError
from nbdt.memory.memory import Memory
from nbdt.memory.preview import Change, effect_of, preview, write_changes
from nbdt.memory.review import Suspect, parse_verdicts
from nbdt.model.model import NBDT
from nbdt.model.writing import is_own_memory, save_head

from ..corrections.own import compared
from ..store import Store
from ..ui.component import component, dump, jpeg_url
from ..ui.events import NETWORK, payload, reply_to, sequence_number
from ..uploads import use_upload_folder

MOST = 60  # photographs on the page; the next come when these are written
SIDE = 160  # pixels of a picture
TOP = (
    '<header class="nbdt-top"><h1>Review the photographs</h1><p class="nbdt-lead">These photographs '
    "probably have wrong labels, or mislead the model; the worst come first. Nothing is written "
    "until you say so, and every change can be undone (nbdt memory restore).</p></header>"
)
ALONE: dict[str, Any] = {**NETWORK, "show_progress": "hidden", "concurrency_limit": 1}


def build_review(model: NBDT, source: str, store: Store | None = None) -> gr.Blocks:
    """Return the page for a model with a memory.

    Args:
        model: is fitted again when decisions are written.
        source: where it was loaded from; if that folder has the memory, the new fit is written there.
        store: visitors' corrections, of which the page says what helps more.

    Raises NBDTError: a model without a memory.
    """
    if model.memory is None:
        raise NBDTError(
            f"The model {source!r} has no memory to review. Make one with: nbdt memory build"
        )
    use_upload_folder()
    handlers = _Handlers(model, model.memory, source, store)
    with gr.Blocks(title="NBDT: review the photographs", analytics_enabled=False) as page:
        gr.HTML(TOP, html_template=TOP, js_on_load=None, apply_default_css=False)
        view = component("review", "review.js", label="Review", record="", effect="", reply="",
                         corrections="")  # fmt: skip
        page.load(handlers.arrive, None, view, **ALONE)
        if store is not None:
            page.load(handlers.corrections, None, view, **ALONE)
        view.effect(handlers.effect, None, view, trigger_mode="multiple", **ALONE)
        view.write(handlers.write, None, view, trigger_mode="once", **ALONE)
    return cast(gr.Blocks, page)


@dataclass(frozen=True, eq=False)
class _Handlers:
    """Handlers of the page's events; decisions are in the browser until they are written."""

    model: NBDT
    memory: Memory
    source: str
    store: Store | None = None

    def corrections(self) -> gr.HTML:
        """Say what helps more to learn the corrections that wait, and how to accept them."""
        found = compared(self.model, self.store) if self.store is not None else None
        if found is None:
            return gr.HTML(corrections="")
        first = f"nbdt corrections apply --model {self.source} --to {found.best_first[0]} --out NEW"
        return gr.HTML(corrections=f"{found.words} To accept them for everyone: {first}")

    def arrive(self) -> gr.HTML:
        """Show the most suspicious photographs."""
        return gr.HTML(record=dump(self._record()))

    def effect(self, event: gr.EventData) -> gr.HTML:
        """Say what the decisions so far would do."""
        sent, text, rules = payload(event), "", self.model.head.rules
        try:
            if changes := self._changes(sent):
                fitted = self.memory.fit(rules, self.model.fitted)
                found = effect_of(self.memory, rules, fitted, changes)
                before, after = (f"{100 * share:.1f} %" for share in found.accuracy)
                text = (
                    f"Of the {found.photographs:,} photographs that stay as they are, {after} would be "
                    f"right ({before} now), each answered by a fit without it; "
                    f"{len(found.changed):,} answers change."
                )
        except NBDTError as error:
            text = str(error)
        return gr.HTML(effect=dump({"seq": sequence_number(sent), "text": text}))

    def write(self, request: gr.Request, event: gr.EventData) -> gr.HTML:
        """Write decisions to the memory, fit the last layer again, and show the next photographs."""
        sent = payload(event)
        try:
            changes = self._changes(sent, request.username or "")
            changed = preview(self.memory, changes)
            changed.examples(self.model.head.rules)  # raises where a class would have too few
            write_changes(self.memory, changes)
            self.model.refit()
            if is_own_memory(self.model, self.source):
                save_head(self.model, self.source)
        except NBDTError as error:
            return gr.HTML(reply=reply_to(sent, str(error)))
        text = f"Written: {len(changes):,} decisions, version {self.memory.version} of the memory."
        reply = reply_to(sent, text, done=True)
        return gr.HTML(record=dump(self._record()), reply=reply, effect="")

    def _changes(self, sent: dict[str, Any], by: str = "") -> list[Change]:
        given = sent.get("verdicts")
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given[:MOST]):
            raise NBDTError("Expected a list of decisions.")
        return parse_verdicts(self.memory, given[:MOST], by)

    def _record(self) -> dict[str, Any]:
        memory, tree = self.memory, self.model.hierarchy
        every = [one for one in ranked_rows(self.model, memory) if one.reasons]
        return {
            "key": f"{memory.table.place} {memory.version}",
            "left": max(0, len(every) - MOST),
            "rows": [self._row(one) for one in every[:MOST]],
            "names": sorted({node_name(memory, key) for key in tree.ids[1:]}),
        }

    def _row(self, one: Suspect) -> dict[str, Any]:
        return {
            "id": one.id, "reference": one.reference, "label": node_name(self.memory, one.label),
            "probability": one.probability, "says": node_name(self.memory, one.says),
            "why": [*one.reasons], "picture": self._picture(one),
        }  # fmt: skip

    def _picture(self, one: Suspect) -> str:
        pictures = Pictures(self.memory.table, self.model.preprocess.frame, None)
        try:
            return jpeg_url(pictures.open(one.id, one.reference), SIDE)
        except ImageError:
            return ""
