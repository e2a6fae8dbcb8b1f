"""Read the folder of a saved model, which is hostile until checked.

A folder has config.json, hierarchy.json and model.safetensors; perhaps reference.safetensors
and probe.safetensors. A config with "installed_weights" names an installed package in place of
model.safetensors; one with "backbone" has backbone.onnx, and what comes after it in model.safetensors.
One with "cascade" is the large model of a cascade, and has the small one in the folder `small`.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import NBDTError, listed, nearest
from ..files import read_record, sha256
from ..network.installed_weights import ARCHITECTURE, PACKAGE
from ..network.preprocessing import Preprocessing
from ..network.weights import shape_mismatch
from ..runtime.session import Session
from ..tree.hierarchy import Hierarchy

FORMAT = "nbdt-model"
# The second is of a model whose backbone is ONNX, the third of a cascade.
VERSIONS = VERSION, ONNX_VERSION, CASCADE_VERSION = 1, 2, 3
MAX_CONFIG = 2**20  # bytes
WEIGHTS = "model.safetensors"
REFERENCE = "reference.safetensors"
PROBE = "probe.safetensors"  # a small input and its logits
BACKBONE = "backbone.onnx"
TENSOR_FILES = (WEIGHTS, REFERENCE, PROBE, BACKBONE)
MAX_SIDE = 1024  # pixels of a probe
MAX_TABLES = 2**28  # bytes of a network that are not in the file of weights
CARD, PICTURE = "README.md", "path.png"
SCALE = ".scale"  # ends the name of the scales of a matrix in int8
UPDATE = ".refit"  # the folder of files that are to replace those of the same names
ALL_FILES = ("config.json", "hierarchy.json", *TENSOR_FILES, CARD, PICTURE)


@dataclass(frozen=True)
class SavedModel:
    """The contents of a checked folder."""

    root: Path  # the folder
    config: dict[str, Any]  # its config.json
    hierarchy: Hierarchy  # the tree; its hash is the one in the config
    preprocessing: Preprocessing  # what turns a photograph into the input
    # divides the logits of the installed weights, which the model then has; None if it has weights
    # of its own
    temperature: float | None
    shapes: dict[str, tuple[int, ...]]  # the shapes of its own weights, by name

    def weights(self) -> dict[str, Tensor]:
        """Read the tensors of model.safetensors."""
        return widened(_read_tensors(self.root / WEIGHTS))

    def reference(self) -> dict[str, Tensor]:
        """Read the tensors of reference.safetensors, if there is one."""
        path = self.root / REFERENCE
        return _read_tensors(path) if path.exists() else {}

    @property
    def in_onnx(self) -> bool:
        """Whether the backbone is an ONNX file."""
        return "backbone" in self.config

    def session(self) -> Session | None:
        """Read backbone.onnx; None for a model whose backbone torch runs."""
        return Session((self.root / BACKBONE).read_bytes()) if self.in_onnx else None

    def probe(self) -> dict[str, Tensor]:
        """Read the "input" and "logits" of probe.safetensors; older models have none."""
        path = self.root / PROBE
        if not path.exists():
            return {}
        _, channels, height, width = [*_read_shapes(path).get("input", ()), 0, 0, 0, 0][:4]
        expected = {
            "input": (1, channels, height, width),
            "logits": (1, self.hierarchy.num_classes),
        }
        sides = channels, height, width
        if _read_shapes(path) != expected or min(sides) < 1 or max(sides) > MAX_SIDE:
            raise NBDTError(f"{str(path)!r} is damaged: expected tensors of shapes {expected}.")
        return _read_tensors(path)

    def check_fits(self, blueprint: nn.Module) -> None:
        """Compare the weights with a network that has no numbers yet, before it gets memory.

        Raises NBDTError: other names or shapes, or large tables that are not in the file.
        """
        if problem := shape_mismatch(blueprint, self.shapes):
            raise NBDTError(
                f"{str(self.root / WEIGHTS)!r} does not fit the saved architecture: {problem}."
            )
        size = sum(buffer.nbytes for buffer in blueprint.buffers())
        if size > MAX_TABLES:
            raise NBDTError(
                f"{self.config['architecture']!r} needs tables of {size:,} bytes, expected at most "
                f"{MAX_TABLES:,}; {str(self.root)!r} is no model that this release loads."
            )

    def made_with(self) -> str:
        """Return the versions of libraries that saved the model, for a person to read."""
        known = self.config.get("provenance", {})
        return shown({name: known.get(name, "another version") for name in libraries()})


def libraries() -> dict[str, str]:
    """Return the versions that a network's answers depend on."""
    return {name: version(name) for name in ("torch", "timm")}


