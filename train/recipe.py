"""A recipe: all settings of a training run, checked when it is read."""

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from nbdt.errors import NBDTError, check_known, listed, nearest
from nbdt.tree.nodes import short

AUTO = -1  # workers: by the number of cores
GONE = ("strategy", "noise")  # keys of earlier versions, which old models name


# The types of keys, with the least and the largest value.
NotNegative = Annotated[float, 0, math.inf]
Whole = Annotated[int, 0, math.inf]
Count = Annotated[int, 1, math.inf]
Share = Annotated[float, 0, 1]
BelowOne = Annotated[float, 0, 0.999999]


@dataclass(frozen=True)
class Recipe:
    """The settings of one run. Units are in the names; shares and fractions are of 1; 0 is often "none"."""

    architecture: str  # a timm name, with options; see `nbdt.network.load`
    image_size: Whole = 0  # side of the network's input in pixels; 0: as its configuration says
    # Data. train, test: glob patterns in the data folder for a folder of classes or an archive, with
    # alternatives after "|". By default the data's layout decides (`nbdt.train.data.splits`).
    train: str = ""
    test: str = ""
    # in output order; by default the hierarchy's, else the data's, sorted
    classes: tuple[str, ...] = ()
    # Images kept from training, for choices and as the reference set. Below 1 a share of each class, else
    # a number of each class. Unused if the data has such a split.
    held_out: NotNegative = 0.1
    held_out_test: NotNegative = 0.15
    memory_gigabytes: NotNegative = 4.0  # decoded images are kept up to this, else read every epoch
    # processes that read and augment images; -1: one less than the cores
    workers: Annotated[int, AUTO, 256] = AUTO
    check_images: bool = True  # decode every image once before the first step
    skip_corrupt: bool = False  # leave out images that cannot be read instead of stopping
    # Network. freeze_backbone fits the last layer alone, on features that are kept on the disk
    # (`nbdt.train.frozen`): optimisation and augmentation then have no effect.
    pretrained: bool = False  # start from timm's weights, or a file's
    freeze_backbone: bool = False
    freeze_norms: bool = False  # keep pretrained statistics, which few images estimate badly
    # Above 0, the stem of a small_convnet starts from the main axes of the images' patches, and this is
    # added to their variances (`nbdt.network.small_networks.SmallConvNet.whiten`).
    whiten: NotNegative = 0.0
    # Tree. linkage, branching and semantics are those of a hierarchy that is induced if none is given.
    # Until tree_from the loss is plain cross-entropy, and the hierarchy is induced from the weights at that
    # moment, unless one was given or the pretrained classifier has these classes.
    rule: Literal["representative", "marginal"] = "representative"
    linkage: Literal["auto", "average", "ward", "complete"] = "auto"  # "auto": the rule decides
    branching: Whole = 0  # most children of a node; 0: the rule decides
    semantics: Annotated[float, -1, 1] = -1.0  # WordNet's weight; -1: the rule decides
    tree_from: Share = 0.4  # fraction of the run after which tree supervision starts
    refresh_every_epochs: Whole = 0  # how often the hierarchy is induced again; 0 never
    beta: NotNegative = 1.0  # this and the next two: as in `TreeSupervisionLoss`
    omega: NotNegative = 1.0
    alpha: NotNegative = 0.0
    beta_end: NotNegative = 1.0  # β and ω at the end of the run
    omega_end: NotNegative = 1.0
    # how they change under supervision
    weight_schedule: Literal["constant", "linear", "cosine"] = "constant"
    # Optimisation.
    epochs: Count = 20
    batch_size: Count = 250  # images, over all devices
    accumulate_batches: Count = 1  # batches whose gradients a step sums
    optimizer: str = "sgd"  # a name of timm's
    learning_rate: NotNegative = 0.1
    momentum: NotNegative = 0.9
    weight_decay: NotNegative = 5e-4
    schedule: Literal["linear", "cosine"] = "linear"  # the fall to 0 after the warm-up
    warmup: Share = 0.15  # fraction of the run in which the learning rate rises
    clip_norm: NotNegative = 0.0  # largest norm of the gradient; 0 for no limit
    devices: Whole = 0  # GPUs, or processes on a CPU; 0 for all GPUs, one process on a CPU
    nodes: Count = 1  # machines; torchrun or SLURM starts the same command on each
    sync_norms: bool = False  # batch norms use the batch of all devices, as one device would
    # "auto": bfloat16 on a GPU that has it; "bf16" and "16" are mixed
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    ema_decay: BelowOne = 0.0  # the finished weights are a moving average with this decay; 0: none
    label_smoothing: BelowOne = 0.0
    balance_classes: bool = False  # weight each class by its rarity
    calibrate: bool = False  # at the end: see `nbdt.train.fit.measure.calibrate`
    # Stop after this many epochs without a better soft accuracy on held-out images, and keep the best; 0
    # never.
    early_stop_epochs: Whole = 0
    seed: Whole = 0
    # Augmentation. "shift", for small images: padded and shifted; "crop": a random part of a photograph
    augment: Literal["shift", "crop"] = "shift"
    crop_padding_pixels: Whole = 4  # for "shift"
    crop_share_min: Annotated[float, 0.01, 1] = 0.35  # of a photograph's area, for "crop"
    flip: bool = True  # mirror half of the images
    auto_augment: str = ""  # for "crop", in timm's notation, for example "rand-m9-mstd0.5"
    erase_probability: Share = 0.0  # of erasing a rectangle
    mixup_alpha: NotNegative = 0.0  # this and the next: parameters of timm's mixing of pairs
    cutmix_alpha: NotNegative = 0.0
    # Images are shrunk to this side in pixels until this fraction of the run: fewer pixels train faster.
    early_size: Whole = 0
    early_until: Share = 0.0
    # Safety: how often a checkpoint is saved within an epoch; 0 never.
    save_every_minutes: NotNegative = 10.0
    save_every_steps: Whole = 0

    def __post_init__(self) -> None:
        for key, kind in get_type_hints(Recipe, include_extras=True).items():
            value, bounds = getattr(self, key), getattr(kind, "__metadata__", None)
            if get_origin(kind) is Literal:
                check_known(key, value, get_args(kind))
            elif bounds and not (bounds[0] <= value <= bounds[1] and math.isfinite(value)):
                upper = "" if bounds[1] == math.inf else f" and at most {bounds[1]:g}"
                raise NBDTError(
                    f"Recipe key {key!r} must be at least {bounds[0]:g}{upper}, got {value}."
                )
        problems = {
            "Recipe keys 'held_out' and 'held_out_test' must be above 0: choices are made, and the model "
            "is measured, on images that it was not trained on.": not (
                self.held_out and self.held_out_test
            ),
            "auto_augment has no effect under augment 'shift'; set augment to 'crop', or leave it out.": (
                bool(self.auto_augment) and self.augment == "shift"
            ),
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
    kinds = get_type_hints(of)
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise NBDTError(
            f"Unknown key {listed(unknown)} in {what}.{nearest(unknown[0], kinds)} "
            f"Known keys: {', '.join(kinds)}."
        )
    return {key: _typed(key, value, kinds[key]) for key, value in values.items()}


def _typed(key: str, value: object, kind: Any) -> object:
    # A precision of 32 and one of "32" are the same on a command line.
    if key == "precision" and isinstance(value, int):
        value = str(value)
    base = str if get_origin(kind) is Literal else get_origin(kind) or kind
    if base is tuple and isinstance(value, list):
        value = tuple(value)
    fits = isinstance(value, int | float if base is float else base)
    if isinstance(value, tuple):
        fits = fits and all(isinstance(item, str) for item in value)
    if not fits or (isinstance(value, bool) and base is not bool):
        raise NBDTError(f"Recipe key {key!r} must be of type {base.__name__}, got {short(value)}.")
    return value


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
