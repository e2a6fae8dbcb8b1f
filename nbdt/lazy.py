"""Public names that are loaded on first use: importing torch alone takes seconds."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy(package: str, home: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's ``__getattr__`` (PEP 562) for names, each with its module.

    A name mapped to itself stands for the module of that name; "module:other" exports `other` under the name.
    """

    def get(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        path, _, attribute = home[name].partition(":")
        module = import_module(f".{path}", package)
        return module if path == name else getattr(module, attribute or name)

    return get
