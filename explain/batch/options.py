"""The options that decide what a batch's files contain."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from nbdt.decide.answer import DEFAULT_ACCURACY, check_target
from nbdt.errors import NBDTError, check_known
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT

from ..attribution import GRAD_CAM, check_method
from ..evidence.search import Evidence

Maps: TypeAlias = Literal["npz", "png", "none"]
Engine: TypeAlias = Literal["local", "ray"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

MAPS = {"npz": ("maps",), "png": ("pictures",), "none": ()}  # and the kinds of files they make
ENGINES = LOCAL, RAY = "local", "ray"
AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
BATCH_SIZE = 32  # images in one forward pass
PART_SIZE = 1024  # images in one part: the most work that a kill can cost
DRAWN_PART_SIZE = 64  # where an image takes longer: pages, pictures, other methods


@dataclass(frozen=True)
class BatchOptions:
    """The options of a batch that decide what is in its files; see `explain_all` for each.

    Raises NBDTError: an unknown choice, a size below 1, or evidence without pages.
    """

    maps: str
    pages: bool
    method: str
    accuracy: float | None
    evidence: Evidence | None
    counterfactuals: bool
    column: str | None
    precision: str
    batch_size: int
    part_size: int
    bands: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.accuracy is not None:
            check_target(self.accuracy)
        check_known("maps", self.maps, MAPS)
        for name in ("batch_size", "part_size"):
            if getattr(self, name) < 1:
                raise NBDTError(f"{name}: expected at least 1, got {getattr(self, name)}.")
        if (self.evidence or self.counterfactuals) and not self.pages:
            raise NBDTError(
                "Evidence and counterfactuals of a batch are shown on pages: add --pages (pages=True)."
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of files of a part; see `nbdt.explain.batch.folder.KINDS`."""
        return ("rows", *MAPS[self.maps], *(("pages",) if self.pages else ()))

    def identity(self, model: NBDT, inputs: Sequence[str]) -> dict[str, Any]:
        """Return what ``batch.json`` records, in JSON's types: a folder belongs to one identity."""
        options = asdict(replace(self, evidence=None))
        if self.accuracy == DEFAULT_ACCURACY:
            del options["accuracy"]  # batches of 0.1 have no entry
        bands = list(options.pop("bands"))
        options |= {"bands": bands} if bands else {}
        options |= {"batch": options.pop("batch_size"), "part": options.pop("part_size")}
        return {
            "model": model_hash(model),
            "hierarchy": model.hierarchy.hash,
            "architecture": model.architecture,
            "rule": model.rule,
            "inputs": [text.rstrip("/") or text for text in inputs],  # shells complete a slash
            "options": options | {"evidence": self.evidence.hash if self.evidence else None},
        }


def default_part_size(maps: str, method: str, *, pages: bool) -> int:
    """Return the images in a part: fewer where each takes longer."""
    return DRAWN_PART_SIZE if pages or maps == "png" or method != GRAD_CAM else PART_SIZE


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what two records of `BatchOptions.identity` have different, for a message."""
    before, after = _flat(old), _flat(json.loads(json.dumps(new)))
    names = [name for name in {**after, **before} if before.get(name) != after.get(name)]
    return [f"{n}: {_show(before.get(n))} there, {_show(after.get(n))} now" for n in names]


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    options = record.get("options")
    plain = {name: value for name, value in record.items() if name != "options"}
    return {**plain, **(options if isinstance(options, dict) else {})}


def _show(value: object) -> str:
    """Return the value for a message; a hash is cut short."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return f"{value[:12]}…"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
