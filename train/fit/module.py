"""The training step as a Lightning module: flat first, then tree-supervised."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from nbdt.decide.head import DecisionRules
from nbdt.errors import NBDTError
from nbdt.hierarchies.induced import induce
from nbdt.model.model import NBDT
from nbdt.network.load import create_timm
from nbdt.network.preprocessing import Preprocessing
from nbdt.tree.hierarchy import Hierarchy

from ..data.augment import seed_all
from ..data.class_order import ClassOrder
from ..data.dataset import Batch, PlainBatches, TrainingBatches, normalise
from ..recipe import Recipe
from .distributed import BATCH_NORMS, shard, unshard
from .loss import TreeSupervisionLoss
from .optimisation import make_optimizer, make_schedule
from .schedules import weight_at

Row = dict[str, float]


class TreeSupervised(lightning.LightningModule):
    """A timm network trained on its flat logits, and on its tree's decisions once there is one.

    Args:
        network: with its linear classifier.
        recipe: the run's settings.
        preprocessing: mean and std of the network's input.
        order: the classes.
        hierarchy: used from the start; None induces one from the classifier's weights when tree
            supervision begins.
        class_weights: (classes,) how much an image of each class counts.
        report: called with each epoch's row of figures.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        preprocessing: Preprocessing,
        order: ClassOrder,
        hierarchy: Hierarchy | None = None,
        *,
        class_weights: Tensor | None = None,
        report: Callable[[list[Row]], None] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.preprocessing = preprocessing
        self.order = order
        self.hierarchy = hierarchy
        self.is_induced = hierarchy is None
        self.report = report
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.average = _average(self.network, recipe)
        kinds = ("flat", "soft", "hard")
        count = len(order.names)
        self.accuracy = nn.ModuleDict(
            {kind: MulticlassAccuracy(count, average="micro") for kind in kinds}
        )
        self.tree_loss: TreeSupervisionLoss | None = None
        self.rules: DecisionRules | None = None
        self.batches: TrainingBatches | None = None
        self.held_out: PlainBatches | None = None
        self.is_sharded = False
        self.history: list[Row] = []
        self.loss_sum, self.loss_count = torch.zeros(()), 0
        self.seconds, self._since = 0.0, time.monotonic()

    # ---- forward ----------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (batch, 3, size, size), or features (batch, features), to flat logits."""
        return self._logits(self.network, self._inputs(images))

    def _inputs(self, images: Tensor) -> Tensor:
        if images.ndim == 2:
            return images
        return normalise(images, self.preprocessing.mean, self.preprocessing.std)

    def _logits(self, network: nn.Module, inputs: Tensor) -> Tensor:
        module = cast(Any, network)
        return cast(Tensor, module.get_classifier()(inputs) if inputs.ndim == 2 else module(inputs))

    @property
    def classifier(self) -> nn.Linear:
        """The network's last linear layer."""
        return cast(nn.Linear, cast(Any, self.network).get_classifier())

    # ---- several devices ------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Every rank takes its own images of each batch."""
        rank, ranks = self.global_rank, self.trainer.world_size
        if self.batches is not None:
            self.batches.share(rank, ranks)
        if self.held_out is not None and self.recipe.strategy != "fsdp":  # whose ranks go in step
            self.held_out.share(rank, ranks)

    def configure_model(self) -> None:
        """Under FSDP2 the weights are divided among the ranks."""
        if self.recipe.strategy == "fsdp" and not self.is_sharded:
            self.network.to(memory_format=torch.contiguous_format)
            shard(self.network, self.device_mesh)
            self.is_sharded = True

    def on_fit_end(self) -> None:
        """A divided network becomes whole again, on every rank."""
        if self.is_sharded:
            state = unshard(self.network)
            self.network = create_timm(self.recipe.architecture, len(self.order.names))
            self.network.load_state_dict(state)
            self.is_sharded = False

    # ---- training ---------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """The clock starts with the first step."""
        self._since = time.monotonic()
        if self.recipe.freeze_norms:
            for part in self.network.modules():
                if isinstance(part, BATCH_NORMS):
                    part.eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout, noise and mixing draw from the seed, the epoch and the batch: also after a resume."""
        seed_all(self.recipe.seed, self.current_epoch, batch_idx, self.global_rank)

    def on_train_epoch_start(self) -> None:
        """Induce the tree anew, where the recipe says so."""
        every = self.recipe.refresh_every_epochs
        if every and self.is_induced and self.rules and self.current_epoch % every == 0:
            self.induce_tree()
            self._start_tree()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One batch: cross-entropy, and the path's likelihood once the tree stands."""
        images, target = batch
        inputs, target = self._mixed(self._inputs(self._noisy(self._shrunk(images))), target)
        logits = self._logits(self.network, inputs)
        if self.rules is None and self._progress() >= self.recipe.tree_from:
            self._start_tree()
        loss = self._loss(logits, target)
        self.loss_sum, self.loss_count = self.loss_sum + loss.detach().cpu(), self.loss_count + 1
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.tree_loss is None:
            weights = cast(Tensor | None, self.class_weights)
            smoothing = self.recipe.label_smoothing
            return F.cross_entropy(logits, target, weights, label_smoothing=smoothing)
        recipe = self.recipe
        done = (self._progress() - recipe.tree_from) / max(1e-9, 1 - recipe.tree_from)
        shape = recipe.weight_schedule
        self.tree_loss.beta = weight_at(shape, done, recipe.beta, recipe.beta_end)
        self.tree_loss.omega = weight_at(shape, done, recipe.omega, recipe.omega_end)
        return cast(Tensor, self.tree_loss(logits, target))

    def _progress(self) -> float:
        return self.global_step / max(1, int(self.trainer.estimated_stepping_batches))

    def _shrunk(self, images: Tensor) -> Tensor:
        side = self.recipe.early_size
        if not side or images.ndim == 2 or self._progress() >= self.recipe.early_until:
            return images
        return F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)

    def _noisy(self, images: Tensor) -> Tensor:
        most = self.recipe.noise
        if not most or images.ndim == 2:
            return images
        values = images.float()
        strength = most * torch.rand(len(values), 1, 1, 1, device=values.device)
        return values + strength * torch.randn_like(values)

    def _mixed(self, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        if not (recipe.mixup_alpha or recipe.cutmix_alpha) or inputs.ndim == 2:
            return inputs, target
        from timm.data import Mixup

        even = len(inputs) - len(inputs) % 2
        mix = Mixup(
            recipe.mixup_alpha,
            recipe.cutmix_alpha,
            label_smoothing=0,
            num_classes=len(self.order.names),
        )
        return cast("tuple[Tensor, Tensor]", mix(inputs[:even], target[:even]))

    def _check_finite(self) -> None:
        if not all(_whole(value).isfinite().all() for value in self.network.parameters()):
            raise NBDTError(
                "Training diverged: the weights are not finite. Lower the learning rate, for "
                f"instance --set learning_rate={self.recipe.learning_rate / 10:g}, and start anew."
            )

    def induce_tree(self) -> None:
        """A tree from the classifier's weights as they are now."""
        self._check_finite()
        recipe = self.recipe
        self.hierarchy = induce(
            _whole(self.classifier.weight.detach()).cpu(),
            self.order.names,
            rule=recipe.rule,
            linkage=None if recipe.linkage == "auto" else recipe.linkage,
            branching=recipe.branching or None,
            semantics=None if recipe.semantics < 0 else recipe.semantics,
            wnids=self.order.known_wnids,
        )

    def _start_tree(self) -> None:
        """The tree stands from here on: induced now if there is none."""
        recipe = self.recipe
        if self.hierarchy is None:
            self.induce_tree()
        hierarchy = cast(Hierarchy, self.hierarchy)
        self.rules = DecisionRules(hierarchy, rule=recipe.rule).to(self.device)
        self.tree_loss = None
        if recipe.rule == "representative" or recipe.alpha:
            self.tree_loss = TreeSupervisionLoss(
                hierarchy,
                rule=recipe.rule,
                beta=recipe.beta,
                omega=recipe.omega,
                alpha=recipe.alpha,
                class_weights=cast(Tensor | None, self.class_weights),
                label_smoothing=recipe.label_smoothing,
            ).to(self.device)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """A step of the optimiser, and of the moving average."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            cast(Any, self.average).update(self.network, step=self.global_step + 1)

    # ---- held-out images --------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """No figures of a network that is lost. Raises NBDTError if training diverged."""
        self._check_finite()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Flat, soft and hard answers on held-out images."""
        images, labels = batch
        logits = self._logits(self.best_network, self._inputs(images)).float()
        answers = {"flat": logits.argmax(dim=1)}
        if self.rules is not None:
            answers |= {"soft": self.rules(logits).argmax(dim=1), "hard": self.rules.hard(logits)}
        for kind, answer in answers.items():
            cast(Any, self.accuracy[kind]).update(answer, labels)

    @property
    def best_network(self) -> nn.Module:
        """The moving average if there is one."""
        return self.network if self.average is None else cast(nn.Module, self.average.module)

    def on_validation_epoch_end(self) -> None:
        """A row of figures, for the log and for whoever watches."""
        row: Row = {"epoch": self.current_epoch + 1, "steps": self.global_step}
        if self.loss_count:
            mean = self.trainer.strategy.reduce((self.loss_sum / self.loss_count).to(self.device))
            row["train_loss"] = float(cast(Tensor, mean))
        for kind, metric in self.accuracy.items():
            if cast(Any, metric).update_called:
                row[kind] = float(cast(Any, metric).compute())
                cast(Any, metric).reset()
                self.log(f"{kind}_accuracy", row[kind], prog_bar=True)
        row["minutes"] = round(self.elapsed() / 60, 2)
        self.history.append(row)
        self.loss_sum, self.loss_count = torch.zeros(()), 0
        if self.report and self.trainer.is_global_zero:
            self.report(self.history)

    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.seconds + time.monotonic() - self._since

    # ---- optimiser and checkpoints ----------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """timm's optimiser and the recipe's schedule, a step of it for each of the optimiser."""
        trained = self.classifier if self.recipe.freeze_backbone else self.network
        optimizer = make_optimizer(trained, self.recipe, on_cpu=self.device.type == "cpu")
        total = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.recipe, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedules are told the step, torch's count themselves."""
        if hasattr(scheduler, "step_update"):
            scheduler.step_update(self.global_step)
        else:
            scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The tree, the log and the place in the data travel with the weights."""
        checkpoint["nbdt"] = {
            "batches": self.batches.state_dict() if self.batches else None,
            "hierarchy": self.hierarchy.to_json() if self.hierarchy else None,
            "standing": self.rules is not None,
            "history": self.history,
            "loss": [float(self.loss_sum), self.loss_count],
            "seconds": self.elapsed(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As it was."""
        kept = checkpoint["nbdt"]
        if self.batches and kept["batches"]:
            # Lightning restores loaders too, but not once their length was asked for (2.6).
            self.batches.load_state_dict(kept["batches"])
        if kept["hierarchy"]:
            self.hierarchy = Hierarchy.from_json(kept["hierarchy"])
        if kept["standing"]:
            self._start_tree()
        self.history = list(kept["history"])
        self.loss_sum, self.loss_count = torch.tensor(kept["loss"][0]), kept["loss"][1]
        self.seconds, self._since = kept["seconds"], time.monotonic()

    def finished(self) -> NBDT:
        """The trained network with its tree, in evaluation mode, on the CPU."""
        self.cpu()
        self._check_finite()
        if self.rules is None:
            self._start_tree()
        hierarchy = cast(Hierarchy, self.hierarchy)
        model = NBDT.from_network(
            self.best_network, self.recipe.architecture, hierarchy, rule=self.recipe.rule
        )
        model.preprocess = self.preprocessing
        return model.eval()


def _whole(value: Tensor) -> Tensor:
    """A weight that may be divided among ranks, as one."""
    return cast(Tensor, cast(Any, value).full_tensor()) if hasattr(value, "full_tensor") else value


def _average(network: nn.Module, recipe: Recipe) -> Any:
    """timm's moving average of the weights, or None."""
    if not recipe.ema_decay:
        return None
    from timm.utils import ModelEmaV3

    average = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)
    average.requires_grad_(False)
    return average.train()  # Lightning warns of parts in evaluation mode; it is never run so
