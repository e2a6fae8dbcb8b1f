"""The state of one visitor on the server: their model, hierarchy and photographs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nbdt.correction import picture_hash
from nbdt.decide.paths import Decision
from nbdt.errors import NBDTError
from nbdt.explain import Evidence, Explanation
from nbdt.explain.attribution import explain_layer, said_by, with_evidence
from nbdt.explain.maps.layers import Layer, any_layer
from nbdt.explain.maps.levels import FAST
from nbdt.explain.maps.node_maps import node_maps
from nbdt.hierarchies.edit.undo import EditStack
from nbdt.memory.corrected import Corrected
from nbdt.model.cascade import LARGE, SMALL, members, split
from nbdt.model.fingerprint import embedding_hash
from nbdt.model.model import NBDT
from nbdt.model.restrict import allowed_classes, pruned
from nbdt.progress import counted
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.nodes import short

from .background import Job, first_answer
from .editing.edits import carried
from .ui.component import jpeg_url

MAX_SIDE = 1024  # pixels of the longer side of a photograph: 3 MB a visitor
RECENT = 20  # photographs that a visitor's edits are tried on
FRAME = 512  # pixels of the square that the page shows
MAX_NAME = 200  # characters of a name that a visitor sends
THUMBNAIL = 512  # pixels of the longer side of earlier photographs, which bounds the memory

Map = NDArray[np.float32]
_pruned = lru_cache(maxsize=32)(pruned)


@dataclass(frozen=True, eq=False)
class Photograph:
    """A visitor's photograph, and what the network computed from it once."""

    # upright and without metadata, as `open_image` returned it; a thumbnail for an earlier
    # photograph (`layer` is None)
    image: Image.Image
    hash: str  # `nbdt.correction.picture_hash` of the full image
    frame: Image.Image  # the square part of it that the network sees, `FRAME` pixels a side
    features: Tensor  # (features,) float32, the head's input
    layer: Layer | None  # the feature map and how the head uses it; None for an earlier photograph
    by: str = ""  # which model of a cascade answers: see `nbdt.model.cascade.Part`

    @classmethod
    def of(cls, model: NBDT, image: Image.Image) -> Photograph:
        """Run the network: the first answer needs no other forward pass."""
        with first_answer():
            (part,) = split(model, model.preprocess(image)[None].to(model.device))
            layer = any_layer(part.model, part.images)
        features = layer.features[0].detach().float().cpu()
        frame = model.preprocess.frame(image, FRAME)
        return cls(image, picture_hash(image), frame, features, layer, part.by)

    @cached_property
    def url(self) -> str:
        """The frame as a data URL, encoded once."""
        return jpeg_url(self.frame)

    def seen_by(self, model: NBDT) -> Photograph:
        """Return the same photograph, seen by another network."""
        photo = replace(Photograph.of(model, self.image), hash=self.hash)
        return photo if self.layer else photo.thumbnail()

    def thumbnail(self) -> Photograph:
        """Return the little that is kept of it once another photograph is shown."""
        small = self.image.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return replace(self, image=small, frame=small, layer=None)


@dataclass(frozen=True, eq=False)
class NodeView:
    """One node of the hierarchy, seen with one photograph."""

    id: str  # the node's id
    decision: Decision  # that of its parent, with this node as `chosen`; for the root its own
    probability: float  # of reaching the node from the root
    # (height, width), of the log-odds of the node among its siblings; for the root, of the child
    # that it chooses
    map: Map
    depth: int  # the number of steps from the root
    taken: bool  # whether the path goes through the node


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A model with one visitor's corrections; the network below is the shared one."""

    model: NBDT
    corrected: Corrected

    def reason(self, image: str) -> str:
        """Return why what was said about a photograph does not act, "" if it does."""
        return self.corrected.aside.get(image, "")

    def acts_on(self, image: str) -> bool:
        """Return whether the answers follow what was said about a photograph."""
        return image in {change.id for change in self.corrected.changes}

    @property
    def words(self) -> str:
        """What changed beside the photograph, as a sentence."""
        found = self.corrected
        heavy = max((change.weight for change in found.changes), default=1)
        more = f" The photograph counts {heavy:.0f} times." if heavy > 1 else ""
        return (
            f"{found.changed:,} of {counted(found.others, 'other photograph')} changed.{more} This is "
            "yours alone until the operator accepts it."
        )


