"""Explanations as frozen data: the path, its maps, evidence and counterfactuals, and how they were made.

Functions that write, draw or describe an explanation are in the modules beside this one; the
package's `__init__` attaches the five that users call as methods.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.decide.answer import Answer
from nbdt.decide.paths import Path, percent
from nbdt.images.deep import REMARK

from .contributions import DecisionContributions, Photograph, TwoSides
from .regions import AlikeRegions, Region, TestedRegion

Map: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbour(Photograph):
    """A training image that is near a query.

    Attributes:
        reference: where it came from, inside the data the index was built from.
        label: its class.
        similarity: the cosine of its embedding and the query's.
        row: its place in the index.
        open: returns the square picture that the network saw: from the original file, else the
            stored thumbnail, else the original archive. Raises ImageError where there is none.
    """

    reference: str
    label: str
    similarity: float
    row: int
    open: Callable[[], Image.Image] = field(repr=False, compare=False)


@dataclass(frozen=True)
class DecisionEvidence(TwoSides):
    """The training images near one decision, nearest first on both sides.

    Attributes:
        chosen: images of classes below the chosen child.
        rejected: images of classes below the best child that was not chosen.
    """

    KIND, SIDES = "evidence", ("chosen", "rejected")

    chosen: tuple[Neighbour, ...]
    rejected: tuple[Neighbour, ...]

    @property
    def vote(self) -> float | None:
        """Share of the k nearest images of both sides that are below the chosen child."""
        together = [(n.similarity, True) for n in self.chosen]
        together += [(n.similarity, False) for n in self.rejected]
        k = max(len(self.chosen), len(self.rejected))
        best = sorted(together, reverse=True)[:k]
        return sum(chosen for _, chosen in best) / k if k else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.lists(), "vote": self.vote}


@dataclass(frozen=True)
class Counterfactual:
    """The change that flips one decision."""

    decision: int  # its position on the path
    # log-probability of the most probable class below the chosen child minus that of the most
    # probable one below its siblings, in nats
    margin: float
    runner_up_path: Path  # the path to that other class
    # what was blurred, the largest first; empty if nothing flips it. None of their cells can be
    # left out.
    regions: tuple[Region, ...]
    # whether the model's path on the blurred picture still reaches this decision and takes another
    # child
    flipped: bool
    becomes: str | None  # the name of the child that it takes then; None if nothing flips it
    # of the chosen child, before and after; equal if nothing flips it
    log_odds: tuple[float, float]
    share: float  # part of the picture that was blurred, from 0 to 1
    # the largest share that was tried; 0 where the model's path does not go this way
    searched: float
    passes: int  # forward passes that the search took, counted in blurred pictures
    baseline: str  # what replaced the regions
    # what the model saw in the end, at the size of its input
    picture: Image.Image | None = field(default=None, repr=False, compare=False)
    # whether a try changed an earlier decision, so that the model did not reach this one and its
    # outcome is unknown
    overtaken: bool = False


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image's path, and for each decision the map of what supports it and what argues against it.

    Maps are float32, raw and signed, at the resolution of their layer, and read-only.

    Attributes:
        path: the decisions from the root to the class.
        maps: one a decision, (height, width): the share of each position in the log-odds of the
            chosen child among its siblings.
        child_maps: one a decision, (children, height, width): the share in each child's own score;
            empty for methods other than Grad-CAM.
        node_maps: by id, (height, width): the log-odds maps of the nodes that were asked for.
        node_child_maps: by id, (children, height, width): the share in each child's own score, of
            those nodes that have children; empty for methods other than Grad-CAM.
        photo: the part of the photograph that the network saw, or None if tensors were given.
        evidence: one a decision: the nearest training images on both sides; empty unless asked for.
        contributions: one a decision: its log-odds as a sum over the photographs of the model's
            memory; empty for a model whose last layer was not fitted on one.
        counterfactuals: one a decision: what would change it; empty unless asked for.
        tested: one a decision: the region whose hiding lowers it, and lowers it more than it changes
            the others; None where no such region was found. Empty at level "fast".
        alike: for each side of the closest decision with evidence, which regions the nearest
            photograph and this one have in common; empty without evidence, and at level "fast".
        made: how: method, layer, model, hierarchy, versions.
    """

    path: Path
    maps: tuple[Map, ...]
    child_maps: tuple[Map, ...] = ()
    node_maps: Mapping[str, Map] = field(default_factory=dict)
    node_child_maps: Mapping[str, Map] = field(default_factory=dict)
    photo: Image.Image | None = field(default=None, repr=False)
    evidence: tuple[DecisionEvidence, ...] = ()
    contributions: tuple[DecisionContributions, ...] = ()
    counterfactuals: tuple[Counterfactual, ...] = ()
    tested: tuple[TestedRegion | None, ...] = ()
    alike: tuple[AlikeRegions, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("maps", "child_maps"):
            object.__setattr__(self, name, tuple(map(_frozen, getattr(self, name))))
        for name in ("node_maps", "node_child_maps"):
            maps = {node: _frozen(values) for node, values in getattr(self, name).items()}
            object.__setattr__(self, name, maps)
        if self.photo is not None and self.photo.info.get(REMARK):
            object.__setattr__(self, "made", {**self.made, REMARK: self.photo.info[REMARK]})

    @property
    def answer(self) -> Answer | None:
        """Where the model's answer stops on the path; None if another path was asked for."""
        facts = self.made.get("answer")
        return Answer(path=self.path, **facts) if facts else None

    @property
    def promise(self) -> str:
        """What the accuracy of the answer promises; empty where nothing is."""
        return str(self.made.get("promise", ""))

    @property
    def no_contributions(self) -> str:
        """Why there are none although the last layer was fitted on a memory; empty otherwise."""
        return str(self.made.get("no_contributions", ""))

    @property
    def remark(self) -> str:
        """What to know about the photograph's pixels, such as that all are nearly black, or ""."""
        return str(self.made.get(REMARK, ""))

    @property
    def answered_by(self) -> str:
        """Which model of a cascade answered, in a sentence; empty for any other model."""
        by = self.made.get("answered_by")
        if not by:
            return ""
        return f"The {by['model']} model answered: {by['network']}, {by['pixels']} pixels."

    @property
    def left_out(self) -> str:
        """What the classes that a restricted model lacks had; empty for any other model."""
        removed = self.made.get("removed_probability")
        if removed is None:
            return ""
        doubt = " This photograph may show one of them." if removed > 0.5 else ""
        return f"The classes that cannot occur here would have had {percent(removed)}.{doubt}"

    @property
    def closest_with_evidence(self) -> int | None:
        """The decision of the smallest margin among those with evidence on both sides, if any."""
        margins = {
            index: decision.margin
            for index, (decision, near) in enumerate(zip(self.path, self.evidence, strict=False))
            if near.chosen and near.rejected
        }
        return min(margins, key=margins.__getitem__, default=None)

    @property
    def constants(self) -> tuple[float, ...]:
        """For each decision its log-odds minus the sum of its map: the part of no position.

        For maps in closed form these are the classifier's biases and, under `marginal`, the
        contribution of the sizes of the groups (entropies). Other methods promise no sum.
        """
        return tuple(
            decision.log_odds - float(values.sum(dtype=np.float64))
            for decision, values in zip(self.path, self.maps, strict=True)
        )

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the maps, in positions of the feature map."""
        height, width = self.maps[0].shape
        return height, width

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: the path, maps as nested lists, sums, and how it was made."""
        maps = [values.tolist() for values in self.maps]
        facts: dict[str, Any] = {"constants": list(self.constants), "made": dict(self.made)}
        if self.contributions:
            facts["contributions"] = [found.to_dict() for found in self.contributions]
        if self.no_contributions:
            facts["no_contributions"] = self.no_contributions
        return {**self.path.to_dict(), "maps": maps, **facts}

    if TYPE_CHECKING:  # attached in `nbdt/explain/result/__init__.py`

        @property
        def headline(self) -> str:
            """The answer in everyday words, with how sure each part of it is."""

        @property
        def words(self) -> str:
            """A short paragraph for a person who knows nothing of networks."""

        def save(self, folder: str | os.PathLike[str], *, grid: bool = False) -> None:
            """Write everything to a new folder, with one HTML page that shows it offline.

            With `grid`, the pictures of decisions have the cells that the network sees.

            Raises:
                NBDTError: the folder exists.
                OSError: it cannot be written.
            """

        @staticmethod
        def load(folder: str | os.PathLike[str]) -> "Explanation":
            """Read what `save` wrote: the same path, photograph and, bit for bit, maps.

            Raises NBDTError: no such folder, a newer version, or a file that is missing or damaged.
            """

        def _repr_html_(self) -> str: ...


def _frozen(values: Map) -> Map:
    if values.flags.writeable or not values.flags.owndata:
        values = values.copy()
        values.setflags(write=False)
    return values
