"""What runs in the processes of a cluster: one lists the inputs, the others make parts."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from nbdt.errors import NBDTError
from nbdt.images.inputs import Input, iter_inputs, parts_of
from nbdt.model.fingerprint import model_hash
from nbdt.model.model import NBDT
from nbdt.storage import Place, is_uri

from .device import to_device
from .folder import BatchFolder
from .job import Job
from .loading import Loader
from .work import Work, count_failed

if TYPE_CHECKING:
    from ..evidence.index import EvidenceIndex

Record: TypeAlias = dict[str, Any]  # one row, as columns


@dataclass(frozen=True)
class Plan:
    """What every process of the cluster is told.

    Attributes:
        job: without its evidence, which each process reads from `evidence`, a folder.
        place: where the batch lies.
        identity: of the batch.
        start: the folder that relative paths start from.
        shard: as of `explain_all`.
        verify: as of `explain_all`.
    """

    job: Job
    place: Place
    identity: Mapping[str, Any]
    start: str
    evidence: Path | None
    shard: tuple[int, int]
    verify: bool

    def enter(self) -> None:
        """Relative paths mean here what they mean to the caller."""
        if os.path.isdir(self.start):
            os.chdir(self.start)
        elif not all(map(is_uri, self.identity["inputs"])):
            raise NBDTError(
                f"There is no folder {self.start!r}: start where all nodes share the disk, or name "
                "inputs by URI, such as s3://…"
            )


def list_parts(_: Record, plan: Plan) -> Iterator[Record]:
    """The inputs of each part of this share, and an empty part behind the last."""
    (number, shards), part = plan.shard, 0
    try:
        plan.enter()
        inputs = iter_inputs(plan.identity["inputs"], plan.job.column)
        for members in parts_of(inputs, plan.job.part_size):
            if part % shards == number - 1:
                yield _row(part=part, inputs=members, error="")
            part += 1
        yield _row(part=part, inputs=[], error="")
    except (NBDTError, OSError) as error:
        yield _row(part=part, inputs=[], error=str(error))


class Worker:
    """An actor: loads the model once, then makes parts.

    What goes wrong is told in a row's ``error`` and not raised: Ray would try it again.
    """

    def __init__(self, plan: Plan, stored: Any) -> None:
        self.plan, self.error = plan, ""
        self.contexts = ExitStack()  # open as long as the process lives
        try:
            self._start(stored)
        except (NBDTError, OSError) as error:
            self.error = f"A worker on {platform.node()} cannot start: {error}"

    def _start(self, stored: Any) -> None:
        import ray

        plan = self.plan
        plan.enter()
        model = to_device(_loaded(ray.get(stored), plan.identity["model"]))
        job = replace(plan.job, evidence=_evidence(plan))
        folder = BatchFolder(plan.place, job.kinds)
        folder.check(plan.identity)
        run = self.contexts.enter_context(job.explaining(model))
        share = ray.get_runtime_context().get_assigned_resources()
        threads = max(1, int(share.get("CPU", 1)))
        torch.set_num_threads(threads)
        self.loader = self.contexts.enter_context(
            Loader(model.preprocess, threads, photo=folder.draws)
        )
        self.work = Work(model, run, folder, job, _nobody)

    def __call__(self, batch: Record) -> Record:
        """What became of one part; of an empty one, nothing."""
        part, inputs = int(batch["part"][0]), list(batch["inputs"][0])
        error = str(batch["error"][0]) or self.error
        failed, made = 0, False
        if inputs and not error:
            try:
                failed, made = self._make(part, inputs)
            except (NBDTError, OSError) as told:
                error = str(told)
        return _row(part=part, images=len(inputs), failed=failed, made=made, error=error)

    def _make(self, part: int, inputs: Sequence[Input]) -> tuple[int, bool]:
        """How many failed, and whether there was anything to do."""
        folder = self.work.folder
        if folder.is_done(part, inputs, every_byte=self.plan.verify):
            return folder.facts(part)["failed"], False
        folder.forget(part)
        return count_failed(self.work.make(part, self.loader(inputs))), True


def _row(**values: Any) -> Record:
    """Columns of one row; a list is one object, which numpy would take apart."""
    columns = {}
    for name, value in values.items():
        columns[name] = np.empty(1, object if isinstance(value, list) else np.array(value).dtype)
        columns[name][0] = value
    return columns


def _loaded(files: Mapping[str, bytes], expected: str) -> NBDT:
    with tempfile.TemporaryDirectory() as aside:
        for name, data in files.items():
            Path(aside, name).write_bytes(data)
        model = NBDT.load(aside).eval()
    if model_hash(model) != expected:
        raise NBDTError("the model changed on its way: its hash is another.")
    return model


def _evidence(plan: Plan) -> EvidenceIndex | None:
    from ..evidence.index import EvidenceIndex

    if plan.evidence is None:
        return None
    index = EvidenceIndex.load(plan.evidence)
    if index.hash != plan.identity["options"]["evidence"]:
        raise NBDTError(f"{str(plan.evidence)!r} holds other evidence here.")
    return index


def _nobody(_: int) -> None:
    """The caller is told of whole parts."""
