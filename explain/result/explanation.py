"""What an explanation is: a frozen result that says how it was made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.decide.paths import Path

from ..maps.regions import upsampled

if TYPE_CHECKING:
    from ..counterfactual.search import Counterfactual
    from ..evidence.neighbours import DecisionEvidence

Map: TypeAlias = NDArray[np.float32]
CLOSED_FORM = "closed form"  # how ``made["method"]`` begins for maps that add up to the log-odds


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image's path, and for each decision the map of what spoke for and against it.

    Maps are float32, raw and signed, at the resolution of the layer that they lie on, and cannot be
    written to.

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
        counterfactuals: one a decision: what would change it; empty unless asked for.
        made: how: method, layer, model, hierarchy, versions.
    """

    path: Path
    maps: tuple[Map, ...]
    child_maps: tuple[Map, ...] = ()
    node_maps: Mapping[str, Map] = field(default_factory=dict)
    node_child_maps: Mapping[str, Map] = field(default_factory=dict)
    photo: Image.Image | None = field(default=None, repr=False)
    evidence: tuple[DecisionEvidence, ...] = ()
    counterfactuals: tuple[Counterfactual, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("maps", "child_maps"):
            object.__setattr__(self, name, tuple(map(_frozen, getattr(self, name))))
        for name in ("node_maps", "node_child_maps"):
            maps = {node: _frozen(values) for node, values in getattr(self, name).items()}
            object.__setattr__(self, name, maps)

    @property
    def constants(self) -> tuple[float, ...]:
        """One a decision: its log-odds less the sum of its map, which no position speaks for.

        Of maps in closed form these are the classifier's biases and, under `marginal`, what the sizes
        of the groups add (entropies). Other ways promise no sum, and this is what they leave open.
        """
        return tuple(
            decision.log_odds - float(values.sum(dtype=np.float64))
            for decision, values in zip(self.path, self.maps, strict=True)
        )

    def upsampled(self, height: int, width: int) -> tuple[Map, ...]:
        """The maps at another resolution, say a photograph's, interpolated bicubically."""
        return tuple(upsampled(values, height, width) for values in self.maps)

    @property
    def scale(self) -> float:
        """The largest absolute value along the path: one colour scale for all its maps."""
        return max(float(np.abs(values).max()) for values in self.maps)

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the maps, in positions of the feature map."""
        height, width = self.maps[0].shape
        return height, width

    @property
    def words(self) -> str:
        """A short paragraph for a person who knows nothing of networks; see `nbdt.explain.result.words`."""
        from .words import words

        return words(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write everything to a new folder, with one HTML page that shows it offline.

        Raises:
            NBDTError: the folder exists.
            OSError: it cannot be written.
        """
        from .files import save

        save(self, folder)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> Explanation:
        """What `save` wrote: the same path, photograph and, bit for bit, maps.

        Raises:
            NBDTError: no such folder, a newer version, or a file that is missing or damaged.
        """
        from .files import load

        return load(folder)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the path, the maps as nested lists, and how they were made."""
        maps = [values.tolist() for values in self.maps]
        facts = {"constants": list(self.constants), "made": dict(self.made)}
        return {**self.path.to_dict(), "maps": maps, **facts}

    def _repr_html_(self) -> str:
        from .pictures import data_url, picture

        shown = f'<img alt="" src="{data_url(picture(self))}">' if self.photo else ""
        return self.path._repr_html_() + shown


def _frozen(values: Map) -> Map:
    """The array if nobody can write to it, else such a copy."""
    if values.flags.writeable or not values.flags.owndata:
        values = values.copy()
        values.setflags(write=False)
    return values
