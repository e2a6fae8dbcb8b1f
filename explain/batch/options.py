"""What a batch can be asked for: light enough for a command's help."""

from __future__ import annotations

from typing import Literal, TypeAlias

Maps: TypeAlias = Literal["npz", "png", "none"]
Engine: TypeAlias = Literal["local", "ray"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]

MAPS = {"npz": ("maps",), "png": ("pictures",), "none": ()}  # and the kinds of files they make
ENGINES = LOCAL, RAY = "local", "ray"
AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
