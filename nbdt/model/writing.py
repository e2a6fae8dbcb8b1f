"""Write a model's folder, after making the model again from what is written and comparing.

A new last layer replaces the old one atomically: the new files are written to a folder beside the old ones,
whose name then becomes `UPDATE`: from that moment they count. Each then replaces its predecessor; a
process that loads the model after a kill finishes this, see `saved.finish`.
"""

import copy
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import NBDTError
from ..files import sha256
from ..network.described import described
from ..network.given import GivenNetwork
from ..network.load import create_timm, input_channels
from ..network.preprocessing import GivenPreprocessing
from ..network.running import evaluating
from ..network.weights import mismatch
from ..runtime.backbone import OnnxBackbone
from ..storage import is_uri
from . import saved
from .cascade import SMALL, members
from .making import parts_of_timm
from .remember import FOLDER

Model: TypeAlias = Any  # an NBDT, whose file imports this one
SIDE = 64  # pixels of the probe, where the network takes that
EXACT, NEAR = 1e-4, 3e-2  # shares of the logits' range; the second where arithmetic differs


def write(model: Model, folder: Path, dtype: torch.dtype | None, card: str | None) -> None:
    """Write what `NBDT.save` describes. Raises NBDTError: a model that cannot be made again."""
    cascade, model = model.cascade, [*members(model).values()][-1]
    again = _made_again(model)
    # The sum over the photographs of a memory needs the weights' precision.
    exact = "head.linear." if "memory" in model.provenance else None
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        kept = None if exact and name.startswith(exact) else dtype
        state |= saved.stored(name, value, kept)
    again.load_state_dict(saved.widened(state))  # rounded to `dtype`
    save_file(state, folder / saved.WEIGHTS)
    save_file(probe_of(again), folder / saved.PROBE)
    model.hierarchy.save(folder / "hierarchy.json")
    backbone = model.backbone if isinstance(model.backbone, OnnxBackbone) else None
    if backbone:
        (folder / saved.BACKBONE).write_bytes(backbone.session.data)
    entry = {}
    if cascade is not None:
        cascade.small_as_fitted().save(folder / SMALL, dtype=dtype)
        digest = sha256(folder / SMALL / "config.json")
        entry = {"cascade": {**asdict(cascade.gate), "sha256": digest}}
    if model.reference:
        save_file(model.reference, folder / saved.REFERENCE)
    if model.memory_place is not None and not is_uri(model.memory_place):
        shutil.copytree(model.memory_place, folder / FOLDER)
    if card:
        (folder / saved.CARD).write_text(card, encoding="utf-8")
    config = {
        "format": saved.FORMAT,
        "version": (
            saved.CASCADE_VERSION if entry else saved.ONNX_VERSION if backbone else saved.VERSION
        ),
        "hierarchy_hash": model.hierarchy.hash,
        "sha256": saved.file_hashes(folder),
        "architecture": model.architecture,
        **({"backbone": backbone.session.about} if backbone else {}),
        **entry,
        "rule": model.rule,
        "preprocessing": model.preprocess.facts(),
        "provenance": {**saved.libraries(), **model.provenance},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def probe_of(model: Model) -> dict[str, Tensor]:
    """Return a small "input", (1, channels, side, side), and the "logits", (1, classes), of it."""
    channels = input_channels(model.architecture)
    for side in (SIDE, model.preprocess.size):
        draw = torch.Generator().manual_seed(0)
        images = torch.randn(1, channels, side, side, generator=draw)
        try:
            return {"input": images, "logits": _logits(model, images)}
        except Exception:  # a network that is made for one size
            if side == model.preprocess.size:
                raise
    raise AssertionError


def unlike(model: Model, probe: dict[str, Tensor]) -> float:
    """Return the largest difference from a probe's logits, as a share of their range."""
    expected = probe["logits"].float()
    try:
        found = _logits(model, probe["input"])
    except RuntimeError as error:  # it is not an input of this network
        raise NBDTError(f"The model cannot run on its own probe: {error}") from error
    spread = float(expected.max() - expected.min()) or 1.0
    difference = (found - expected).abs().max() / max(spread, 1e-3)
    return float(difference.nan_to_num(torch.inf))


def _logits(model: Model, images: Tensor) -> Tensor:
    with evaluating(model), torch.no_grad():
        logits = model.logits(images.to(model.head.linear.weight))
        return cast(Tensor, logits.float().cpu())


def _made_again(model: Model) -> Model:
    """Return the model that its folder will give, with the exact weights."""
    if isinstance(model.backbone, OnnxBackbone):
        parts = copy.deepcopy((model.backbone, model.head))
        return type(model)(*parts, model.architecture, model.preprocess)
    if isinstance(model.backbone, GivenNetwork):
        kind = type(model.backbone.network)
        raise NBDTError(
            f"A model of {kind.__module__}.{kind.__qualname__} cannot be saved: only timm's networks "
            "with one linear layer at the end can be made again without running code of a file. Keep its state_dict and "
            "hierarchy.save(…), and make the model again with NBDT.from_network."
        )
    if isinstance(model.preprocess, GivenPreprocessing):
        raise NBDTError(
            "A preprocessing that is a function cannot be saved. Set model.preprocess to a "
            "nbdt.network.preprocessing.Preprocessing with the same size, mean and std."
        )
    name, classes = model.architecture, model.hierarchy.num_classes
    network = create_timm(name, classes)
    again = type(model)(*parts_of_timm(network, name, model.hierarchy, model.rule))
    again.preprocess = model.preprocess
    state = model.state_dict()
    problem = mismatch(again, state)
    if not problem:
        again.load_state_dict(state)
        weight = model.head.linear.weight
        plain = weight.device.type == "cpu" and weight.dtype == torch.float32
        if unlike(again, probe_of(model)) <= (EXACT if plain else NEAR):
            return again
        problem = "it answers otherwise"
    _, differences = described(model.backbone, name, classes)
    raise NBDTError(
        f"This network is not timm's {name!r} ({'; '.join(differences[:3]) or problem}), so it could "
        "not be loaded again. If options of timm.create_model made it, name them: "
        f"architecture='{name.partition(',')[0]},global_pool=max'. Other changes cannot be saved."
    )


# ---- a new last layer --------------------------------------------------------------------------


def is_own_memory(model: Model, folder: str | os.PathLike[str]) -> bool:
    """Return whether the folder is that of a saved model whose memory is the one inside."""
    place, inside = model.memory_place, Path(folder, FOLDER)
    return inside.is_dir() and place is not None and Path(place).resolve() == inside.resolve()


def save_head(model: Model, folder: str | os.PathLike[str]) -> None:
    """Write the last layer, the reference set and what is known of the fit into a saved model.

    The other weights keep their precision. A process that is killed leaves the old model or the
    new one.

    Raises NBDTError: the folder cannot be written; the model in it is then as it was.
    """
    root = Path(folder)
    weights = load_file(root / saved.WEIGHTS)
    for name, value in model.head.linear.state_dict().items():
        weights.pop(f"head.linear.{name}{saved.SCALE}", None)
        weights |= saved.stored(f"head.linear.{name}", value, None)
    config = json.loads((root / "config.json").read_bytes())
    config["provenance"] = {**saved.libraries(), **model.provenance}
    aside = None
    try:
        aside = Path(tempfile.mkdtemp(dir=root, prefix=f"{saved.UPDATE}."))
        save_file(weights, aside / saved.WEIGHTS)
        save_file(model.reference, aside / saved.REFERENCE)
        save_file(probe_of(model), aside / saved.PROBE)
        config["sha256"] = {**config.get("sha256", {}), **saved.file_hashes(aside)}
        (aside / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        for file in aside.iterdir():
            file.chmod((root / "config.json").stat().st_mode)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        aside.rename(root / saved.UPDATE)
    except Exception as error:  # safetensors raises its own, the disk OSError
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        raise NBDTError(
            f"The model in {os.fspath(folder)!r} cannot be written ({error}). It is as it was; the "
            "memory has the change, and `nbdt memory refit` makes it act."
        ) from error
    saved.finish(root)
