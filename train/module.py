"""The training step as a Lightning module: flat first, then tree-supervised."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()  # Lightning imports it

# ruff: noqa: E402
import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbdt.hierarchies.induced import induce
from nbdt.hierarchy import Hierarchy
from nbdt.model import NBDT
from nbdt.preprocessing import Preprocessing

from .config import Recipe
from .data import normalise
from .loss import TreeSupervisionLoss


class TreeSupervised(lightning.LightningModule):
    """A timm network trained on its flat logits, and on its tree's decisions once there is one.

    Args:
        network: with its linear classifier.
        recipe: the run's settings.
        preprocessing: mean and std of the network's input.
        hierarchy: used from the start; None induces one from the classifier's weights when tree
            supervision begins.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: Recipe,
        preprocessing: Preprocessing,
        hierarchy: Hierarchy | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.preprocessing = preprocessing
        self.hierarchy = hierarchy
        self.tree_loss: TreeSupervisionLoss | None = None

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (batch, 3, size, size) to flat logits (batch, classes)."""
        inputs = normalise(images, self.preprocessing.mean, self.preprocessing.std)
        return cast(Tensor, self.network(inputs))

    @property
    def classifier(self) -> nn.Linear:
        """The network's last linear layer."""
        return cast(nn.Linear, cast(Any, self.network).get_classifier())

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """One batch: smoothed cross-entropy, and the path's likelihood once the tree stands."""
        images, labels = batch
        logits = self(self._shrunk(images))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        if self._tree_starts():
            self._start_tree()
        if self.tree_loss is not None:
            loss = self.recipe.beta * loss + self.tree_loss(logits, labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def _shrunk(self, images: Tensor) -> Tensor:
        side = self.recipe.early_size
        total = self.trainer.estimated_stepping_batches
        if not side or self.global_step >= self.recipe.early_until * total:
            return images
        return F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)

    def _tree_starts(self) -> bool:
        """Whether flat training is over and the tree's loss not yet set up."""
        total = self.trainer.estimated_stepping_batches
        return self.tree_loss is None and self.global_step >= self.recipe.tree_from * total

    def _start_tree(self) -> None:
        if self.hierarchy is None:
            self.hierarchy = induce(
                self.classifier.weight.detach(), self.recipe.classes, linkage=self.recipe.linkage
            )
        self.tree_loss = TreeSupervisionLoss(
            self.hierarchy, rule=self.recipe.rule, beta=0, omega=self.recipe.omega
        ).to(self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Flat accuracy on the held-out images."""
        images, labels = batch
        accuracy = (self(images).argmax(dim=1) == labels).float().mean()
        self.log("flat_accuracy", accuracy, prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        """timm's optimiser, a linear warm-up and a linear decay to zero."""
        from timm.optim import create_optimizer_v2

        if self.device.type == "cpu":
            _orthogonalise_in_float32()
        recipe = self.recipe
        optimizer = create_optimizer_v2(
            self.network,
            opt=recipe.optimizer,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(recipe.warmup * total))

        def factor(step: int) -> float:
            return min((step + 1) / warmup, (total - step) / max(1, total - warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The tree travels with the weights."""
        checkpoint["hierarchy"] = self.hierarchy.to_json() if self.hierarchy else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The tree as it was; its loss is set up again at the next step."""
        if checkpoint["hierarchy"]:
            self.hierarchy = Hierarchy.from_json(checkpoint["hierarchy"])

    def finished(self) -> NBDT:
        """The trained network with its tree, in evaluation mode."""
        if self.hierarchy is None:
            self._start_tree()
        hierarchy = cast(Hierarchy, self.hierarchy)
        model = NBDT.from_network(
            self.network, self.recipe.architecture, hierarchy, rule=self.recipe.rule
        )
        model.preprocess = self.preprocessing
        return model.eval()


def _orthogonalise_in_float32() -> None:
    """Keep timm's Muon from working in bfloat16, which most CPUs only emulate.

    Measured on two Zen 3 cores, small_resnet: 1.1 s an optimiser step in bfloat16, 0.06 s so.
    """
    from timm.optim import muon

    original = getattr(muon.zeropower_via_newtonschulz, "func", muon.zeropower_via_newtonschulz)
    muon.zeropower_via_newtonschulz = partial(original, dtype=torch.float32)
