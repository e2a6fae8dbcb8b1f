"""The training step as a Lightning module: flat first, then tree-supervised."""

from typing import Any, cast

import lightning
import torch
import torch.nn.functional as F
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics.classification import MulticlassAccuracy

from nbdt.decide.head import DecisionRules
from nbdt.errors import NBDTError
from nbdt.model.model import NBDT
from nbdt.network.load import create_timm
from nbdt.network.preprocessing import Preprocessing
from nbdt.progress import counted
from nbdt.tree.hierarchy import Hierarchy
from nbdt.tree.labels import label_nodes

from ..data.augment import mix_pairs, seed_all, shrink
from ..data.class_order import ClassOrder
from ..data.dataset import Batch, PlainBatches, TrainingBatches, normalise
from ..folder import EpochLog, Report, Row
from ..loss import TreeSupervisionLoss, weight_at
from ..recipe import Recipe
from ..tree import induced
from .trainer import make_optimizer, make_schedule


class TreeSupervised(lightning.LightningModule):
    """A timm network trained on its flat logits and, later in the run, on its tree's decisions.

    Args:
        hierarchy: used from the start; None induces one from the classifier's weights when tree
            supervision begins.
        class_weights: (classes,) how much an image of each class counts.
        has_groups: whether labels may be groups of the hierarchy (see `nbdt.tree.labels`).
    """

    label_nodes: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        preprocessing: Preprocessing,
        order: ClassOrder,
        hierarchy: Hierarchy | None = None,
        *,
        class_weights: Tensor | None = None,
        has_groups: bool = False,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.preprocessing = preprocessing
        self.order = order
        self.hierarchy = hierarchy
        self.is_induced = hierarchy is None
        self.report: Report | None = None  # called after each epoch
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.average = _average(self.network, recipe)
        count = len(order.names)
        self.accuracy = nn.ModuleDict(
            {kind: MulticlassAccuracy(count, average="micro") for kind in ("flat", "soft", "hard")}
        )
        nodes = label_nodes(cast(Hierarchy, hierarchy)) if has_groups else None
        self.register_buffer("label_nodes", nodes, persistent=False)
        self.flat_loss = self._supervision("representative", omega=0.0) if has_groups else None
        self.tree_loss: TreeSupervisionLoss | None = None
        self.rules: DecisionRules | None = None
        self.batches: TrainingBatches | None = None
        self.held_out: PlainBatches | None = None
        self.log_of_epochs = EpochLog()

    def _inputs(self, images: Tensor) -> Tensor:
        return normalise(images, self.preprocessing.mean, self.preprocessing.std)

    def setup(self, stage: str) -> None:
        """Give each rank its own images of each batch, and batch norms those of all ranks."""
        rank, ranks = self.global_rank, self.trainer.world_size
        if self.batches:
            self.batches.share(rank, ranks)
            self._check_norms(self.batches.batch_size // ranks, ranks)
        if self.held_out:
            self.held_out.share(rank, ranks)
        if self.recipe.sync_norms and ranks > 1:
            self.network = convert_sync_batchnorm(self.network)

    def _check_norms(self, images: int, ranks: int) -> None:
        """Refuse batch norms that would see one image of each batch. Raises NBDTError."""
        alone = images == 1 and not (
            self.recipe.freeze_norms or (self.recipe.sync_norms and ranks > 1)
        )
        if alone and any(isinstance(part, _BatchNorm) for part in self.network.modules()):
            raise NBDTError(
                "The network has batch norms, which need two images or more of a batch on each device, "
                f"got a batch of {images * ranks} on {counted(ranks, 'device')}. Choose more "
                f"(--set batch_size={2 * ranks}), or keep the norms as they are "
                "(--set freeze_norms=true)."
            )

    def on_train_start(self) -> None:
        """Start the clock and freeze batch norms if the recipe says so."""
        self.log_of_epochs.start_clock()
        if self.recipe.freeze_norms:
            for part in self.network.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and mixing by epoch and batch, so that a resumed run draws the same."""
        seed_all(self.recipe.seed, self.current_epoch, batch_idx, self.global_rank)

    def on_train_epoch_start(self) -> None:
        """Induce the hierarchy again at the recipe's interval."""
        every = self.recipe.refresh_every_epochs
        if every and self.is_induced and self.rules and self.current_epoch % every == 0:
            self.induce_hierarchy()
            self._start_tree_supervision()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Return the loss of one batch: flat, then with the path's likelihood."""
        recipe = self.recipe
        images, target = batch
        if self._progress() < recipe.early_until:
            images = shrink(images, recipe.early_size)
        inputs = self._inputs(images)
        outputs = len(self.order.names)
        if self.label_nodes is not None:
            target, outputs = self.label_nodes[target], cast(Hierarchy, self.hierarchy).num_nodes
        inputs, target = mix_pairs(inputs, target, recipe, outputs)
        if self.label_nodes is not None and target.ndim == 1:
            target = F.one_hot(target, outputs).float()
        logits = self.network(inputs)
        if self.rules is None and self._progress() >= recipe.tree_from:
            self._start_tree_supervision()
        loss = self._loss(logits, target)
        self.log_of_epochs.add_loss(loss)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        recipe = self.recipe
        if self.tree_loss is None and self.flat_loss is not None:
            return cast(Tensor, self.flat_loss(logits, target))
        if self.tree_loss is None:
            weights = cast(Tensor | None, self.class_weights)
            return F.cross_entropy(logits, target, weights, label_smoothing=recipe.label_smoothing)
        done = (self._progress() - recipe.tree_from) / max(1e-9, 1 - recipe.tree_from)
        shape = recipe.weight_schedule
        self.tree_loss.beta = weight_at(shape, done, recipe.beta, recipe.beta_end)
        self.tree_loss.omega = weight_at(shape, done, recipe.omega, recipe.omega_end)
        return cast(Tensor, self.tree_loss(logits, target))

    def _progress(self) -> float:
        return self.global_step / max(1, int(self.trainer.estimated_stepping_batches))

    def _check_finite(self) -> None:
        if not all(value.isfinite().all() for value in self.network.parameters()):
            raise NBDTError(
                "Training diverged: the weights are not finite. Lower the learning rate, for "
                f"instance --set learning_rate={self.recipe.learning_rate / 10:g}, and start again."
            )

    def induce_hierarchy(self) -> None:
        """Induce the hierarchy from the classifier's present weights."""
        self._check_finite()
        weight = cast(Any, self.network).get_classifier().weight.detach().cpu()
        self.hierarchy = induced(weight, self.order.names, self.recipe, self.order.wnids)

    def _start_tree_supervision(self) -> None:
        recipe = self.recipe
        if self.hierarchy is None:
            self.induce_hierarchy()
        self.rules = DecisionRules(cast(Hierarchy, self.hierarchy), rule=recipe.rule).to(
            self.device
        )
        self.tree_loss = None
        if recipe.rule == "representative" or recipe.alpha:
            weights = {"beta": recipe.beta, "omega": recipe.omega, "alpha": recipe.alpha}
            self.tree_loss = self._supervision(recipe.rule, **weights).to(self.device)

    def _supervision(self, rule: str, **weights: Any) -> TreeSupervisionLoss:
        return TreeSupervisionLoss(
            cast(Hierarchy, self.hierarchy),
            rule=rule,
            class_weights=cast(Tensor | None, self.class_weights),
            label_smoothing=self.recipe.label_smoothing,
            **weights,
        )

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Take a step of the optimiser and of the moving average."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            cast(Any, self.average).update(self.network, step=self.global_step + 1)

    def on_validation_epoch_start(self) -> None:
        """Check the weights. Raises NBDTError if training diverged."""
        self._check_finite()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Compare flat, soft and hard answers on held-out images with their labels."""
        images, labels = batch
        logits = self.best_network(self._inputs(images)).float()
        answers = {"flat": logits.argmax(dim=1)}
        if self.rules is not None:
            answers |= {"soft": self.rules(logits).argmax(dim=1), "hard": self.rules.hard(logits)}
        for kind, answer in answers.items():
            cast(Any, self.accuracy[kind]).update(answer, labels)

    @property
    def best_network(self) -> nn.Module:
        """The moving average if there is one, else the network."""
        return self.network if self.average is None else cast(nn.Module, self.average.module)

    def on_validation_epoch_end(self) -> None:
        """Add the epoch's row of figures to the log and report it."""
        row: Row = {"epoch": self.current_epoch + 1, "steps": self.global_step}
        epochs = self.log_of_epochs
        if epochs.loss_count:
            mean = epochs.mean_loss().to(self.device)
            row["train_loss"] = float(cast(Tensor, self.trainer.strategy.reduce(mean)))
        for kind, metric in self.accuracy.items():
            if cast(Any, metric).update_called:
                row[kind] = float(cast(Any, metric).compute())
                cast(Any, metric).reset()
                self.log(f"{kind}_accuracy", row[kind], prog_bar=True)
        epochs.add_row(row)
        if self.report and self.trainer.is_global_zero:
            self.report(epochs.rows)

    def configure_optimizers(self) -> Any:
        """Return timm's optimiser and the recipe's schedule, stepped together."""
        optimizer = make_optimizer(self.network, self.recipe, on_cpu=self.device.type == "cpu")
        total = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self.recipe, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Tell timm's schedule the number of the step."""
        scheduler.step_update(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the hierarchy, the log and the position in the data."""
        checkpoint["nbdt"] = {
            "batches": self.batches.state_dict() if self.batches else None,
            "hierarchy": self.hierarchy.to_json() if self.hierarchy else None,
            "standing": self.rules is not None,
            **self.log_of_epochs.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        saved = checkpoint["nbdt"]
        if self.batches and saved["batches"]:
            # Lightning restores loaders too, but not once their length was asked for (2.6).
            self.batches.load_state_dict(saved["batches"])
        if saved["hierarchy"]:
            self.hierarchy = Hierarchy.from_json(saved["hierarchy"])
        if saved["standing"]:
            self._start_tree_supervision()
        self.log_of_epochs.load_state_dict(saved)

    def finished(self) -> NBDT:
        """Return the trained network with its tree, in evaluation mode, on the CPU."""
        self.cpu()
        self._check_finite()
        if self.rules is None:
            self._start_tree_supervision()
        architecture, hierarchy = self.recipe.architecture, cast(Hierarchy, self.hierarchy)
        network = create_timm(architecture, len(self.order.names))  # with norms of one device
        network.load_state_dict(self.best_network.state_dict())
        model = NBDT.from_network(network, architecture, hierarchy, rule=self.recipe.rule)
        model.preprocess = self.preprocessing
        return model.eval()


def _average(network: nn.Module, recipe: Recipe) -> Any:
    """Return timm's moving average of the weights, or None."""
    if not recipe.ema_decay:
        return None
    from timm.utils import ModelEmaV3

    average = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True)
    average.requires_grad_(False)
    return average.train()  # Lightning warns about parts in evaluation mode; training never runs it
