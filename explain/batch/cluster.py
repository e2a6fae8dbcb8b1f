"""A batch on a Ray cluster.

One task lists the inputs in parts; a pool of actors (Ray Data), each with the model, explains the
parts and writes them to the batch's folder, which all nodes can reach. Only names travel, the files
are those of one machine, and another worker repeats a part whose worker dies.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from nbdt.errors import NBDTError
from nbdt.images.dataset import iter_inputs
from nbdt.images.report import Report, log
from nbdt.images.sources import ImageSource
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.model.remember import open_memory
from nbdt.network.encoder import best_device, to_device
from nbdt.storage import Storage, is_uri

from .compute import explaining, resolve_precision
from .decode import decoder
from .folder import BatchFolder
from .options import AUTO, BatchOptions
from .writer import PartQueue, PartResult, PartWriter, count_failed, parts_of

if TYPE_CHECKING:
    from ..evidence.search import Evidence

Record: TypeAlias = dict[str, Any]

QUIET = {  # no telemetry, no outside request; only fatal errors in the log
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
SHARED = "Nodes need the same files: name a disk that all share, or URIs, such as s3://…"
LISTING_CPUS = 0  # listing waits for disks and needs no worker's CPU


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Give the module `ray`, connected to a cluster: `address`, $RAY_ADDRESS, or one of this machine.

    A cluster that was started here ends with the block, and its logs are removed.

    Raises NBDTError: Ray is not installed, or the cluster cannot be reached.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise NBDTError(
            f"--engine ray needs {error.name}; install it with: pip install 'nbdt-vision[scale]'"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    started: dict[str, Any] = {}
    with ExitStack() as stack:
        if address == "local":
            aside = tempfile.TemporaryDirectory(prefix="nbdt-ray-", ignore_cleanup_errors=True)
            logs = stack.enter_context(aside)
            here = {"_node_ip_address": "127.0.0.1", "_temp_dir": logs}
            started = {"include_dashboard": False, **here}
        stack.callback(ray.shutdown)
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=True, **started,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise NBDTError(f"No Ray cluster answers at {address!r}: {error}") from None
        yield ray


def explain_parts(
    ray: Any,
    model: NBDT,
    options: BatchOptions,
    queue: PartQueue,
    *,
    identity: Mapping[str, Any],
    workers: int | None,
) -> Iterator[PartResult]:
    """Yield the result of every part, in the order in which they are done.

    Raises NBDTError: an error of any process about inputs, folder, model or evidence; or a failure
    of Ray.
    """
    from ray.data import ActorPoolStrategy

    batch = batch_of(options, queue, identity)
    count, share = workers_of(ray.nodes(), workers)
    try:
        with _one_by_one(ray):
            results = (  # lists are files of this node, so they are read here
                ray.data.from_items([0], override_num_blocks=1)
                .flat_map(
                    list_parts, fn_kwargs={"batch": batch}, num_cpus=LISTING_CPUS,
                    label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
                )
                .map(
                    Worker, fn_constructor_args=(batch, ray.put(_saved(model))),
                    compute=ActorPoolStrategy(size=count), **share,
                )
            )  # fmt: skip
            for row in results.iter_rows():
                result = PartResult(**row)
                if result.error:
                    raise NBDTError(result.error)
                for line in result.report:
                    log.info("%s", line)
                yield result
    except ray.exceptions.RayError as error:
        raise NBDTError(f"The cluster gave up: {error}") from error


def best_precision(ray: Any, workers: int | None) -> str:
    """Return what "auto" means on the cluster's workers, not on the caller's machine."""
    _, share = workers_of(ray.nodes(), workers)
    best = ray.remote(**share)(lambda: resolve_precision(AUTO, best_device()))
    return cast(str, ray.get(best.remote()))


@contextmanager
def _one_by_one(ray: Any) -> Iterator[None]:
    """Send parts one by one and quietly; by default Ray sends a hundred megabytes of names at once.

    The settings belong to the process, so they are restored at the end.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars, context.target_max_block_size
    context.enable_progress_bars, context.target_max_block_size = False, 1
    try:
        yield
    finally:
        context.enable_progress_bars, context.target_max_block_size = before


