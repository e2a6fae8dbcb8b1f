"""NBDT: a timm backbone with an `NBDTHead`; made, saved and loaded here."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..decide import paths
from ..decide.head import NBDTHead
from ..errors import NBDTError
from ..files import new_folder
from ..network.load import create_timm, shape_mismatch
from ..network.preprocessing import Preprocessing, timm_preprocessing
from ..tree.class_names import check_same_classes
from ..tree.hierarchy import Hierarchy
from .hub import Published
from .saved import FORMAT, REFERENCE, VERSION, WEIGHTS, file_hashes, open_saved


class NBDT(nn.Module, Published):
    """An image classifier that answers with a path.

    Args:
        backbone: a timm model without classifier: images (batch, 3, height, width) to pooled
            features (batch, features).
        head: the decision tree on top.
        architecture: the timm name that `backbone` was created from, with its options; see
            `nbdt.network.architecture`.
        preprocessing: what turns a photograph into the backbone's input.
    """

    def __init__(
        self, backbone: nn.Module, head: NBDTHead, architecture: str, preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.architecture = architecture
        self.preprocess = preprocessing
        self.provenance: dict[str, Any] = {}
        self.reference: dict[str, Tensor] = {}

    @classmethod
    def from_timm(
        cls,
        architecture: str = "resnet101",
        hierarchy: Hierarchy | None = None,
        *,
        rule: str,
        pretrained: bool = False,
        weights: str | os.PathLike[str] | None = None,
    ) -> NBDT:
        """A model on any timm backbone, with one output per class of the hierarchy.

        Args:
            architecture: a name from ``timm.list_models()``, and options after commas; see
                `nbdt.network.architecture`.
            hierarchy: its classes are, in order, the classifier's outputs.
            rule: as in `NBDTHead`.
            pretrained: fetch timm's weights from the Hugging Face hub. They keep their classifier
                only if they were trained for as many classes as the hierarchy has.
            weights: a local file (safetensors, or a state dict that torch can read without
                executing code) instead of the hub.

        Raises:
            NBDTError: unknown architecture, no network for the hub, or weights that do not fit.
        """
        if hierarchy is None:
            raise NBDTError(
                "from_timm needs a hierarchy; see nbdt.hierarchies for ways to get one."
            )
        network = create_timm(architecture, hierarchy.num_classes, pretrained, weights)
        return cls.from_network(network, architecture, hierarchy, rule=rule)

    @classmethod
    def from_network(
        cls, network: nn.Module, architecture: str, hierarchy: Hierarchy, *, rule: str
    ) -> NBDT:
        """Around a timm model with its classifier, which becomes the head's linear layer.

        Raises:
            NBDTError: the classifier is not one linear layer with an output per class.
        """
        classifier = cast(Any, network).get_classifier()
        if not isinstance(classifier, nn.Linear):
            raise NBDTError(
                f"Expected the classifier of {architecture!r} to be one linear layer, got "
                f"{type(classifier).__name__}; use attach() for other models."
            )
        head = NBDTHead.from_linear(classifier, hierarchy, rule=rule)
        preprocessing = timm_preprocessing(network)
        cast(Any, network).reset_classifier(0)
        return cls(network, head, architecture, preprocessing)

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy whose decisions the head takes."""
        return self.head.hierarchy

    @property
    def rule(self) -> str:
        """'representative' or 'marginal'."""
        return self.head.rule

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are, and its inputs have to be."""
        return next(self.parameters()).device

    def check_evaluating(self) -> None:
        """Raises NBDTError if any module is in training mode: norms would learn, dropout drop."""
        for name, module in self.named_modules():
            if module.training:
                which = f"The model's {name!r}" if name and not self.training else "The model"
                raise NBDTError(f"{which} is in training mode; call model.eval() first.")

    def feature_map(self, images: Tensor) -> Tensor:
        """The backbone's last feature map before pooling."""
        return cast(Tensor, cast(Any, self.backbone).forward_features(images))

    def pool(self, feature_map: Tensor) -> Tensor:
        """(batch, features): what the head takes, from `feature_map`."""
        return cast(Tensor, cast(Any, self.backbone).forward_head(feature_map, pre_logits=True))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features, (batch, features): what the head takes."""
        return self.pool(self.feature_map(images))

    def logits(self, images: Tensor) -> Tensor:
        """Class logits of the flat classifier, (batch, classes), for preprocessed images."""
        return self.head.logits(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """Leaf log-probabilities (batch, classes); flat logits inside `nbdt.flat`."""
        return cast(Tensor, self.head(self.features(images)))

    def paths(self, images: Tensor) -> list[paths.Path]:
        """The decisions for each image of a preprocessed batch."""
        return self.head.paths(self.features(images))

    def with_hierarchy(self, hierarchy: Hierarchy) -> NBDT:
        """The same network under another tree, after an edit say; weights are shared.

        Raises:
            NBDTError: other classes than the model's, or in another order.
        """
        check_same_classes(self.hierarchy, hierarchy)
        head = NBDTHead.from_linear(self.head.linear, hierarchy, rule=self.rule)
        found = NBDT(self.backbone, head, self.architecture, self.preprocess)
        return found.train(self.training)

    # ---- on the disk ----------------------------------------------------------------------

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        card: str | None = None,
    ) -> None:
        """Write config.json, hierarchy.json, model.safetensors (and reference, card) to `folder`.

        Args:
            folder: must not exist; it appears whole or not at all.
            dtype: store weight matrices so, float16 for instance; vectors keep their precision.
            card: Markdown for README.md.

        Raises:
            NBDTError: the folder exists.
            OSError: it cannot be written.
        """
        with new_folder(folder) as aside:
            self._write(aside, dtype, card)

    def _write(self, folder: Path, dtype: torch.dtype | None, card: str | None) -> None:
        state = {name: _stored(value, dtype) for name, value in self.state_dict().items()}
        save_file(state, folder / WEIGHTS)
        self.hierarchy.save(folder / "hierarchy.json")
        if self.reference:
            save_file(self.reference, folder / REFERENCE)
        if card:
            (folder / "README.md").write_text(card, encoding="utf-8")
        config = {
            "format": FORMAT,
            "version": VERSION,
            "architecture": self.architecture,
            "rule": self.rule,
            "preprocessing": asdict(self.preprocess),
            "hierarchy_hash": self.hierarchy.hash,
            "sha256": file_hashes(folder),
            "provenance": {"torch": torch.__version__, **self.provenance},
        }
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> NBDT:
        """The model that `save` wrote, in evaluation mode; or a bundled one, as "cifar10".

        Raises:
            NBDTError: no such model, a damaged one, or one written by a newer version.
        """
        saved = open_saved(folder)
        architecture = saved.config["architecture"]
        network = create_timm(architecture, saved.hierarchy.num_classes)
        model = cls.from_network(network, architecture, saved.hierarchy, rule=saved.config["rule"])
        problem = shape_mismatch(model, saved.shapes)
        if problem:
            raise NBDTError(
                f"{str(saved.root / WEIGHTS)!r} does not fit the saved architecture: {problem}."
            )
        model.load_state_dict(saved.weights())
        model.preprocess = saved.preprocessing
        model.provenance = saved.config.get("provenance", {})
        model.reference = saved.reference()
        return model.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(save_directory, None, None)


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Matrices in `dtype`; norm parameters and statistics are few, and need their range."""
    halve = dtype is not None and value.is_floating_point() and value.ndim > 1
    return (value.to(dtype) if halve else value).detach().cpu().contiguous()
