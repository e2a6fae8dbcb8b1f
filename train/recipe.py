"""A recipe: all settings of a training run, checked when it is read."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from nbdt.errors import NBDTError, listed, nearest
from nbdt.tree.nodes import short

AUTO = -1  # workers: by the number of cores
GONE = ("strategy",)  # keys of earlier versions, which old models name


@dataclass(frozen=True)
class Recipe:
    """The settings of one run. Units are in the names; shares and fractions are of 1; 0 is often "none"."""

    architecture: str  # a timm name, with options; see `nbdt.network.load`
    image_size: int = (
        0  # side of the network's input in pixels; 0: as the network's configuration says
    )
    # Data. train, test: glob patterns in the data folder for a folder of classes or an archive, with
    # alternatives after "|". By default the data's layout decides (`nbdt.train.data.splits`).
    train: str = ""
    test: str = ""
    classes: tuple[
        str, ...
    ] = ()  # in output order; by default the hierarchy's, else the data's, sorted
    # Images kept from training, for choices and as the reference set. Below 1 a share of each class, else
    # a number of each class. Unused if the data has such a split.
    held_out: float = 0.1
    held_out_test: float = 0.15
    memory_gigabytes: float = (
        4.0  # decoded images are kept up to this; else they are read every epoch
    )
    workers: int = AUTO  # processes that read and augment images; -1: one less than the cores
    check_images: bool = True  # decode every image once before the first step
    skip_corrupt: bool = False  # leave out images that cannot be read instead of stopping
    # Network. freeze_backbone fits the last layer alone, on features that are kept on the disk
    # (`nbdt.train.frozen`): optimisation and augmentation then have no effect.
    pretrained: bool = False  # start from timm's weights, or a file's
    freeze_backbone: bool = False
    freeze_norms: bool = False  # keep pretrained statistics, which few images estimate badly
    # Above 0, the stem of a small_convnet starts from the main axes of the images' patches, and this is
    # added to their variances (`nbdt.network.small_networks.SmallConvNet.whiten`).
    whiten: float = 0.0
    # Tree. linkage, branching and semantics are those of a hierarchy that is induced if none is given.
    # Until tree_from the loss is plain cross-entropy, and the hierarchy is induced from the weights at that
    # moment, unless one was given or the pretrained classifier has these classes.
    rule: str = "representative"  # or "marginal"
    linkage: str = "auto"  # "average", "ward", "complete"; "auto": the rule decides
    branching: int = 0  # most children of a node; 0: the rule decides
    semantics: float = -1.0  # WordNet's weight, from 0 to 1; -1: the rule decides
    tree_from: float = 0.4  # fraction of the run after which tree supervision starts
    refresh_every_epochs: int = 0  # how often the hierarchy is induced again; 0 never
    beta: float = 1.0  # this and the next two: as in `TreeSupervisionLoss`
    omega: float = 1.0
    alpha: float = 0.0
    beta_end: float = 1.0  # β and ω at the end of the run
    omega_end: float = 1.0
    weight_schedule: str = "constant"  # "linear" or "cosine": how they change under supervision
    # Optimisation.
    epochs: int = 20
    batch_size: int = 250  # images, over all devices
    accumulate_batches: int = 1  # batches whose gradients a step sums
    optimizer: str = "sgd"  # a name of timm's
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "linear"  # or "cosine": how the learning rate falls to 0 after the warm-up
    warmup: float = 0.15  # fraction of the run in which it rises
    clip_norm: float = 0.0  # largest norm of the gradient; 0 for no limit
    devices: int = 0  # GPUs, or processes on a CPU; 0 for all GPUs, one process on a CPU
    nodes: int = 1  # machines; torchrun or SLURM starts the same command on each
    sync_norms: bool = False  # batch norms use the batch of all devices, as one device would
    precision: str = "auto"  # bfloat16 on a GPU that has it; "32", or mixed: "bf16", "16"
    ema_decay: float = 0.0  # the finished weights are a moving average with this decay; 0 for none
    label_smoothing: float = 0.0
    balance_classes: bool = False  # weight each class by its rarity
    calibrate: bool = False  # at the end: see `nbdt.train.fit.measure.calibrate`
    # Stop after this many epochs without a better soft accuracy on held-out images, and keep the best; 0
    # never.
    early_stop_epochs: int = 0
    seed: int = 0
    # Augmentation.
    augment: str = (
        "shift"  # small images: padded and shifted; "crop": a random part of a photograph
    )
    crop_padding_pixels: int = 4  # for "shift"
    crop_share_min: float = 0.35  # smallest share of a photograph's area, for "crop"
    flip: bool = True  # mirror half of the images
    auto_augment: str = ""  # in timm's notation, for example "rand-m9-mstd0.5"
    erase_probability: float = 0.0  # of erasing a rectangle
    # Largest standard deviation, in colour values up to 255, of the noise added to an image; drawn from 0
    # to this. It imitates the fine colour that lossy files lose.
    noise: float = 0.0
    mixup_alpha: float = 0.0  # this and the next: parameters of timm's mixing of pairs
    cutmix_alpha: float = 0.0
    # Images are shrunk to this side in pixels until this fraction of the run: fewer pixels train faster.
    early_size: int = 0
    early_until: float = 0.0
    # Safety: how often a checkpoint is saved within an epoch; 0 never.
    save_every_minutes: float = 10.0
    save_every_steps: int = 0

    def __post_init__(self) -> None:
        for key, choices in _CHOICES.items():
            value = getattr(self, key)
            if value not in choices:
                raise NBDTError(
                    f"Recipe key {key!r} must be one of {', '.join(choices)}, got {value!r}."
                    f"{nearest(str(value), choices)}"
                )
        for key, (low, high) in _RANGES.items():
            value = getattr(self, key)
            if key.startswith("held_out") and not value:
                raise NBDTError(
                    f"Recipe key {key!r} must be above 0: choices are made, and the model is "
                    "measured, on images that it was not trained on."
                )
            if not (low <= value <= high and math.isfinite(value)):
                upper = "" if high == math.inf else f" and at most {high:g}"
                raise NBDTError(f"Recipe key {key!r} must be at least {low:g}{upper}, got {value}.")
        problems = {
            "Recipe key 'branching' must be at least 2, or 0 to let the rule decide; got 1.": (
                self.branching == 1
            ),
            "beta_end and omega_end have no effect under weight_schedule 'constant'; set it to 'linear' or "
            "'cosine', or leave them out.": self.weight_schedule == "constant"
            and (self.beta_end, self.omega_end) != (Recipe.beta_end, Recipe.omega_end),
            f"Mixing pairs needs an even batch_size, got {self.batch_size} (mixup_alpha or cutmix_alpha is "
            "above 0).": bool(self.mixup_alpha or self.cutmix_alpha) and self.batch_size % 2 == 1,
        }
        if wrong := [problem for problem, holds in problems.items() if holds]:
            raise NBDTError(wrong[0])


_CHOICES: Mapping[str, Sequence[str]] = {
    "rule": ("representative", "marginal"),
    "linkage": ("auto", "average", "ward", "complete"),
    "weight_schedule": ("constant", "linear", "cosine"),
    "schedule": ("linear", "cosine"),
    "precision": ("auto", "32", "bf16", "16"),
    "augment": ("shift", "crop"),
}
_RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        (
            "held_out", "held_out_test", "memory_gigabytes", "clip_norm", "whiten", "learning_rate",
            "momentum", "weight_decay", "beta", "omega", "alpha", "beta_end", "omega_end",
            "refresh_every_epochs", "early_stop_epochs", "seed", "crop_padding_pixels", "early_size",
            "noise", "mixup_alpha", "cutmix_alpha", "save_every_minutes", "save_every_steps",
            "branching", "devices", "image_size",
        ),
        (0, math.inf),
    ),
    **dict.fromkeys(
        ("epochs", "batch_size", "accumulate_batches", "nodes"), (1, math.inf)
    ),
    **dict.fromkeys(("tree_from", "warmup", "early_until", "erase_probability"), (0, 1)),
    **dict.fromkeys(("label_smoothing", "ema_decay"), (0, 0.999999)),
    "crop_share_min": (0.01, 1),
    "semantics": (-1, 1),
    "workers": (AUTO, 256),
}  # fmt: skip


def available() -> list[str]:
    """Return the names of the shipped recipes."""
    folder = files("nbdt.train") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """Return a shipped recipe by name, or a TOML file's, with ``key=value`` overrides.

    Raises NBDTError: no such recipe, no TOML, an unknown key, or a value of the wrong type.
    """
    return parse_recipe(_parse(_read(name), str(name)) | overridden(overrides))


def overridden(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``key=value`` texts. Raises NBDTError for another text."""
    values: dict[str, Any] = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise NBDTError(f"Expected key=value, got {override!r}, as in --set epochs=5.")
        values |= _parse(f"{key} = {_quoted(text)}", override)
    return values


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Return a recipe from plain values. Raises NBDTError for unknown, missing or mistyped keys."""
    values = checked(Recipe, {key: values[key] for key in values if key not in GONE}, "the recipe")
    try:
        return Recipe(**values)
    except TypeError as error:
        raise NBDTError(f"The recipe is incomplete: {error}.") from None


def checked(of: type[Any], values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return values for the fields of a dataclass. Raises NBDTError for unknown or mistyped keys."""
    kinds = {field.name: str(field.type).removesuffix(" | None") for field in fields(of)}
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise NBDTError(
            f"Unknown key {listed(unknown)} in {what}.{nearest(unknown[0], kinds)} "
            f"Known keys: {', '.join(kinds)}."
        )
    return {key: _typed(key, value, kinds[key]) for key, value in values.items()}


