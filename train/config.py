"""A recipe: everything that decides a training run, parsed once at the border."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from nbdt.errors import NBDTError, listed, nearest


@dataclass(frozen=True)
class Recipe:
    """The settings of one run. Units are in the names; fractions are of the whole run.

    Attributes:
        train, test: glob patterns inside the data folder for a folder of classes or an archive.
        classes: class names in output order, as the data names its folders.
        architecture: a timm name.
        image_size: side in pixels that images are brought to.
        rule: "representative" or "marginal".
        linkage: how a hierarchy is induced when none is given.
        tree_from: when tree supervision starts; until then the loss is plain cross-entropy, and
            the hierarchy is induced from the weights at that moment unless one was given.
        early_size, early_until: the side in pixels that images are shrunk to until that fraction of
            the run; fewer pixels train faster, and a short rest at full size makes up for it.
        warmup: fraction of the run in which the learning rate rises; it then falls to 0, linearly.
        whiten: start the stem of a small_resnet from the main axes of the images' patches.
        held_out: images a class kept from training, for choices and as the reference set.
    """

    train: str
    test: str
    classes: tuple[str, ...]
    architecture: str
    image_size: int
    rule: str = "representative"
    linkage: str = "average"
    beta: float = 1.0
    omega: float = 1.0
    tree_from: float = 0.4
    epochs: int = 20
    batch_size: int = 250
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.15
    early_size: int = 0
    early_until: float = 0.0
    label_smoothing: float = 0.0
    crop_padding_pixels: int = 4
    flip: bool = True
    held_out: int = 500
    whiten: bool = False
    seed: int = 0


def available() -> list[str]:
    """Names of the shipped recipes."""
    folder = files(f"{__package__}.recipes")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, or a TOML file, with ``key=value`` overrides.

    Raises:
        NBDTError: no such recipe, not TOML, an unknown key, or a value of the wrong type.
    """
    values = _parse(_read(name), str(name))
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise NBDTError(f"Expected key=value, got {override!r}, as in --set epochs=5.")
        values.update(_parse(f"{key} = {_quoted(text)}", override))
    return parse_recipe(values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values. Raises NBDTError for unknown, missing or mistyped keys."""
    kinds = {field.name: str(field.type) for field in fields(Recipe)}
    unknown = [key for key in values if key not in kinds]
    if unknown:
        raise NBDTError(
            f"Unknown key {listed(unknown)} in the recipe.{nearest(unknown[0], kinds)} "
            f"Known keys: {', '.join(kinds)}."
        )
    checked = {key: _typed(key, value, kinds[key]) for key, value in values.items()}
    try:
        return Recipe(**checked)  # type: ignore[arg-type]
    except TypeError as error:
        raise NBDTError(f"The recipe is incomplete: {error}.") from None


def _typed(key: str, value: object, kind: str) -> object:
    types: dict[str, tuple[type, ...]] = {
        "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
        "tuple[str, ...]": (list, tuple),
    }  # fmt: skip
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise NBDTError(f"Recipe key {key!r} must be of type {kind}, got {value!r}.")
    return tuple(value) if isinstance(value, list) else value


def _read(name: str | os.PathLike[str]) -> str:
    if str(name) in available():
        return (files(f"{__package__}.recipes") / f"{name}.toml").read_text()
    if not Path(name).is_file():
        raise NBDTError(
            f"There is no recipe {os.fspath(name)!r}; shipped: {', '.join(available())}."
            f"{nearest(str(name), available())} A path to a TOML file works too."
        )
    return Path(name).read_text()


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NBDTError(f"{name!r} is not TOML: {error}.") from None


def _quoted(text: str) -> str:
    """Bare words in an override are strings; everything else is TOML already."""
    try:
        tomllib.loads(f"x = {text}")
    except tomllib.TOMLDecodeError:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
