"""A batch on a Ray cluster: parts are dealt out to processes that each hold the model.

One task lists the inputs, in parts; a pool of actors (Ray Data) makes them; each writes its own files
to the batch's folder, which all nodes reach. So nothing but names travels, the files are those of one
machine, and a part whose worker dies is simply made again by another.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nbdt.errors import NBDTError
from nbdt.model.model import NBDT

from .cluster_worker import Plan, Worker, list_parts
from .device import best_device, resolve_precision
from .options import AUTO
from .work import Outcome

QUIET = {  # no telemetry, no outside request; of its log, what is fatal
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
LISTING_CPUS = 0  # listing waits for disks: it takes no worker's place


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to a cluster: `address`, $RAY_ADDRESS, or one of this machine.

    One that was started here ends with the block, its logs removed.

    Raises:
        NBDTError: Ray is not installed, or the cluster cannot be reached.
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
    own: dict[str, Any] = {}
    with ExitStack() as stack:
        if address == "local":
            logs = tempfile.mkdtemp(prefix="nbdt-ray-")
            stack.callback(shutil.rmtree, logs, ignore_errors=True)
            own = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": logs}
        stack.callback(ray.shutdown)
        try:
            ray.init(
                address=address, log_to_driver=False, logging_level=logging.ERROR,
                configure_logging=True, **own,
            )  # fmt: skip
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise NBDTError(f"No Ray cluster answers at {address!r}: {error}") from None
        yield ray


def explain_parts(ray: Any, model: NBDT, plan: Plan, workers: int | None) -> Iterator[Outcome]:
    """The outcome of every part, in the order in which they are done.

    Raises:
        NBDTError: what any process of the cluster said of inputs, folder, model or evidence; or
            what Ray gave up on.
    """
    from ray.data import ActorPoolStrategy

    count, share = workers_of(ray.nodes(), workers)
    try:
        with _one_by_one(ray):
            outcomes = (  # lists lie where the command was given: they are read on this node
                ray.data.from_items([0], override_num_blocks=1)
                .map_batches(
                    list_parts, fn_kwargs={"plan": plan}, batch_size=1, num_cpus=LISTING_CPUS,
                    label_selector={"ray.io/node-id": ray.get_runtime_context().get_node_id()},
                )
                .map_batches(
                    Worker, fn_constructor_args=(plan, ray.put(_saved(model))), batch_size=1,
                    compute=ActorPoolStrategy(size=count), **share,
                )
            )  # fmt: skip
            for row in outcomes.iter_rows():
                if row["error"]:
                    raise NBDTError(row["error"])
                yield Outcome(row["part"], row["images"], row["failed"], row["made"])
    except ray.exceptions.RayError as error:
        raise NBDTError(f"The cluster gave up: {error}") from error


def best_precision(ray: Any, workers: int | None) -> str:
    """What "auto" means on the cluster: as its workers compute, not as the caller would."""
    _, share = workers_of(ray.nodes(), workers)
    found: str = ray.get(ray.remote(**share)(_best_here).remote())
    return found


def _best_here() -> str:
    return resolve_precision(AUTO, best_device())


@contextmanager
def _one_by_one(ray: Any) -> Iterator[None]:
    """Parts are dealt out one by one, quietly; without this, a hundred megabytes of names at once.

    These settings are the process's, and may be somebody else's too: they are put back.
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
    """The files of a saved model, by name."""
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside, "model")
        model.save(folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def workers_of(
    nodes: Sequence[Mapping[str, Any]], wanted: int | None
) -> tuple[int, dict[str, Any]]:
    """How many processes, and the share of a node that each has to itself.

    By default one a GPU, or one a node where there are none.

    Raises:
        NBDTError: a number below one, or a cluster without a node that could work.
    """
    if wanted is not None and wanted < 1:
        raise NBDTError(f"workers: expected at least 1 with --engine ray, got {wanted}.")
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    able = [found for found in resources if found.get("GPU")] or resources
    able = [found for found in able if found.get("CPU")]
    if not able:
        raise NBDTError("The cluster has no node with a CPU to work on.")
    gpus = int(sum(found.get("GPU", 0) for found in able))
    count = wanted or gpus or len(able)
    each = -(-count // len(able))  # processes on a node
    cpus = min(found["CPU"] for found in able)
    share: dict[str, Any] = {"num_cpus": int(cpus // each) or cpus / each}
    if gpus:
        share["num_gpus"] = min(1.0, gpus / count)
    return count, share