def shown(versions: dict[str, str]) -> str:
    """Return names and versions for a person to read."""
    return " and ".join(f"{name} {number}" for name, number in versions.items())


def open_saved(folder: str | os.PathLike[str]) -> SavedModel:
    """Check and read the folder of a saved model, or of a bundled one.

    Raises NBDTError: no such model; a file that is missing, damaged, not the one that was saved, or
    a link to elsewhere; or a model of a newer version.
    """
    root = _find(folder)
    finish(root)
    _check_files(root)
    config = _read_config(root / "config.json")
    hierarchy = Hierarchy.load(root / "hierarchy.json")
    if hierarchy.hash != config["hierarchy_hash"]:
        raise NBDTError(
            f"{str(root)!r}: hierarchy.json is not the one this model was saved with "
            f"(hash {hierarchy.hash[:12]}…, expected {config['hierarchy_hash'][:12]}…)."
        )
    try:
        preprocessing = Preprocessing.from_dict(config["preprocessing"])
    except ValueError as error:
        raise NBDTError(f"{str(root)!r}: damaged preprocessing in config.json ({error}).") from None
    temperature = _read_temperature(root, config)
    shapes = {} if temperature else _read_shapes(root / WEIGHTS)
    for name in [name for name in shapes if name.endswith(SCALE)]:
        rows = shapes.pop(name)
        if rows != shapes.get(name.removesuffix(SCALE), ())[:1]:
            raise NBDTError(f"{str(root / WEIGHTS)!r} is damaged: {name} belongs to no matrix.")
    _check_hashes(root, config.get("sha256", {}))
    return SavedModel(root, config, hierarchy, preprocessing, temperature, shapes)


def finish(root: Path) -> None:
    """Finish an update of the last layer that a killed process began; see `nbdt.model.writing`."""
    aside = root / UPDATE
    if not aside.is_dir():
        return
    try:
        for name in (*TENSOR_FILES, "config.json"):
            if (aside / name).exists():
                (aside / name).replace(root / name)
        aside.rmdir()
    except OSError as error:
        raise NBDTError(
            f"The update of {str(root)!r} was stopped and cannot be finished: {error}. Make the "
            "folder writable and load the model again."
        ) from None


def bundled() -> list[str]:
    """Return the names of the models inside the package."""
    root = files("nbdt") / "bundled"
    return sorted(item.name for item in root.iterdir() if item.is_dir()) if root.is_dir() else []


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of tensors in a folder."""
    return {name: sha256(folder / name) for name in TENSOR_FILES if (folder / name).exists()}


def stored(name: str, value: Tensor, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Return a tensor as it is written, by name.

    Matrices have the `dtype`: norm parameters and statistics are few and need their range. In int8
    each row has a scale, which is a tensor beside it.
    """
    value = value.detach().cpu().contiguous()
    if dtype is None or not value.is_floating_point() or value.ndim < 2:
        return {name: value}
    if dtype != torch.int8:
        return {name: value.to(dtype)}
    most = value.flatten(1).abs().amax(dim=1).clamp(min=torch.finfo(value.dtype).tiny)
    scale = most / torch.iinfo(dtype).max
    return {name: (value / _rows(scale, value)).round().to(dtype), name + SCALE: scale}


