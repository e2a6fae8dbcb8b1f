"""One run on several devices and machines: DDP, or FSDP2 for networks that one device cannot hold.

Lightning starts one process for each device of this machine, with the same command. On several
machines torchrun or SLURM starts them. Every process reads the data and the recipe. Only the first
writes, measures and reports.
"""

from __future__ import annotations

import os
from datetime import timedelta
from itertools import chain
from typing import Any, cast

import torch
from lightning.pytorch.plugins import TorchSyncBatchNorm
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from nbdt.errors import NBDTError

from ..folder import global_rank
from ..recipe import Recipe
from .checkpoints import SafeCheckpointIO

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
TIMEOUT = timedelta(minutes=10)  # for a rank that does not answer


def device_count(recipe: Recipe) -> int:
    """Return the number of processes on this machine, one a device."""
    if recipe.devices:
        return recipe.devices
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    return int(local) if local else max(1, torch.cuda.device_count())


def is_shared(recipe: Recipe) -> bool:
    """Return whether more than one process trains."""
    return device_count(recipe) * recipe.nodes > 1


def make_strategy(recipe: Recipe) -> Any:
    """Return Lightning's strategy for a recipe."""
    if recipe.strategy == "fsdp":
        ranks = device_count(recipe) * recipe.nodes
        return FullySharded(data_parallel_size=ranks, tensor_parallel_size=1,
                            save_distributed_checkpoint=False, timeout=TIMEOUT)  # fmt: skip
    if not is_shared(recipe) and recipe.strategy == "auto":
        return "auto"
    return DDPStrategy(timeout=TIMEOUT)


class FullySharded(ModelParallelStrategy):
    """FSDP2 with undivided checkpoints, which one device can load, and without pickle.

    Lightning's own reader expects a file of `torch.save`.
    """

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """Return a checkpoint; its weights and optimiser states go into their shards."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        checkpoint = SafeCheckpointIO().load_checkpoint(self.broadcast(checkpoint_path))
        options = StateDictOptions(full_state_dict=True)
        module: Any = self.model
        set_model_state_dict(module, checkpoint.pop("state_dict"), options=options)
        names = [name for name, _ in module.named_parameters()]
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            set_optimizer_state_dict(module, optimizer, _by_name(state, names), options=options)
        return checkpoint


def _by_name(state: Any, names: list[str]) -> Any:
    """Key an optimiser's state by the names of its parameters instead of their numbers."""
    groups = state["param_groups"]

    def name(key: Any) -> Any:
        return names[key] if isinstance(key, int) else key

    return {
        "state": {name(key): value for key, value in state["state"].items()},
        "param_groups": [{**g, "params": [name(key) for key in g["params"]]} for g in groups],
    }


class SyncedNorms(TorchSyncBatchNorm):
    """Batch norms whose statistics cover all devices; timm's norms keep their activation.

    Lightning's own conversion loses the activation, and does not restore the original classes.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Replace the norms; the synchronised ones share weights and statistics with the old ones."""
        self._norms = {
            name: part for name, part in model.named_modules() if isinstance(part, BATCH_NORMS)
        }
        synced: nn.Module = convert_sync_batchnorm(model)
        return synced

    def revert(self, model: nn.Module) -> nn.Module:
        """Restore the old norms with the trained values."""
        for name, norm in self._norms.items():
            synced = model.get_submodule(name)
            parameters = synced.named_parameters(recurse=False)
            for key, value in chain(parameters, synced.named_buffers(recurse=False)):
                setattr(norm, key, value)
            norm.train(synced.training)
            model.set_submodule(name, norm)
        return model


def raise_if_lost(error: RuntimeError, recipe: Recipe) -> None:
    """Raise an NBDTError if the error means that another process of the run has ended."""
    text = str(error)
    if is_shared(recipe) and any(
        sign in text for sign in ("onnection", "imed out", "NCCL", "peer")
    ):
        raise NBDTError(
            f"Process {global_rank()} lost another process of this run (killed, or its machine is "
            f"gone): {text.splitlines()[0][:200]}. The last checkpoint is complete: run the same "
            "command with --resume."
        ) from error


def shard(network: nn.Module, mesh: Any) -> None:
    """Divide a network's weights among the ranks of a device mesh, in place: FSDP2."""
    from torch.distributed.fsdp import fully_shard

    for part in network.children():
        if sum(value.numel() for value in part.parameters()):
            fully_shard(part, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])


def unshard(network: nn.Module) -> dict[str, Any]:
    """Return the complete state of a sharded network, on the CPU of every rank."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: dict[str, Any] = get_model_state_dict(
        network, options=StateDictOptions(full_state_dict=True)
    )
    return {name: value.cpu() for name, value in state.items()}


def full_tensor(value: Tensor) -> Tensor:
    """Return a weight as one tensor, also if it is divided among ranks."""
    return cast(Tensor, cast(Any, value).full_tensor()) if hasattr(value, "full_tensor") else value
