"""`explain_all`: any number of images to a folder of rows and maps, a part at a time.

Nothing grows with the number of images: inputs stream, one part's rows are in memory, and what is
done is known from the folder alone. So a killed run goes on where it was, and parts can be shared
out among machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbdt.errors import NBDTError, nearest
from nbdt.images.inputs import iter_inputs
from nbdt.model.model import NBDT
from nbdt.storage import Place

from ..attribution import GRAD_CAM
from .device import resolve_precision
from .folder import OVERVIEW, BatchFolder
from .job import BATCH, Explain, Job, default_part_size
from .loading import Loader, default_workers
from .options import AUTO, ENGINES, LOCAL, RAY
from .overview import overview
from .work import Parts, Row, Work

if TYPE_CHECKING:
    from ..evidence.index import EvidenceIndex


@dataclass(frozen=True)
class Batch:
    """What a run left behind.

    Attributes:
        folder: of the batch, its path or URI; see `nbdt.explain.batch.folder`.
        images: in this run's share of the inputs.
        failed: those of them that could not be explained; their rows say why.
        repeated: those that had been done before, and were not done again.
        missing_parts: parts of other shards that are not there yet; 0 once the manifest is.
    """

    folder: str
    images: int
    failed: int
    repeated: int
    missing_parts: int


def explain_all(
    model: NBDT,
    inputs: Sequence[str],
    out: str | os.PathLike[str] | Place,
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
    engine: str = LOCAL,
    ray_address: str | None = None,
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
        inputs: see `nbdt.images.inputs.iter_inputs`.
        out: the batch's folder: new, or of the same batch. A path or a URI, such as s3://….
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
        engine: "local", this process; or "ray", a cluster, with the same files in the end. See
            `nbdt.explain.batch.cluster`.
        ray_address: of a running cluster; by default $RAY_ADDRESS, or else one on this machine.
        workers: threads that decode, 0 for none; with "ray" processes that each hold the model.
        verify: read the files of finished parts and compare hashes, even of unchanged date and size.
        on_images: is told how many more images are done, or found to be done.
        on_rows: is given the rows of each part that was made.

    Raises:
        NBDTError: a model in training mode or without positions to map, an option that cannot be,
            a folder of another batch (and what differs), or inputs that cannot be listed.
    """
    _check(model, engine, shard)
    job = Job(
        maps, pages, method, evidence, counterfactuals, column,
        resolve_precision(precision, model.device), batch_size,
        part_size or default_part_size(maps, method, pages=pages),
    )  # fmt: skip
    folder = BatchFolder(out, job.kinds)
    _check_apart(folder, inputs)
    parts = Parts(folder, job.part_size, shard, on_images or _ignore, verify)
    tell = on_rows or _ignore
    with ExitStack() as stack:
        if engine == RAY:
            from .cluster import best_precision, connected

            ray = stack.enter_context(connected(ray_address))
            if precision == AUTO:
                job = replace(job, precision=best_precision(ray, workers))
        identity = job.identity(model, inputs)
        run = stack.enter_context(job.explaining(model))
        folder.open(identity)
        if engine == RAY:
            _on_cluster(ray, model, job, parts, identity=identity, workers=workers, tell=tell)
        else:
            _here(model, run, job, parts, inputs=inputs, workers=workers, tell=tell)
    missing = folder.finish(parts.count, identity)
    if job.pages and not missing and not folder.place.exists(OVERVIEW):
        folder.place.write(OVERVIEW, overview(folder, parts.count).encode())
    return Batch(str(folder.place), parts.images, parts.failed, parts.repeated, missing)


def _here(
    model: NBDT,
    run: Explain,
    job: Job,
    parts: Parts,
    *,
    inputs: Sequence[str],
    workers: int | None,
    tell: Callable[[Sequence[Row]], None],
) -> None:
    work = Work(model, run, parts.folder, job, parts.tell)
    count = default_workers() if workers is None else workers
    with Loader(model.preprocess, count, photo=parts.folder.draws) as loader:
        for rows in work.make_all(parts, iter_inputs(inputs, job.column), loader):
            tell(rows)


def _on_cluster(
    ray: Any,
    model: NBDT,
    job: Job,
    parts: Parts,
    *,
    identity: Mapping[str, Any],
    workers: int | None,
    tell: Callable[[Sequence[Row]], None],
) -> None:
    from .cluster import explain_parts
    from .cluster_worker import Plan

    index = job.evidence
    if index is not None and index.folder is None:
        raise NBDTError("A cluster reads evidence from a folder; this index is in memory alone.")
    folder = index.folder.absolute() if index and index.folder else None
    plan = Plan(
        replace(job, evidence=None), parts.folder.place, identity, os.getcwd(), folder,
        parts.shard, parts.verify,
    )  # fmt: skip
    for outcome in explain_parts(ray, model, plan, workers):
        parts.add(outcome)
        if outcome.made and tell is not _ignore:
            tell(parts.folder.rows(outcome.part))


def _check(model: NBDT, engine: str, shard: tuple[int, int]) -> None:
    model.check_evaluating()
    if engine not in ENGINES:
        raise NBDTError(
            f"Unknown engine {engine!r}; there are {' and '.join(ENGINES)}.{nearest(engine, ENGINES)}"
        )
    if not 1 <= shard[0] <= shard[1]:
        raise NBDTError(f"Expected shard i of n with 1 ≤ i ≤ n, got {shard[0]} of {shard[1]}.")


def _check_apart(folder: BatchFolder, inputs: Sequence[str]) -> None:
    """What is drawn must not be explained in turn."""
    where = str(folder.place)
    if folder.draws and os.path.isdir(where):
        for text in inputs:
            if os.path.isdir(text) and os.path.samefile(text, where):
                raise NBDTError(
                    f"{text!r} is both the photographs' folder and --out, where pictures are drawn; "
                    "name another --out."
                )


def _ignore(_: object) -> None:
    """Nobody wants to know."""
