"""`explain_all`: explain any number of images into a folder of rows and maps, a part at a time.

Memory does not grow with the number of images: inputs stream, and one part's rows are in memory.
The folder alone records what is done, so a killed run continues where it was, and machines can
share the parts.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from nbdt.decide.answer import DEFAULT_ACCURACY
from nbdt.errors import NBDTError, check_known
from nbdt.images.dataset import iter_inputs
from nbdt.images.sources import cores
from nbdt.memory.memory import Memory
from nbdt.model.model import NBDT
from nbdt.storage import Storage

from ..attribution import GRAD_CAM
from ..evidence.search import Evidence, evidence_of
from .compute import decoder, explaining, precision_for
from .folder import OVERVIEW, BatchFolder
from .options import AUTO, BATCH_SIZE, ENGINES, LOCAL, RAY, BatchOptions, default_part_size
from .overview import overview
from .writer import PartQueue, PartWriter, Row


@dataclass(frozen=True)
class Batch:
    """The result of a run."""

    folder: str  # path or URI of the batch; see `nbdt.explain.batch.folder`
    images: int  # number of images in this run's share of the inputs
    failed: int  # number of images that could not be explained; their rows give the reason
    repeated: int  # number of images that were done before and not done again
    # number of parts that are not there: of other shards, or removed; 0 once there is a manifest
    missing_parts: int


def explain_all(
    model: NBDT,
    inputs: Sequence[str],
    out: str | os.PathLike[str] | Storage,
    *,
    maps: str = "npz",
    pages: bool = False,
    method: str = GRAD_CAM,
    accuracy: float | None = DEFAULT_ACCURACY,
    evidence: Memory | Evidence | Literal[False] | None = None,
    counterfactuals: bool = False,
    column: str | None = None,
    bands: Sequence[int] = (),
    precision: str = AUTO,
    batch_size: int = BATCH_SIZE,
    part_size: int | None = None,
    shard: tuple[int, int] = (1, 1),
    engine: str = LOCAL,
    ray_address: str | None = None,
    workers: int | None = None,
    on_images: Callable[[int], None] | None = None,
    on_rows: Callable[[Sequence[Row]], None] = lambda _: None,
) -> Batch:
    """Write the path and maps of every image to a folder, as rows and arrays.

    Called again with the same arguments, it continues: finished parts are not repeated unless a
    file has changed. The result is that of one uninterrupted run, byte for byte on one machine.

    Args:
        model: in evaluation mode, on the device to use; see `nbdt.network.encoder.to_device`.
        inputs: see `nbdt.images.dataset.iter_inputs`.
        out: the batch's folder, new or of the same batch: a path or a URI, such as s3://….
        maps: "npz" (raw), "png" (a picture an image) or "none" (a path needs no maps: faster).
        pages: whether to write an HTML page for each image too.
        method: how maps are made, as in `explain`.
        accuracy: the share of answers that are to be right, as in `explain`.
        evidence: as in `explain`; shown on the pages, and without pages by default none.
        counterfactuals: as in `explain`; shown on the pages.
        column: the column of paths in tables.
        bands: the bands of TIFFs to show, as in `nbdt.images.image.open_image`.
        precision: precision of the backbone: "float32", "bfloat16", or "auto", which is bfloat16
            where the hardware multiplies in it.
        batch_size: images in one forward pass.
        part_size: images in one part.
        shard: (i, n): every n-th part, from the i-th (counted from 1). Parts are the same for all n.
        engine: "local", this process; or "ray", a cluster, which writes the same files. See
            `nbdt.explain.batch.cluster`.
        ray_address: address of a running cluster; by default $RAY_ADDRESS, else one is started here.
        workers: number of decoding threads, 0 for none; with "ray", of processes that each hold
            the model.
        on_images: is called with the number of images that were just done, or found to be done.
        on_rows: is called with the rows of each new part.

    Raises:
        NBDTError: a model in training mode or without positions to map, an impossible option, a
            folder of another batch (the message lists what differs) or that another run is writing
            to, or inputs that cannot be listed.
    """
    model.check_evaluating()
    check_known("engine", engine, ENGINES)
    if not 1 <= shard[0] <= shard[1]:
        raise NBDTError(f"Expected shard i of n with 1 ≤ i ≤ n, got {shard[0]} of {shard[1]}.")
    options = BatchOptions(
        maps, pages, method, accuracy, _shown(model, evidence, pages=pages), counterfactuals, column,
        precision_for(model, precision), batch_size,
        part_size or default_part_size(maps, method, pages=pages), tuple(bands),
    )  # fmt: skip
    if engine == RAY and options.evidence:
        raise NBDTError("Pages of --engine ray show no training photographs: add --memory none.")
    folder = BatchFolder(out, options.kinds)
    _check_apart(folder, inputs)
    queue = PartQueue(folder, options.part_size, shard, on_images or (lambda _: None))
    with ExitStack() as stack:
        if engine == RAY:
            from .cluster import best_precision, connected, explain_parts

            ray = stack.enter_context(connected(ray_address))
            if precision == AUTO:
                options = replace(options, precision=best_precision(ray, workers))
        identity = options.identity(model, inputs)
        explainer = stack.enter_context(explaining(model, options))
        stack.enter_context(folder.locked(shard))
        folder.open(identity)
        made: Iterable[Sequence[Row]]
        if engine == RAY:
            made = explain_parts(ray, model, options, queue, identity=identity, workers=workers)
        else:
            writer = PartWriter(model, explainer, folder, options, queue.on_images)
            threads = cores() if workers is None else workers
            decode = decoder(model.preprocess, threads, photo=folder.draws, bands=bands)
            made = writer.write_all(queue, iter_inputs(inputs, column), decode)
        for rows in made:
            on_rows(rows)
        missing = folder.finish(queue.count, identity)
        if pages and not missing and not folder.storage.exists(OVERVIEW):
            folder.storage.write(OVERVIEW, overview(folder, queue.count).encode())
    return Batch(str(folder.storage), queue.images, queue.failed, queue.repeated, missing)


def _shown(
    model: NBDT, given: Memory | Evidence | Literal[False] | None, *, pages: bool
) -> Evidence | None:
    """Return the evidence of a batch."""
    if given is None and pages:
        given = model.memory
    if not given:
        return None
    return evidence_of(given)


def _check_apart(folder: BatchFolder, inputs: Sequence[str]) -> None:
    """Refuse to draw pictures into a folder whose images are explained."""
    out = os.path.realpath(str(folder.storage))
    for text in inputs:
        if folder.draws and os.path.isdir(text) and os.path.realpath(text) == out:
            raise NBDTError(
                f"{text!r} is both the photographs' folder and --out, where pictures are drawn; "
                "name another --out."
            )
