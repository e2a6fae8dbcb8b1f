"""Packages whose names are loaded on first use: importing torch alone takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy(package: str, home: Mapping[str, str]) -> Callable[[str], object]:
    """A package's ``__getattr__`` (PEP 562) for names, each with the module it lives in.

    A name that is its own home is that module.
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{home[name]}", package)
        return module if home[name] == name else getattr(module, name)

    return get