def _typed(key: str, value: object, kind: str) -> object:
    types: dict[str, tuple[type, ...]] = {
        "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
        "tuple[str, ...]": (list, tuple),
    }  # fmt: skip
    items = value if isinstance(value, list | tuple) else ()
    # A precision of 32 and one of "32" are the same on a command line.
    if key == "precision" and isinstance(value, int):
        value = str(value)
    if (
        not isinstance(value, types[kind])
        or (isinstance(value, bool) and kind != "bool")
        or not all(isinstance(item, str) for item in items)
    ):
        raise NBDTError(f"Recipe key {key!r} must be of type {kind}, got {short(value)}.")
    return tuple(value) if isinstance(value, list) else value


def _read(name: str | os.PathLike[str]) -> str:
    shipped = str(name) in available()
    path: Any = files("nbdt.train") / "recipes" / f"{name}.toml" if shipped else Path(name)
    if not path.is_file():
        raise NBDTError(
            f"There is no recipe {os.fspath(name)!r}; shipped: {', '.join(available())}."
            f"{nearest(str(name), available())} A path to a TOML file works too."
        )
    try:
        return str(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise NBDTError(f"{os.fspath(name)!r} is not TOML: {error}.") from None


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise NBDTError(f"{name!r:.200} is not TOML: {str(error) or 'nested too deep'}.") from None


def _quoted(text: str) -> str:
    """Quote bare words in an override; everything else is TOML already."""
    try:
        tomllib.loads(f"x = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
