"""What is asked of every image of a batch: the same wherever it is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from nbdt.decide.paths import Path
from nbdt.errors import NBDTError, nearest
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..attribution import GRAD_CAM, check_method, explain, soft_answers
from ..maps.layers import last_layer
from ..maps.node_maps import flat_logits, path_maps
from ..result.explanation import Explanation
from .device import computing
from .options import MAPS

if TYPE_CHECKING:
    from ..evidence.index import EvidenceIndex

BATCH = 32  # images in one forward pass
PART = 1024  # images in one part: what a kill can cost
DRAWN_PART = 64  # where an image takes longer: pages, pictures, other methods

Explain: TypeAlias = Callable[[torch.Tensor], Sequence[Explanation]]


@dataclass(frozen=True)
class Job:
    """The options of a batch that decide what is in its files; `explain_all` says what they mean.

    Raises:
        NBDTError: one that cannot be.
    """

    maps: str
    pages: bool
    method: str
    evidence: EvidenceIndex | None
    counterfactuals: bool
    column: str | None
    precision: str
    batch_size: int
    part_size: int

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.maps not in MAPS:
            raise NBDTError(
                f"Unknown maps {self.maps!r}; there are {', '.join(MAPS)}."
                f"{nearest(self.maps, list(MAPS))}"
            )
        for name in ("batch_size", "part_size"):
            if getattr(self, name) < 1:
                raise NBDTError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if (self.evidence or self.counterfactuals) and not self.pages:
            raise NBDTError(
                "Evidence and counterfactuals of a batch are shown on pages: add --pages (pages=True)."
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a part is made of, of `nbdt.explain.batch.folder.KINDS`."""
        return ("rows", *MAPS[self.maps], *(("pages",) if self.pages else ()))

    def identity(self, model: NBDT, inputs: Sequence[str]) -> dict[str, Any]:
        """What a batch's folder belongs to, in JSON's types."""
        return {
            "model": model_hash(model),
            "hierarchy": model.hierarchy.hash,
            "architecture": model.architecture,
            "rule": model.rule,
            "inputs": [text.rstrip("/") or text for text in inputs],  # shells complete a slash
            "options": self._options(),
        }

    def _options(self) -> Mapping[str, Any]:
        plain = asdict(replace(self, evidence=None))
        sizes = {"batch": plain.pop("batch_size"), "part": plain.pop("part_size")}
        return {**plain, "evidence": self.evidence.hash if self.evidence else None, **sizes}

    @contextmanager
    def explaining(self, model: NBDT) -> Iterator[Explain]:
        """From a batch of images to what is stored of each, in the job's precision.

        Raises:
            NBDTError: what no image could mend, such as a network without positions to map.
        """
        run = self._way(model)
        with computing(model, self.precision):
            _try(run, model)
            yield run

    def _way(self, model: NBDT) -> Explain:
        """The least that gives what is stored."""
        if not self.pages and self.maps == "none":
            return partial(_paths_alone, model)
        if not self.pages and self.maps == "npz" and self.method == GRAD_CAM:
            return partial(_paths_and_maps, model)
        return partial(
            explain, model, method=self.method, evidence=self.evidence,
            counterfactuals=self.counterfactuals,
        )  # fmt: skip


def default_part_size(maps: str, method: str, *, pages: bool) -> int:
    """Images in a part, fewer where each takes longer."""
    return DRAWN_PART if pages or maps == "png" or method != GRAD_CAM else PART


def _paths_alone(model: NBDT, images: torch.Tensor) -> list[Explanation]:
    with torch.inference_mode():
        logits = model.logits(images).float()
    paths = model.head.rules.paths(logits)
    return _explanations(model, logits, paths, [()] * len(paths))


def _paths_and_maps(model: NBDT, images: torch.Tensor) -> list[Explanation]:
    layer = last_layer(model, images)
    logits = flat_logits(model, layer.features)
    paths = model.head.rules.paths(logits)
    return _explanations(model, logits, paths, path_maps(model, layer, paths))


def _explanations(
    model: NBDT, logits: torch.Tensor, paths: Sequence[Path], maps: Sequence[tuple[Any, ...]]
) -> list[Explanation]:
    answers = soft_answers(model, logits)
    return [
        Explanation(path, own, made={"soft_answer": answer})
        for path, own, answer in zip(paths, maps, answers, strict=True)
    ]


def _try(run: Explain, model: NBDT) -> None:
    """One pass over a grey image."""
    side = model.preprocess.size
    run(torch.zeros(1, 3, side, side, device=model.device))