class Visitor:
    """What one visitor sees: a model, their own hierarchy, their photographs.

    Not a dataclass: of those Gradio copies every field at every event, the weights among them.
    """

    def __init__(self, model: NBDT, index: Evidence | None = None) -> None:
        self.model = model  # shared and never changed; a visitor may choose another version
        self.own: OwnModel | None = None  # what answers where their corrections act
        self.stack = EditStack(model.hierarchy)
        self.index = index
        self.photo: Photograph | None = None
        self.recent: deque[Photograph] = deque(maxlen=RECENT)  # newest first, `photo` included
        self.selected: str | None = None  # id of the node that they clicked
        self.only: tuple[int, ...] | None = None  # classes that can occur, in order; None: all
        self.arrived = False  # see `demo.ui.events.for_arrived`
        self.id = ""  # their `demo.corrections.submission.visitor_id`
        self.unheard: int | None = None  # number of a correction that does not act yet
        self.job: Job | None = None  # in the background
        self._explanations: dict[tuple[object, ...], dict[str, Explanation]] = {}
        self._current: tuple[object, NBDT] | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> Visitor:
        """Gradio copies a state's first value for each visitor: return a new visitor's state."""
        return Visitor(self.model, self.index)

    @property
    def hierarchy(self) -> Hierarchy:
        """The visitor's own hierarchy, with their edits."""
        return self.stack.hierarchy

    @property
    def names(self) -> dict[str, str]:
        """The names of the hierarchy's nodes by id."""
        return dict(zip(self.hierarchy.ids, self.hierarchy.names, strict=True))

    @property
    def answering(self) -> NBDT:
        """The model with the visitor's corrections, under its own hierarchy."""
        return self.model if self.own is None else self.own.model

    def adapt(self, own: OwnModel | None) -> None:
        """Answer with the visitor's corrections from now on; None: without."""
        before = self.answering.hierarchy
        self.own, self._current = own, None
        after = self.answering.hierarchy
        if after.classes != before.classes:
            self.stack, self.only = carried(self.stack, before, after), None
        self.forget()

    def current_model(self) -> NBDT:
        """Return the model with the visitor's hierarchy and classes; it shares the backbone.

        Raises NBDTError: the hierarchy is not over the model's classes, in its order.
        """
        key = self.hierarchy.hash, self.only
        if self._current is None or self._current[0] != key:
            model = self.answering.with_hierarchy(self.hierarchy)
            if self.only is not None:
                model = model.restrict([self.hierarchy.classes[index] for index in self.only])
            self._current = key, model
        return self._current[1]

    def allow(self, names: object) -> None:
        """Answer only with some classes from now on, given as ids or names; None allows all classes.

        Raises NBDTError: another form, or names that `allowed_classes` refuses; then nothing changes.
        """
        given = None if names is None else allowed_classes(self.hierarchy, text_list(names))
        self.only = None if given is None else tuple(given)

    def possible(self, hierarchy: Hierarchy) -> Hierarchy:
        """Return a tree over the model's classes without those that cannot occur."""
        return hierarchy if self.only is None else _pruned(hierarchy, self.only)

    def logits(self, photo: Photograph, *, every: bool = False) -> Tensor:
        """Return the flat logits of the classes that can occur, or of `every` class, (classes,)."""
        head = members(self.answering)[photo.by].head
        with torch.no_grad():
            logits: Tensor = head.logits(photo.features[None].to(head.weight)).float()[0].cpu()
        return logits if self.only is None or every else logits[list(self.only)]

    def show(self, image: Image.Image) -> Photograph:
        """Show another photograph."""
        photo = Photograph.of(self.model, image)
        earlier = [old.thumbnail() if old.layer else old for old in self.recent]
        others = [old for old in earlier if old.hash != photo.hash]
        self.recent = deque([photo, *others][:RECENT], RECENT)
        self.photo, self.selected = photo, None
        self.forget()
        return photo

    def remember(self, image: Image.Image) -> None:
        """Keep a photograph as one of this session, behind the one that is shown."""
        self.shown()
        photo = Photograph.of(self.model, image).thumbnail()
        if photo.hash not in {old.hash for old in self.recent}:
            first, *rest = self.recent
            self.recent = deque([first, photo, *rest][:RECENT], RECENT)

    def use(self, model: NBDT) -> None:
        """Use another version of the model, with its own hierarchy, for all photographs."""
        facts = self.index.memory.table.facts if self.index else {}
        if facts.get("embedding_hash") != embedding_hash(model):
            self.index = None
        if model.hierarchy.classes != self.answering.hierarchy.classes:
            self.only = None
        self.model, self.own, self.stack = model, None, EditStack(model.hierarchy)
        self._current, self.selected = None, None
        self.recent = deque((photo.seen_by(model) for photo in self.recent), RECENT)
        self.photo = self.recent[0] if self.recent else None
        self.forget()

    def forget(self) -> None:
        """Drop all explanations: the model, the photograph or its evidence changed."""
        self._explanations.clear()

    def levels(self) -> dict[str, Explanation]:
        """Return by level, the deepest last, how the photograph is explained under this hierarchy.

        The first level needs no other forward pass; others are added in the background.

        Raises NBDTError: there is no photograph yet.
        """
        photo, layer = self.shown()
        found = self._explanations.setdefault((photo.hash, self.hierarchy.hash, self.only), {})
        if not found:
            model, evidence = self.current_model(), None if photo.by == SMALL else self.index
            own = members(model)[photo.by]
            made = explain_layer(own, layer, [photo.frame], evidence=evidence)
            if photo.by == SMALL and self.index:
                large = members(model)[LARGE]
                made = with_evidence(large, self.large_layer(photo).features, made, self.index)
            (found[FAST],) = said_by(model, photo.by, made)
        return found

    def large_layer(self, photo: Photograph) -> Layer:
        """Return the layer of the large model of a cascade, whose network made the memory."""
        large = members(self.current_model())[LARGE]
        return any_layer(large, large.preprocess(photo.image)[None].to(large.device))

    def explanation(self) -> Explanation:
        """Return the deepest level that is there. Raises NBDTError: there is no photograph yet."""
        return [*self.levels().values()][-1]

    def select(self, node_id: str) -> None:
        """Select a node. Raises NBDTError if there is no such id."""
        _index(self.hierarchy, node_id)
        self.selected = node_id

    def node(self, node_id: str) -> NodeView:
        """Return any node's decision and map for the photograph.

        Raises NBDTError: there is no photograph yet, or no node of that id among what can occur.
        """
        photo, layer = self.shown()
        model = members(self.current_model())[photo.by]
        hierarchy = model.hierarchy
        index = _index(hierarchy, node_id)
        rules = model.head.rules
        rows = rules.log_probs(self.logits(photo)[None])[0]
        chosen = index or max(hierarchy.children[0], key=rows.tolist().__getitem__)
        map_id = hierarchy.ids[chosen]
        taken = {d.child_ids[d.chosen] for d in self.explanation().path}
        return NodeView(
            id=node_id,
            decision=rules.decision(rows, hierarchy.parents[chosen], chosen),
            probability=float(rows[hierarchy.path_to(index)].sum().exp()),
            map=node_maps(model, layer, [map_id])[0][map_id],
            depth=hierarchy.depths[index],
            taken=index == 0 or node_id in taken,
        )

    def shown(self) -> tuple[Photograph, Layer]:
        """Return the photograph on the page. Raises NBDTError: there is none yet."""
        if self.photo is None or self.photo.layer is None:
            raise NBDTError("There is no photograph yet; upload one first.")
        return self.photo, self.photo.layer


def text_list(names: object) -> list[str]:
    """Return a list of names that a browser or a program sent. Raises NBDTError for anything else."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NBDTError(f"Expected a list of names of classes or groups, got {short(names)}.")
    return [name[:MAX_NAME] for name in names]


def _index(hierarchy: Hierarchy, node_id: str) -> int:
    if not isinstance(node_id, str) or node_id not in hierarchy.ids:
        raise NBDTError(f"There is no node {str(node_id)[:60]!r} in this hierarchy.")
    return hierarchy.ids.index(node_id)
