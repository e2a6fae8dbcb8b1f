"""`explain_all`: any number of images to a folder of rows and maps, a part at a time.

Nothing grows with the number of images: inputs stream, one part's rows are in memory, and what is
done is known from the folder alone. So a killed run goes on where it was, and parts can be shared
out among machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nbdt.errors import NBDTError, nearest
from nbdt.fingerprint import model_hash
from nbdt.model import NBDT

from ..attribution import GRAD_CAM, check_method, explain, soft_answers
from ..explanation import Explanation
from .device import AUTO, computing, made_on, resolve_precision
from .folder import BatchFolder
from .inputs import iter_inputs
from .loading import Loader, default_workers
from .rows import FAILED
from .work import Explain, Parts, Row, Work

if TYPE_CHECKING:
    from ..evidence.index import EvidenceIndex

MAPS = ("none", "npz", "png")
BATCH = 32  # images in one forward pass
PART = 1024  # images in one part: what a kill can cost
DRAWN_PART = 64  # where an image takes longer: pages, pictures, other methods


@dataclass(frozen=True)
class Batch:
    """What a run left behind.

    Attributes:
        folder: of the batch; see `nbdt.explain.batch.folder`.
        images: in this run's share of the inputs.
        failed: those of them that could not be explained; their rows say why.
        repeated: those that had been done before, and were not done again.
        missing_parts: parts of other shards that are not there yet; 0 once the manifest is.
    """

    folder: Path
    images: int
    failed: int
    repeated: int
    missing_parts: int


def explain_all(
    model: NBDT,
    inputs: Sequence[str],
    out: str | os.PathLike[str],
    *,
    maps: str = "npz",
    pages: bool = False,
    method: str = GRAD_CAM,
    evidence: EvidenceIndex | None = None,
    counterfactuals: bool = False,
    column: str | None = None,
    precision: str = AUTO,
    batch_size: int = BATCH,
    part_size: int | None = None,
    shard: tuple[int, int] = (1, 1),
    workers: int | None = None,
    verify: bool = False,
    on_images: Callable[[int], None] | None = None,
    on_rows: Callable[[Sequence[Row]], None] | None = None,
) -> Batch:
    """The path and maps of every image, as rows and arrays in a folder.

    Called again with the same arguments it goes on: what is done is not repeated, unless its file
    has changed. The result is that of one uninterrupted run, byte for byte on one machine.

    Args:
        model: in evaluation mode, on the device to use; see `nbdt.explain.batch.device.to_device`.
        inputs: see `nbdt.explain.batch.inputs.iter_inputs`.
        out: the batch's folder: new, or of the same batch.
        maps: "npz" (raw), "png" (a picture an image) or "none" (a path needs no maps: faster).
        pages: an HTML page an image as well.
        method: how maps are made, as in `explain`.
        evidence: as in `explain`; on the pages.
        counterfactuals: as in `explain`; on the pages.
        column: of paths, in tables.
        precision: of the backbone: "float32", "bfloat16", or "auto", bfloat16 where the hardware
            multiplies in it.
        batch_size: images in one forward pass.
        part_size: images in one part.
        shard: (i, n): every n-th part, from the i-th (counted from 1). Parts are the same for all n.
        workers: threads that decode; 0 for none.
        verify: read the files of finished parts and compare hashes, even of unchanged date and size.
        on_images: is told how many more images are done, or found to be done.
        on_rows: is given the rows of each part that was made.

    Raises:
        NBDTError: a model in training mode or without positions to map, an option that cannot be,
            a folder of another batch (and what differs), or inputs that cannot be listed.
    """
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device)
    part_size = part_size or _part_size(maps, method, pages=pages)
    _check_options(maps, method, shard, batch_size=batch_size, part_size=part_size)
    if model.training:
        raise NBDTError("The model is in training mode; call model.eval() before explaining.")
    if (evidence or counterfactuals) and not pages:
        raise NBDTError("Evidence and counterfactuals are shown on pages: ask for pages as well.")
    options = {
        "maps": maps,
        "pages": pages,
        "method": method,
        "evidence": evidence.hash if evidence else None,
        "counterfactuals": counterfactuals,
        "column": column,
        "precision": precision,
        "batch": batch_size,
        "part": part_size,
    }
    identity = {
        "model": model_hash(model),
        "hierarchy": model.hierarchy.hash,
        "architecture": model.architecture,
        "rule": model.rule,
        "inputs": list(inputs),
        "options": options,
    }
    run: Explain = partial(
        explain, model, method=method, evidence=evidence, counterfactuals=counterfactuals
    )
    if maps == "none" and not pages:
        run = partial(_paths_alone, model)
    kinds = {"npz": ("maps",), "png": ("pictures",), "none": ()}[maps]
    folder = BatchFolder(out, ("rows", *kinds, *(("pages",) if pages else ())))
    with computing(model, precision):
        _try(run, model)  # what no image could mend is said before anything is written
        folder.open(identity)
        parts = Parts(folder, part_size, shard, on_images or _ignore, verify)
        work = Work(model, run, folder, batch_size, made_on(model, precision), parts.tell)
        count = default_workers() if workers is None else workers
        with Loader(model.preprocess, count, photo=folder.draws) as loader:
            loaded = loader(parts.unfinished(iter_inputs(inputs, column)))
            for first in loaded:
                part, size = parts.waiting.popleft()
                rows = work.make(part, part_size, chain([first], islice(loaded, size - 1)))
                parts.failed += sum(row["status"] == FAILED for row in rows)
                if on_rows:
                    on_rows(rows)
    missing = folder.finish(parts.count, identity)
    return Batch(folder.root, parts.images, parts.failed, parts.repeated, missing)


# ---- checks ------------------------------------------------------------------------------------


def _paths_alone(model: NBDT, images: torch.Tensor) -> list[Explanation]:
    with torch.inference_mode():
        logits = model.head.linear(model.features(images)).float()
    paths, answers = model.head.rules.paths(logits), soft_answers(model, logits)
    return [
        Explanation(p, (), made={"soft_answer": a}) for p, a in zip(paths, answers, strict=True)
    ]


def _part_size(maps: str, method: str, *, pages: bool) -> int:
    return DRAWN_PART if pages or maps == "png" or method != GRAD_CAM else PART


def _check_options(maps: str, method: str, shard: tuple[int, int], **sizes: int) -> None:
    check_method(method)
    if maps not in MAPS:
        raise NBDTError(f"Unknown maps {maps!r}; there are {', '.join(MAPS)}.{nearest(maps, MAPS)}")
    for name, value in sizes.items():
        if value < 1:
            raise NBDTError(f"{name}: expected at least 1, got {value}.")
    if not 1 <= shard[0] <= shard[1]:
        raise NBDTError(f"Expected shard i of n with 1 ≤ i ≤ n, got {shard[0]} of {shard[1]}.")


def _try(run: Explain, model: NBDT) -> None:
    """One pass over a grey image: a network that cannot be explained says so now."""
    side = model.preprocess.size
    run(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))


def _ignore(_: int) -> None:
    """Nobody wants to know."""