def _saved(model: NBDT) -> dict[str, bytes]:
    """Return the files of the saved model without its memory, by name."""
    bare = model.with_hierarchy(model.hierarchy)
    bare.memory_place = None
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside, "model")
        bare.save(folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def workers_of(
    nodes: Sequence[Mapping[str, Any]], workers: int | None
) -> tuple[int, dict[str, Any]]:
    """Return the number of processes, and the share of a node that each reserves.

    By default there is one for each GPU, or one for each node where there are none.

    Raises NBDTError: a number below one, or a cluster without a node that could work.
    """
    if workers is not None and workers < 1:
        raise NBDTError(f"workers: expected at least 1 with --engine ray, got {workers}.")
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    able = [node for node in resources if node.get("GPU")] or resources
    able = [node for node in able if node.get("CPU")]
    if not able:
        raise NBDTError("The cluster has no node with a CPU to work on.")
    gpus = int(sum(node.get("GPU", 0) for node in able))
    count = workers or gpus or len(able)
    each = -(-count // len(able))  # processes on a node
    cpus = min(node["CPU"] for node in able)
    share: dict[str, Any] = {"num_cpus": int(cpus // each) or cpus / each}
    if gpus:
        share["num_gpus"] = min(1.0, gpus / count)
    return count, share


def batch_of(options: BatchOptions, queue: PartQueue, identity: Mapping[str, Any]) -> ClusterBatch:
    """Return what the workers of one run are sent; each call names another run."""
    evidence = options.evidence
    place = None if evidence is None else evidence.memory.table.place
    return ClusterBatch(
        options=replace(options, evidence=None),
        storage=queue.folder.storage,
        identity=identity,
        start=os.getcwd(),
        evidence=place if place is None or is_uri(place) else os.path.abspath(place),
        shard=queue.shard,
        verify=queue.verify,
        run=secrets.token_hex(8),
    )


# ---- in the processes of the cluster -----------------------------------------------------------


@dataclass(frozen=True)
class ClusterBatch:
    """What every process of the cluster knows of the batch."""

    options: BatchOptions  # without the evidence, which each process opens
    storage: Storage  # the batch's folder
    identity: Mapping[str, Any]  # from `BatchOptions.identity`
    start: str  # the folder that relative paths start from
    evidence: str | None  # where the memory is
    shard: tuple[int, int]  # this and the next as in `explain_all`
    verify: bool
    run: str  # names this run, so that a part can say which run wrote it

    def enter(self) -> None:
        """Make relative paths mean what they mean to the caller."""
        if os.path.isdir(self.start):
            os.chdir(self.start)
        elif not all(map(is_uri, self.identity["inputs"])):
            raise NBDTError(f"There is no folder {self.start!r}.")


def list_parts(_: Record, batch: ClusterBatch) -> Iterator[Record]:
    """Yield the inputs of each part of this share; then an empty part, with the reader's report."""
    (number, shards), part, problem = batch.shard, 0, ""
    report = Report("the inputs")
    try:
        batch.enter()
        inputs = iter_inputs(batch.identity["inputs"], batch.options.column, report=report)
        for members in parts_of(inputs, batch.options.part_size):
            if part % shards == number - 1:
                yield {"part": part, "inputs": members, "error": "", "report": []}
            part += 1
    except (NBDTError, OSError) as error:
        problem = str(error)
    yield {"part": part, "inputs": [], "error": problem, "report": report.lines()}


class Worker:
    """An actor that loads the model once and then writes parts.

    It reports an error in a row's ``error``; Ray would repeat what raises.
    """

    def __init__(self, batch: ClusterBatch, stored: Any) -> None:
        self.batch, self.error = batch, ""
        self.contexts = ExitStack()  # open as long as the process lives
        try:
            self._start(batch, stored)
        except (NBDTError, OSError) as error:
            self.error = f"A worker on {platform.node()} cannot start: {error} {SHARED}"

    def _start(self, batch: ClusterBatch, stored: Any) -> None:
        import ray

        batch.enter()
        model = to_device(_loaded(ray.get(stored), batch.identity["model"]))
        options = replace(batch.options, evidence=_evidence(model, batch))
        folder = BatchFolder(batch.storage, options.kinds)
        folder.check(batch.identity)
        explainer = self.contexts.enter_context(explaining(model, options))
        share = ray.get_runtime_context().get_assigned_resources()
        threads = max(1, int(share.get("CPU", 1)))
        torch.set_num_threads(threads)
        self.decoder = decoder(model.preprocess, threads, photo=folder.draws, bands=options.bands)
        self.writer = PartWriter(model, explainer, folder, options, lambda _: None)

    def __call__(self, row: Record) -> Record:
        """Write one part, unless it is empty, and return its result."""
        part, inputs, error = row["part"], row["inputs"], row["error"] or self.error
        failed, made = 0, False
        if inputs and not error:
            try:
                failed, made = self._write(part, inputs)
            except (NBDTError, OSError) as failure:
                error = str(failure)
        return vars(PartResult(part, len(inputs), failed, made, error, row["report"]))

    def _write(self, part: int, inputs: Sequence[ImageSource]) -> tuple[int, bool]:
        """Return how many images failed, and whether this run made the part.

        A worker may die after it wrote a part and before it reported it; the part is then done when
        another worker repeats it.
        """
        folder = self.writer.folder
        if folder.is_done(part, inputs, every_byte=self.batch.verify):
            return folder.facts(part)["failed"], folder.is_from(part, self.batch.run)
        folder.forget(part)
        folder.sign(part, self.batch.run)
        return count_failed(self.writer.write(part, self.decoder(inputs))), True


def _loaded(files: Mapping[str, bytes], expected: str) -> NBDT:
    with tempfile.TemporaryDirectory() as aside:
        for name, data in files.items():
            Path(aside, name).write_bytes(data)
        model = NBDT.load(aside).eval()
    if model_hash(model) != expected:
        raise NBDTError("the model that arrived has another hash than the one that was sent.")
    return model


def _evidence(model: NBDT, batch: ClusterBatch) -> Evidence | None:
    from ..evidence.search import Evidence

    if batch.evidence is None:
        return None
    evidence = Evidence(open_memory(model, batch.evidence))
    if evidence.hash != batch.identity["options"]["evidence"]:
        raise NBDTError(f"The memory at {batch.evidence!r} has other photographs here.")
    return evidence
