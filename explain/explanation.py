"""What an explanation is: a frozen result that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nbdt.paths import Path


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image's path, and for each decision the map of what spoke for and against it.

    Attributes:
        path: the decisions from the root to the class.
        maps: one a decision, (height, width) float32: the raw signed share of each position in
            the log-odds of the chosen child, at the feature map's own resolution.
        photo: the part of the photograph that the network saw, or None if tensors were given.
        made: how: method, layer, shapes, model, hierarchy, versions.
    """

    path: Path
    maps: tuple[NDArray[np.float32], ...]
    photo: Image.Image | None = field(repr=False)
    made: Mapping[str, Any]

    @property
    def scale(self) -> float:
        """The largest absolute value along the path: one colour scale for all its maps."""
        return max(float(np.abs(values).max()) for values in self.maps)

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of the maps, in positions of the feature map."""
        height, width = self.maps[0].shape
        return height, width

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the path, the maps as nested lists, and how they were made."""
        maps = [values.tolist() for values in self.maps]
        return {**self.path.to_dict(), "maps": maps, "made": dict(self.made)}

    def _repr_html_(self) -> str:
        from .render import data_url, picture

        shown = f'<img alt="" src="{data_url(picture(self))}">' if self.photo else ""
        return self.path._repr_html_() + shown