def widened(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors that `stored` wrote, those in int8 as floating point."""
    scales = {name.removesuffix(SCALE): t for name, t in weights.items() if name.endswith(SCALE)}
    return {
        name: value * _rows(scales[name], value) if name in scales else value
        for name, value in weights.items()
        if not name.endswith(SCALE)
    }


def _rows(scale: Tensor, value: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (value.ndim - 1))


def _find(folder: str | os.PathLike[str]) -> Path:
    if str(folder) in bundled():
        return Path(str(files("nbdt") / "bundled" / str(folder)))
    root = Path(folder)
    if not (root / "config.json").is_file():
        if str(folder) == "cifar100":
            raise NBDTError(
                "The model 'cifar100' is no longer included. Use 'imagenet', the default: it knows "
                "1,000 classes of photographs. Or use 'cifar10', which is tiny."
            )
        inside = root / "model"  # where a training run leaves it
        hint = f"There is one at {os.fspath(inside)!r}. " if inside.is_dir() else ""
        raise NBDTError(
            f"There is no saved model at {os.fspath(folder)!r} (a folder with config.json). {hint}"
            f"Bundled models: {listed(bundled())}.{nearest(str(folder), bundled())}"
        )
    return root


def _check_files(root: Path) -> None:
    """Require ordinary files inside the folder: a link could expose any file of this machine."""
    inside = root.resolve()
    homes = [inside]
    if inside.parent.name == "snapshots":  # how the Hugging Face cache keeps a download
        homes.append(inside.parent.parent / "blobs")
    for name in ("config.json", "hierarchy.json", *TENSOR_FILES):
        path = root / name
        if not os.path.lexists(path):
            if name not in TENSOR_FILES:
                raise NBDTError(f"{str(root)!r} is not complete: it has no {name}.")
            continue
        target = path.resolve()
        if not any(target.is_relative_to(home) for home in homes):
            raise NBDTError(
                f"{str(path)!r} is a link out of the model's folder, to {str(target)!r}; copy the "
                "file there if you trust it."
            )
        if not target.is_file():
            raise NBDTError(f"{str(path)!r} is not an ordinary file.")


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG:
        raise NBDTError(f"{str(path)!r} is larger than {MAX_CONFIG:,} bytes; not a model's config.")
    config = read_record(path.read_bytes(), path, FORMAT, VERSIONS)
    wanted = {"architecture": str, "rule": str, "preprocessing": dict, "hierarchy_hash": str}
    if config["version"] == ONNX_VERSION or "backbone" in config:
        wanted |= {"backbone": dict, "sha256": dict}
    if config["version"] == CASCADE_VERSION or "cascade" in config:
        wanted |= {"cascade": dict}
    optional = {"provenance": dict, "sha256": dict, "installed_weights": dict}
    wrong = [key for key, kind in wanted.items() if not isinstance(config.get(key), kind)]
    wrong += [key for key, kind in optional.items() if not isinstance(config.get(key, {}), kind)]
    if wrong:
        raise NBDTError(f"{str(path)!r} is damaged: missing or wrong {listed(wrong)}.")
    return config


def _read_temperature(root: Path, config: dict[str, Any]) -> float | None:
    """Return the temperature of the installed weights; None if the folder has weights."""
    if (root / WEIGHTS).exists():
        return None
    entry = config.get("installed_weights")
    if entry is None:
        raise NBDTError(f"{str(root)!r} is not complete: it has no {WEIGHTS}.")
    temperature = entry.get("temperature")
    fits = (entry.get("package"), config["architecture"]) == (PACKAGE, ARCHITECTURE)
    if not (fits and isinstance(temperature, int | float) and 0 < temperature < math.inf):
        raise NBDTError(
            f"{str(root / 'config.json')!r} is damaged: the only installed weights are those of "
            f"{ARCHITECTURE} in {PACKAGE}, with a temperature above 0; got {entry!r}."
        )
    return float(temperature)


def _check_hashes(root: Path, hashes: dict[str, Any]) -> None:
    """Require each file of tensors to have the hash in the config."""
    unknown = [name for name in hashes if name not in TENSOR_FILES]
    if unknown:
        raise NBDTError(
            f"{str(root / 'config.json')!r} names files no model has: {listed(unknown)}."
        )
    for name, expected in hashes.items():
        if not (root / name).exists():
            raise NBDTError(f"{str(root)!r} is not complete: it has no {name}.")
        if sha256(root / name) != expected:
            raise NBDTError(
                f"{str(root / name)!r} is not the file that was saved (its SHA-256 differs from the "
                "one in config.json): it was damaged or replaced. Fetch the model again."
            )
    unhashed = [name for name in TENSOR_FILES if (root / name).exists() and name not in hashes]
    if unhashed:
        raise NBDTError(
            f"{str(root / 'config.json')!r} has no SHA-256 of {listed(unhashed)}: it cannot be "
            "checked against the file that was saved. Save or fetch the model again."
        )


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with _safetensors(path), safe_open(path, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  no mapping


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with _safetensors(path):
        return load_file(path)


@contextmanager
def _safetensors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise NBDTError(f"{str(path)!r} is not a safetensors file ({error}).") from None
