"""A batch on a Ray cluster.

The caller lists the inputs in parts; a pool of actors, each with the model, explains the parts and
writes them to the batch's folder, which all nodes can reach. Only names travel, the files are those
of one machine, and Ray repeats a part whose worker dies.
"""

import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch

from nbdt.errors import NBDTError
from nbdt.images.dataset import iter_inputs
from nbdt.images.sources import ImageSource
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.network.encoder import best_device, to_device
from nbdt.storage import Storage, is_uri

from .compute import decoder, explaining, resolve_precision
from .folder import BatchFolder
from .options import AUTO, BatchOptions
from .writer import PartQueue, PartWriter, Row, count_failed

QUIET = {  # no telemetry, no outside request; only fatal errors in the log
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
SHARED = "Nodes need the same files: name a disk that all share, or URIs, such as s3://…"


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
) -> Iterator[Sequence[Row]]:
    """Yield the rows of each part that is made, in the order in which they are done; count all.

    Raises NBDTError: an error of any process about inputs, folder or model; or a failure
    of Ray.
    """
    from ray.util import ActorPool

    count, share = workers_of(ray.nodes(), workers)
    # Ray starts a dead actor again, on any node, and repeats what it was doing.
    actor = ray.remote(max_restarts=-1, max_task_retries=-1, **share)(Worker)
    stored = ray.put(_saved(model))
    sent = options, queue.folder.storage, identity, os.getcwd(), stored
    pool = ActorPool([actor.remote(*sent) for _ in range(count)])

    def finished() -> Iterator[Sequence[Row]]:
        part, images, failed, made = pool.get_next_unordered()
        queue.add(images, failed, repeated=not made)
        if made:
            yield queue.folder.rows(part)

    try:
        for job in queue.parts(iter_inputs(identity["inputs"], options.column)):
            if not pool.has_free():
                yield from finished()
            # A part that is written and then repeated, since its worker died, was not done before.
            pool.submit(lambda one, job: one.write.remote(*job, one.done.remote(*job)), job)
        while pool.has_next():
            yield from finished()
    except ray.exceptions.RayTaskError as error:
        known = isinstance(error.cause, NBDTError | OSError)
        raise NBDTError(str(error.cause if known else f"The cluster gave up: {error}")) from None
    except ray.exceptions.RayError as error:
        raise NBDTError(f"The cluster gave up: {error}") from error


def best_precision(ray: Any, workers: int | None) -> str:
    """Return what "auto" means on the cluster's workers, not on the caller's machine."""
    _, share = workers_of(ray.nodes(), workers)
    best = ray.remote(**share)(lambda: resolve_precision(AUTO, best_device()))
    return cast(str, ray.get(best.remote()))


def _saved(model: NBDT) -> dict[str, bytes]:
    """Return the files of the saved model without its memory, by name."""
    bare = model.with_hierarchy(model.hierarchy)
    bare.memory_place = None
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside, "model")
        bare.save(folder)
        files = (file for file in folder.rglob("*") if file.is_file())
        return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


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


# ---- in the processes of the cluster -----------------------------------------------------------


class Worker:
    """An actor that loads the model once, with its first part, and then writes parts.

    Args:
        options: of the batch.
        storage: the batch's folder.
        identity: from `BatchOptions.identity`.
        start: the folder that relative paths start from.
        stored: the files of the saved model, by name.
    """

    def __init__(
        self, options: BatchOptions, storage: Storage, identity: Mapping[str, Any], start: str,
        stored: Mapping[str, bytes],
    ) -> None:  # fmt: skip
        self.options, self.identity, self.start, self.stored = options, identity, start, stored
        self.folder = BatchFolder(storage, options.kinds)
        self.contexts = ExitStack()  # open as long as the process lives

    @cached_property
    def writer(self) -> PartWriter:
        """The model, ready to write parts. Raises NBDTError: this node cannot take part."""
        try:
            if os.path.isdir(self.start):
                os.chdir(self.start)  # relative paths mean what they mean to the caller
            elif not all(map(is_uri, self.identity["inputs"])):
                raise NBDTError(f"There is no folder {self.start!r}.")
            model = to_device(_loaded(self.stored, self.identity["model"]))
            self.folder.check(self.identity)
            torch.set_num_threads(_threads())  # before ONNX Runtime starts
            explainer = self.contexts.enter_context(explaining(model, self.options))
        except (NBDTError, OSError) as error:
            where = platform.node()
            raise NBDTError(f"A worker on {where} cannot start: {error} {SHARED}") from None
        return PartWriter(model, explainer, self.folder, self.options, lambda _: None)

    def done(self, part: int, inputs: Sequence[ImageSource]) -> int | None:
        """Return how many images of a part failed, if it is done already, else None."""
        folder = self.writer.folder  # of a worker that has started
        return int(folder.facts(part)["failed"]) if folder.is_done(part, inputs) else None

    def write(
        self, part: int, inputs: Sequence[ImageSource], failed: int | None
    ) -> tuple[int, int, int, bool]:
        """Write a part unless it is done: then `failed` of its images failed.

        Returns:
            Its number, how many images it has and how many failed, and whether it was made.
        """
        if failed is not None:
            return part, len(inputs), failed, False
        writer = self.writer
        self.folder.forget(part)
        decode = decoder(
            writer.model.preprocess, _threads(), photo=self.folder.draws, bands=self.options.bands
        )  # fmt: skip
        return part, len(inputs), count_failed(writer.write(part, decode(inputs))), True


def _threads() -> int:
    """Return how many CPUs Ray gave to this process."""
    import ray

    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _loaded(files: Mapping[str, bytes], expected: str) -> NBDT:
    with tempfile.TemporaryDirectory() as aside:
        for name, data in files.items():
            Path(aside, name).parent.mkdir(exist_ok=True)
            Path(aside, name).write_bytes(data)
        model = NBDT.load(aside).eval()
    if model_hash(model) != expected:
        raise NBDTError("the model that arrived has another hash than the one that was sent.")
    return model
