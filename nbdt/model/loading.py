"""Make a model from its folder, in the runtime that is asked for."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

from torch import nn

from ..decide.head import NBDTHead
from ..errors import NBDTError, check_known
from ..files import sha256
from ..network.load import blueprint, create_timm
from ..runtime.accelerate import ONNX, RUNTIMES, TORCH, accelerate
from ..runtime.backbone import OnnxBackbone
from ..runtime.session import INSTALL, Session, is_installed
from . import saved
from .cascade import SMALL, Cascade, Gate
from .making import Parts, parts_of_timm
from .remember import FOLDER
from .writing import NEAR, unlike

Model: TypeAlias = Any  # an NBDT, whose file imports this one
NETWORK = "backbone.network."  # begins the names of what follows an ONNX backbone's feature map


def load(kind: type[Model], folder: str | os.PathLike[str], runtime: str | None) -> Model:
    """Return what `NBDT.load` describes."""
    if runtime is not None:
        check_known("runtime", runtime, RUNTIMES)
    found = saved.open_saved(folder)
    model = kind(*_parts(kind, found))
    if found.in_onnx:  # its network has no memory yet
        weights = found.weights().items()
        floats = {n: value.float() if value.is_floating_point() else value for n, value in weights}
        model.load_state_dict(floats, assign=True)
    elif found.temperature is None:
        model.load_state_dict(found.weights())
    else:
        model.head.scale_logits(1 / found.temperature)
    if found.in_onnx:
        model.backbone.check_hash(found.root / saved.BACKBONE)
    model.preprocess = found.preprocessing
    model.provenance = found.config.get("provenance", {})
    model.reference = found.reference()
    if (found.root / FOLDER).is_dir():
        model.use_memory(found.root / FOLDER)
    if (probe := found.probe()) and unlike(model, probe) > NEAR:
        raise NBDTError(
            f"The model in {str(found.root)!r} does not answer as it did when it was saved with "
            f"{found.made_with()}; here are {saved.shown(saved.libraries())}. Install those "
            "versions, or save the model again with these."
        )
    choose_runtime(model, runtime, str(folder))
    if "cascade" in found.config:
        model.cascade = _cascade(kind, found, model, runtime)
    return model.eval()


def _cascade(
    kind: type[Model], found: saved.SavedModel, large: Model, runtime: str | None
) -> Cascade:
    """Return the small model of a cascade with its gate."""
    entry, root = found.config["cascade"], found.root / SMALL
    config = root / "config.json"
    if not root.resolve().is_relative_to(found.root.resolve()):
        raise NBDTError(f"{str(root)!r} is a link out of the model's folder.")
    if not config.is_file():
        raise NBDTError(f"{str(found.root)!r} is not complete: it has no {SMALL}/config.json.")
    if sha256(config) != entry.get("sha256"):
        raise NBDTError(
            f"{str(root)!r} is not the small model that this cascade was saved with: it was damaged or "
            "replaced. Make or fetch the cascade again."
        )
    try:
        gate = Gate(*(entry.get(name) for name in ("threshold", "temperature", "depth")))
    except (TypeError, ValueError) as error:
        raise NBDTError(f"{str(found.root)!r}: damaged cascade in config.json ({error}).") from None
    small = load(kind, root, runtime)
    known, wanted = small.hierarchy.classes, large.hierarchy.classes
    fits = wanted == tuple(name for name in known if name in {*wanted})
    if small.cascade is not None or not fits or small.rule != large.rule:
        raise NBDTError(
            f"{str(root)!r} has other classes or another rule than the large model, or is a cascade."
        )
    made = Cascade(small, gate, large.preprocess)
    if small.hierarchy == large.hierarchy:
        return made
    own = small if known == wanted else small.restrict(wanted)  # it is saved as it was fitted
    return made.with_small(own.with_hierarchy(large.hierarchy))


def choose_runtime(model: Model, runtime: str | None, name: str) -> None:
    """Have ONNX Runtime compute feature maps where it can; or check that a model has the runtime.

    Raises NBDTError: the model that is called `name` has no such runtime.
    """
    if isinstance(model.backbone, OnnxBackbone):
        if runtime == TORCH:
            raise NBDTError(
                f"The backbone of {name!r} is ONNX, without weights for torch; give the model that it was "
                "compressed from."
            )
    elif (
        runtime != TORCH and not accelerate(model.backbone, model.architecture) and runtime == ONNX
    ):
        why = f"to make such a model: nbdt compress {name} --to float32 --data D --out NEW"
        raise NBDTError(
            f"{name!r} cannot run in ONNX Runtime as it is; "
            + (why if is_installed() else f"install that first: {INSTALL}")
        )


def _parts(kind: type[Model], found: saved.SavedModel) -> Parts:
    """Return the parts of the model, with its weights if those are installed."""
    name, classes = found.config["architecture"], found.hierarchy.num_classes
    rest = name, found.hierarchy, found.config["rule"]
    if found.temperature is not None:
        return parts_of_timm(create_timm(name, classes, pretrained=True), *rest)
    parts, session = parts_of_timm(blueprint(name, classes), *rest), found.session()
    if session is not None:
        parts = _in_onnx(parts, session, found)
    found.check_fits(kind(*parts))
    return parts if session else parts_of_timm(create_timm(name, classes), *rest)


def _in_onnx(parts: Parts, session: Session, found: saved.SavedModel) -> Parts:
    keep = [name.removeprefix(NETWORK) for name in found.shapes if name.startswith(NETWORK)]
    old = parts.head.linear
    linear = nn.Linear(old.in_features, old.out_features, bias="head.linear.bias" in found.shapes)
    head = NBDTHead.from_linear(linear, parts.head.hierarchy, rule=parts.head.rule)
    return parts._replace(backbone=OnnxBackbone(parts.backbone, session, keep), head=head)
