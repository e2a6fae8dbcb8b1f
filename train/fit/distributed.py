"""One run on several devices and machines: DDP, or FSDP2 for networks that one device cannot hold.

Lightning starts one process a device on this machine, with this very command; on several machines
torchrun or SLURM starts them. Every process reads the data and the recipe itself; the first alone
writes, measures and speaks.
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

from ..recipe import Recipe
from .checkpoints import SafeCheckpointIO

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
PATIENCE = timedelta(minutes=10)  # for a rank that does not answer


def device_count(recipe: Recipe) -> int:
    """Processes on this machine, each with its device."""
    if recipe.devices:
        return recipe.devices
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE")
    return int(local) if local else max(1, torch.cuda.device_count())


def is_shared(recipe: Recipe) -> bool:
    """Whether more than one process trains."""
    return device_count(recipe) * recipe.nodes > 1


def global_rank() -> int:
    """Of this process; 0 where it is alone, or not yet told."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def make_strategy(recipe: Recipe) -> Any:
    """Lightning's strategy for a recipe."""
    if recipe.strategy == "fsdp":
        ranks = device_count(recipe) * recipe.nodes
        return FullySharded(data_parallel_size=ranks, tensor_parallel_size=1,
                            save_distributed_checkpoint=False, timeout=PATIENCE)  # fmt: skip
    if not is_shared(recipe) and recipe.strategy == "auto":
        return "auto"
    return DDPStrategy(timeout=PATIENCE)


class FullySharded(ModelParallelStrategy):
    """FSDP2, with whole checkpoints that one device can load, and without pickle.

    Lightning's own reading expects what `torch.save` wrote.
    """

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """The checkpoint, its weights and optimiser states put into their shards."""
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
    """An optimiser's state, keyed by the names of its parameters instead of their numbers."""
    groups = state["param_groups"]

    def name(key: Any) -> Any:
        return names[key] if isinstance(key, int) else key

    return {
        "state": {name(key): value for key, value in state["state"].items()},
        "param_groups": [{**g, "params": [name(key) for key in g["params"]]} for g in groups],
    }


class SyncedNorms(TorchSyncBatchNorm):
    """Batch norms that estimate over all devices; timm's keep the activation that they hold.

    Lightning's own conversion loses it, and gives back other classes than it took.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Put synchronised norms in place; they share weights and statistics with the old ones."""
        self._norms = {
            name: part for name, part in model.named_modules() if isinstance(part, BATCH_NORMS)
        }
        synced: nn.Module = convert_sync_batchnorm(model)
        return synced

    def revert(self, model: nn.Module) -> nn.Module:
        """Put the old ones back, with what was learnt."""
        for name, norm in self._norms.items():
            synced = model.get_submodule(name)
            own = synced.named_parameters(recurse=False), synced.named_buffers(recurse=False)
            for key, value in chain(*own):
                setattr(norm, key, value)
            norm.train(synced.training)
            model.set_submodule(name, norm)
        return model


def raise_if_lost(error: RuntimeError, recipe: Recipe) -> None:
    """Say in words that another process of the run has gone. Raises NBDTError if so."""
    text = str(error)
    if is_shared(recipe) and any(
        sign in text for sign in ("onnection", "imed out", "NCCL", "peer")
    ):
        raise NBDTError(
            f"Process {global_rank()} lost another process of this run (killed, or its machine is "
            f"gone): {text.splitlines()[0][:200]}. The last checkpoint is whole: run the same command "
            "with --resume."
        ) from error


def shard(network: nn.Module, mesh: Any) -> None:
    """Divide a network's weights among the ranks of a device mesh, in place: FSDP2."""
    from torch.distributed.fsdp import fully_shard

    for part in network.children():
        if sum(value.numel() for value in part.parameters()):
            fully_shard(part, mesh=mesh["data_parallel"])
    fully_shard(network, mesh=mesh["data_parallel"])


def unshard(network: nn.Module) -> dict[str, Any]:
    """The whole state of a sharded network, on the CPU of every rank."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state: dict[str, Any] = get_model_state_dict(
        network, options=StateDictOptions(full_state_dict=True)
    )
    return {name: value.cpu() for name, value in state.items()}


def full_tensor(value: Tensor) -> Tensor:
    """Return a weight as one tensor, also if it is divided among ranks."""
    return cast(Tensor, cast(Any, value).full_tensor()) if hasattr(value, "full_tensor") else value
