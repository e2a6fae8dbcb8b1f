"""Import torchvision and timm without torch's compiler, whose import alone lasts a second.

Both import ``torch._dynamo`` only to have names at hand that explaining a photograph never uses:
torchvision the function ``is_compile_supported``, timm the decorator ``torch.compiler.disable``.
Under `compiler_on_demand` they get forms of these that import the compiler when they are called.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

_MODULE = "torch._dynamo.utils"


@contextmanager
def compiler_on_demand() -> Iterator[None]:
    """Spare the libraries imported meanwhile the compiler, unless it was imported before."""
    torch = importlib.import_module("torch")
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_in = _Compiler(_MODULE)
    sys.modules[_MODULE] = stand_in
    disable, torch.compiler.disable = torch.compiler.disable, _disable
    try:
        yield
    finally:
        torch.compiler.disable = disable
        stand_in.withdraw()


class _Compiler(ModuleType):
    """In the place of the compiler's module; imports it if it is called or asked for a name."""

    def is_compile_supported(self, device_type: Any) -> Any:
        return self._real().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `inspect` asks every module for its file
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        self.withdraw()
        return importlib.import_module(_MODULE)

    def withdraw(self) -> None:
        """Leave the place to the real module."""
        if sys.modules.get(_MODULE) is self:
            del sys.modules[_MODULE]


def _disable(
    fn: Callable[..., Any] | None = None, recursive: bool = True, **_reason: Any
) -> Callable[..., Any]:
    """Keep a function from being compiled, as ``torch.compiler.disable`` does, from its first call."""
    from torch._compile import _disable_dynamo

    return partial(_disable, recursive=recursive) if fn is None else _disable_dynamo(fn, recursive)
