"""`NBDT`: a timm backbone with an `NBDTHead`; make, save, load and publish it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..decide.answer import Answer, Calibration, answers
from ..decide.head import NBDTHead
from ..decide.paths import Path as DecisionPath
from ..errors import NBDTError
from ..files import new_folder
from ..network.load import create_timm
from ..network.preprocessing import Preprocessing
from ..progress import Progress, no_progress
from ..runtime.accelerate import feature_map
from ..tree.class_names import check_same_classes
from ..tree.hierarchy import Hierarchy
from . import hub
from .cascade import REFIT, Cascade, refuse_cascade
from .loading import load
from .making import parts_of, parts_of_timm
from .remember import open_memory
from .restrict import restricted
from .writing import write

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..memory.memory import Memory
    from ..memory.refit import FittedHead


class NBDT(nn.Module):
    """An image classifier that answers with a path.

    Args:
        backbone: a timm model without classifier: images (batch, 3, height, width) to pooled
            features (batch, features).
        head: the decision tree on top.
        architecture: the backbone's name and options, as `nbdt.network.load` parses them.
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
        self.cascade: Cascade | None = None  # what answers before it, where that is sure enough
        self.provenance: dict[str, Any] = {}
        self.reference: dict[str, Tensor] = {}
        self.memory_place: str | None = None
        self._memory: Memory | None = None
        self._fitted: FittedHead | None = None
        self._calibration: tuple[tuple[int, str], Calibration | None] | None = None

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
        """Make a model on any timm backbone, with one output per class of the hierarchy.

        Args:
            architecture: as `nbdt.network.load` parses it.
            hierarchy: its classes are, in order, the classifier's outputs.
            rule: as in `NBDTHead`.
            pretrained: fetch timm's weights from the Hugging Face hub. They keep their classifier
                only if they were trained for as many classes as the hierarchy has.
            weights: a local file instead, see `nbdt.network.weights.read_weights`.

        Raises NBDTError: unknown architecture, no network for the hub, or weights that do not fit.
        """
        if hierarchy is None:
            raise NBDTError("from_timm needs a hierarchy; nbdt.hierarchies makes or loads one.")
        network = create_timm(architecture, hierarchy.num_classes, pretrained, weights)
        return cls(*parts_of_timm(network, architecture, hierarchy, rule))

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        architecture: str,
        hierarchy: Hierarchy,
        *,
        rule: str,
        preprocessing: Callable[[Image], Any] | None = None,
    ) -> NBDT:
        """Make a model of a classifier, whose last layer becomes the head's.

        A timm network with one linear layer loses its classifier. Any other network (torchvision's,
        Hugging Face's, one's own) stays as it is and shares its weights; it cannot be saved.

        Args:
            network: images to logits, or to an object that has them.
            architecture: as `nbdt.network.load` parses it, to which options are added that the
                network was made with; for other networks any name.
            hierarchy: its classes are, in order, the network's outputs.
            rule: as in `NBDTHead`.
            preprocessing: a `Preprocessing`, torchvision's transforms, a Hugging Face image
                processor, or another function of a PIL image; timm networks have their own.

        Raises NBDTError: a network that does not give a logit per class, or a preprocessing that does
        not give (3, height, width).
        """
        parts = parts_of(network, architecture, hierarchy, rule, preprocessing=preprocessing)
        return cls(*parts).train(network.training)

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
        """The device of the parameters; inputs have to be there."""
        return next(self.parameters()).device

    def check_evaluating(self) -> None:
        """Raise NBDTError if a module is in training mode: norms would learn, dropout would drop."""
        for name, module in self.named_modules():
            if module.training:
                which = f"The model's {name!r}" if name and not self.training else "The model"
                raise NBDTError(f"{which} is in training mode; call model.eval() first.")

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the backbone's last feature map before pooling; see `nbdt.runtime.accelerate`."""
        return feature_map(self.backbone, images)

    def pool(self, feature_map: Tensor) -> Tensor:
        """Return pooled features, (batch, features), from what `feature_map` returns."""
        return cast(Tensor, cast(Any, self.backbone).forward_head(feature_map, pre_logits=True))

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features, (batch, features): the head's input."""
        return self.pool(self.feature_map(images))

    def logits(self, images: Tensor) -> Tensor:
        """Return class logits of the flat classifier, (batch, classes)."""
        if self.cascade is not None:
            return self.cascade.logits(self, images)
        return self.head.logits(self.features(images))

    def forward(self, images: Tensor) -> Tensor:
        """Return leaf log-probabilities (batch, classes); flat logits inside `nbdt.flat`."""
        if self.cascade is not None:
            logits = self.logits(images)
            return logits if self.head.gives_flat else cast(Tensor, self.head.rules(logits))
        return cast(Tensor, self.head(self.features(images)))

    @property
    def calibration(self) -> Calibration | None:
        """What the reference set says about answers under this hierarchy; None without a set of 20."""
        key = (id(self.reference), self.hierarchy.hash)
        if self._calibration is None or self._calibration[0] != key:
            self._calibration = (key, Calibration.from_reference(self.head.rules, self.reference))
        return self._calibration[1]

    def answer(self, images: Tensor, accuracy: float | None = 0.95) -> list[Answer]:
        """Return the node that the model commits to for each image of a preprocessed batch.

        Args:
            images: (batch, 3, height, width).
            accuracy: the share of answers that are to be right, on average over images like those
                of the reference set; see `nbdt.decide.answer`. None: always a class.

        Raises NBDTError: an accuracy outside 0 to 1, or logits that are not finite.
        """
        with torch.no_grad():
            logits = self.logits(images)
        return answers(self.head.rules, logits, self.calibration, accuracy)

    def paths(self, images: Tensor) -> list[DecisionPath]:
        """Return the path of each image of a preprocessed batch."""
        with torch.no_grad():
            return self.head.rules.paths(self.logits(images))

    def with_hierarchy(self, hierarchy: Hierarchy) -> NBDT:
        """Return the same network under another tree, for instance after an edit; weights are shared.

        Raises NBDTError: other classes than the model's, or in another order.
        """
        check_same_classes(self.hierarchy.classes, hierarchy.classes)
        head = NBDTHead.from_linear(self.head.linear, hierarchy, rule=self.rule)
        model = self._with_head(head, self.reference)
        if self.cascade is not None:
            model.cascade = self.cascade.with_small(self.cascade.small.with_hierarchy(hierarchy))
        return model

    def restrict(self, names: Sequence[str]) -> NBDT:
        """Return a model of the classes that can occur; the backbone is shared.

        Under `marginal` its probabilities are the flat softmax over these classes; under
        `representative` those of the tree without the other leaves.

        Args:
            names: of classes or groups of the hierarchy, or WordNet ids.

        Raises NBDTError: an unknown or repeated name, or fewer than two classes.
        """
        head, reference, removed = restricted(self.head, self.reference, names)
        model = self._with_head(head, reference)
        if self.cascade is not None:
            model.cascade = self.cascade.with_small(self.cascade.small.restrict(names))
        gone = [*self.provenance.get("removed_classes", []), *removed]
        model.provenance = {**self.provenance, "removed_classes": gone}
        return model

    def _with_head(self, head: NBDTHead, reference: dict[str, Tensor]) -> NBDT:
        model = NBDT(self.backbone, head, self.architecture, self.preprocess)
        model.reference = reference
        if head.hierarchy.classes == self.hierarchy.classes:
            model.memory_place, model._fitted = self.memory_place, self._fitted
            model._memory = None if self._memory is None else self._memory.under(head.hierarchy)
            model.provenance = dict(self.provenance)
        return model.train(self.training)

    # ---- memory ---------------------------------------------------------------------------

    @property
    def memory(self) -> Memory | None:
        """The labelled photographs that the last layer is fitted on; None without any.

        Raises NBDTError: a memory that cannot be opened, or of another network.
        """
        if self._memory is None and self.memory_place is not None:
            self._memory = open_memory(self, self.memory_place)
        return self._memory

    def use_memory(self, place: str | os.PathLike[str]) -> None:
        """Take the memory at a folder or URI as this model's; it is opened when it is needed."""
        self.memory_place, self._memory = os.fspath(place), None

    @property
    def fitted(self) -> FittedHead | None:
        """The fit that the last layer came from; None if it came from elsewhere."""
        key = self.provenance.get("memory", {}).get("key")
        if self._fitted is None and self.memory is not None and key:
            self._fitted = self.memory.heads.get(key)
        return self._fitted

    def refit(self, *, choose: bool = False, progress: Progress = no_progress) -> FittedHead:
        """Fit the last layer on the memory's active photographs, and calibrate it.

        The same photographs give the same weights, to the bit. `choose`: choose the penalty again.
        Raises NBDTError: no memory, or what `Memory.fit` raises.
        """
        refuse_cascade(self, "fitted", REFIT)
        if self.memory is None:
            raise NBDTError("This model has no memory; make one with: nbdt memory build")
        self.take_head(self.memory.fit(self.head.rules, self.fitted, choose, progress))
        return cast("FittedHead", self._fitted)

    def take_head(self, fitted: FittedHead) -> None:
        """Use the last layer of a fit, and its cross-validated logits as the reference set.

        Raises NBDTError: the model is a cascade, whose small model would not follow.
        """
        refuse_cascade(self, "fitted", REFIT)
        linear = self.head.linear
        if linear.bias is None:  # a copy, since the layer may be the caller's
            linear = self.head.linear = copy.deepcopy(linear)
            linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
        with torch.no_grad():
            linear.weight.copy_(fitted.weight)
            linear.bias.copy_(fitted.bias)
        self.reference, self._fitted = fitted.reference, fitted
        self.provenance["memory"] = fitted.facts

    # ---- on the disk ----------------------------------------------------------------------

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        card: str | None = None,
    ) -> None:
        """Write config.json, hierarchy.json, weights, a probe (and reference, card) to `folder`.

        Args:
            folder: must not exist; it is written atomically.
            dtype: of stored weight matrices, such as float16, or int8 with a scale for each row;
                vectors keep their precision.
            card: Markdown for README.md.

        Raises:
            NBDTError: the folder exists, or the model cannot be made again from what is written:
                its network is not timm's, or was changed.
            OSError: it cannot be written.
        """
        with new_folder(folder) as aside:
            write(self, aside, dtype, card)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, runtime: str | None = None) -> NBDT:
        """Load what `save` wrote, or a bundled model such as "cifar10", in evaluation mode.

        Args:
            folder: of the model, or a bundled model's name.
            runtime: what computes feature maps on a CPU where no gradient is needed: "torch", or
                "onnx", which is two to three times as fast and gives the same answers. By default
                ONNX Runtime if it is installed and the model has a graph for it, as "imagenet" has.

        Raises NBDTError: no such model, a damaged one, one written by a newer version, one that answers
        otherwise than it did when it was saved, or one without that runtime.
        """
        return cast(NBDT, load(cls, folder, runtime))

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> NBDT:
        """Load the model of a hub repository ("owner/name"), of a folder, or a bundled one.

        Args:
            pretrained_model_name_or_path: a folder wins over a repository of the same name.
            options: of the download: force_download, token, cache_dir, local_files_only, revision.

        Raises NBDTError: another option, no answer from the hub, or a model that `load` refuses.
        """
        return cls.load(hub.pull(str(pretrained_model_name_or_path), **options))
