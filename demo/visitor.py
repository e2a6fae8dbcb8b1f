"""One visitor's state on the server: their model, their hierarchy, their photographs."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nbdt.correction import picture_hash
from nbdt.decide.paths import Decision
from nbdt.errors import NBDTError
from nbdt.explain import Explanation
from nbdt.explain.attribution import explain_layer
from nbdt.explain.maps.layers import Layer, map_layer
from nbdt.explain.maps.node_maps import class_maps, node_maps
from nbdt.hierarchies.edit.stack import EditStack
from nbdt.model.fingerprint import embedding_hash
from nbdt.model.model import NBDT
from nbdt.tree.hierarchy import Hierarchy

from .ui.component import jpeg_url

if TYPE_CHECKING:
    from nbdt.explain import EvidenceIndex

MAX_SIDE = 1024  # pixels of the longer side of a photograph: 3 MB a visitor
RECENT = 20  # photographs that a visitor's edits are tried on
FRAME = 512  # pixels of the square that the page shows
THUMBNAIL = 512  # pixels of the longer side of earlier photographs, which bounds the memory

Map = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Photograph:
    """What one visitor uploaded, and what the network computed from it, once.

    Attributes:
        image: upright and without metadata, what `open_image` returned; of an earlier photograph
            (`layer` is None) only a thumbnail.
        hash: `nbdt.correction.picture_hash` of the image as it came.
        frame: the square part of it that the network sees, `FRAME` pixels a side.
        logits: (classes,) float32, the flat classifier's.
        layer: the feature map and the way from the head back to it; None for an earlier photograph.
    """

    image: Image.Image
    hash: str
    frame: Image.Image
    logits: Tensor
    layer: Layer | None

    @classmethod
    def of(cls, model: NBDT, image: Image.Image) -> Photograph:
        """Run the network: the only forward pass that this photograph needs."""
        batch = model.preprocess(image)[None].to(model.device)
        layer = map_layer(model, batch)
        with torch.no_grad():
            logits = model.head.logits(layer.features).float()[0].cpu()
        frame = model.preprocess.frame(image, FRAME)
        return cls(image, picture_hash(image), frame, logits, layer)

    @cached_property
    def url(self) -> str:
        """The frame for the page, encoded once."""
        return jpeg_url(self.frame)

    def seen_by(self, model: NBDT) -> Photograph:
        """The same photograph, through another network."""
        again = replace(Photograph.of(model, self.image), hash=self.hash)
        return again if self.layer else again.remembered()

    def remembered(self) -> Photograph:
        """What is kept of it once another photograph is shown."""
        small = self.image.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return replace(self, image=small, frame=small, layer=None)


@dataclass(frozen=True, eq=False)
class NodeView:
    """One node of the hierarchy, seen with one photograph.

    Attributes:
        id: of the node.
        decision: that of its parent, with this node as `chosen`; for the root its own.
        probability: of reaching the node from the root.
        map: (height, width), of the log-odds of the node among its siblings; for the root of the
            child that it takes.
        depth: of the node; 0 for the root.
        taken: whether the path goes through the node.
    """

    id: str
    decision: Decision
    probability: float
    map: Map
    depth: int
    taken: bool


@dataclass(eq=False)
class Visitor:
    """What one visitor sees: a model, their own hierarchy, their photograph.

    Attributes:
        model: shared between visitors and never changed; another version of it may be chosen.
        stack: their hierarchy with undo and redo.
        index: training images, if there is an index.
        photo: what they uploaded last.
        recent: their last photographs, the newest first, `photo` included.
        selected: id of the node that they clicked.
        arrived: whether the page was opened, or a photograph shown, since the server began to know
            them; see `demo.forgotten`.
        id: SHA-256 of what the visitor is known by, for what they keep; see `demo.store`.
    """

    model: NBDT
    stack: EditStack
    index: EvidenceIndex | None = None
    photo: Photograph | None = None
    recent: deque[Photograph] = field(default_factory=lambda: deque(maxlen=RECENT))
    selected: str | None = None
    arrived: bool = False
    id: str = ""
    _explained: dict[tuple[str, str], Explanation] = field(default_factory=dict)
    _current: NBDT | None = None

    @classmethod
    def new(cls, model: NBDT, index: EvidenceIndex | None = None) -> Visitor:
        """Somebody who has just come."""
        return cls(model, EditStack(model.hierarchy), index)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Visitor:
        """Gradio copies the first value of a state for each visitor: each begins anew."""
        return Visitor.new(self.model, self.index)

    @property
    def hierarchy(self) -> Hierarchy:
        """The visitor's own, with their edits."""
        return self.stack.hierarchy

    def current_model(self) -> NBDT:
        """The model with the visitor's hierarchy; it shares all weights with `model`.

        Raises:
            NBDTError: the hierarchy is not over the model's classes, in its order.
        """
        known = self._current
        if known is None or known.hierarchy != self.hierarchy:
            self._current = known = self.model.with_hierarchy(self.hierarchy)
        return known

    def show(self, image: Image.Image) -> Photograph:
        """Look at another photograph."""
        photo = Photograph.of(self.model, image)
        earlier = [old.remembered() if old.layer else old for old in self.recent]
        others = [old for old in earlier if old.hash != photo.hash]
        self.recent = deque([photo, *others][:RECENT], RECENT)
        self.photo, self.selected = photo, None
        self.forget()
        return photo

    def use(self, model: NBDT) -> None:
        """Choose another version of the model, with its own hierarchy, for all photographs."""
        if self.index is not None and not _fits(self.index, model):
            self.index = None
        self.model, self.stack = model, EditStack(model.hierarchy)
        self._current, self.selected = None, None
        self.recent = deque((photo.seen_by(model) for photo in self.recent), RECENT)
        self.photo = self.recent[0] if self.recent else None
        self.forget()

    def forget(self) -> None:
        """Drop what was explained: the model, the photograph or its evidence is another."""
        self._explained.clear()

    def explanation(self) -> Explanation:
        """Of the photograph under the visitor's hierarchy, without another forward pass.

        Raises:
            NBDTError: there is no photograph yet.
        """
        photo, layer = self._photo()
        key = (photo.hash, self.hierarchy.hash)
        if key not in self._explained:
            found = explain_layer(self.current_model(), layer, [photo.frame], evidence=self.index)
            self._explained[key] = found[0]
        return self._explained[key]

    def select(self, node_id: str) -> None:
        """Choose a node. Raises NBDTError: there is none of that id."""
        _index(self.hierarchy, node_id)
        self.selected = node_id

    def node(self, node_id: str) -> NodeView:
        """Any node's decision and map for the photograph.

        Raises:
            NBDTError: there is no photograph yet, or no node of that id.
        """
        model, (photo, layer) = self.current_model(), self._photo()
        tree = model.hierarchy
        index = _index(tree, node_id)
        rows = model.head.rules.log_probs(photo.logits[None])[0].tolist()
        above = tree.path_to(index)
        at = index or max(tree.children[0], key=rows.__getitem__)
        decided = tree.children[tree.parents[at]]
        span = slice(decided.start, decided.stop)
        decision = Decision(
            node=tree.names[tree.parents[at]],
            node_id=tree.ids[tree.parents[at]],
            children=tree.names[span],
            child_ids=tree.ids[span],
            log_probs=tuple(rows[span]),
            chosen=at - decided.start,
        )
        taken = {d.child_ids[d.chosen] for d in self.explanation().path}
        return NodeView(
            id=node_id,
            decision=decision,
            probability=math.exp(sum(rows[n] for n in above)),
            map=node_maps(model, layer, [tree.ids[at]])[0][tree.ids[at]],
            depth=tree.depths[index],
            taken=index == 0 or node_id in taken,
        )

    def class_map(self) -> Map:
        """Plain Grad-CAM of the answer's flat logit, which knows of no hierarchy."""
        _, layer = self._photo()
        index = self.explanation().path.class_index
        found: Map = class_maps(self.model, layer, [index])[0]
        return found

    def _photo(self) -> tuple[Photograph, Layer]:
        if self.photo is None or self.photo.layer is None:
            raise NBDTError("There is no photograph yet; upload one first.")
        return self.photo, self.photo.layer


def _fits(index: EvidenceIndex, model: NBDT) -> bool:
    return bool(index.manifest["embedding_hash"] == embedding_hash(model))


def _index(tree: Hierarchy, node_id: str) -> int:
    if not isinstance(node_id, str) or node_id not in tree.ids:
        raise NBDTError(f"There is no node {str(node_id)[:60]!r} in this hierarchy.")
    return tree.ids.index(node_id)
