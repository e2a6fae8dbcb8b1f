"""In how many published architectures `attach` finds the layer that gives the logits.

    python benchmarks/attach.py                    # all; half an hour on one core
    python benchmarks/attach.py timm --only resnet vision_transformer

All classifiers of torchvision, and one model for every architecture file of timm: random weights, one
image of the smallest size that the network takes. It counts if the attached model's output, under
`marginal`, is `log_softmax` of the model's own logits (1e-5), `flat` gives those logits back exactly,
and `detach` gives back the very same modules.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()

# ruff: noqa: E402
import timm
import torch
import torchvision
from torch import Tensor, nn

from nbdt import Hierarchy, NBDTError, attach, detach, flat

CLASSES = 1000  # some names carry other weights' number
SIDES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448)  # pixels
CANDIDATES = 5  # models of one file whose sizes are compared
SMALL = ("atto", "femto", "pico", "nano", "xxs", "mini", "tiny", "small", "_s", "b0", "18", "micro")


class Result(NamedTuple):
    """One architecture; `problem` is empty where all holds."""

    library: str
    name: str
    layer: str
    problem: str


def torchvision_models() -> Iterator[tuple[str, str]]:
    """(name, name) of all 80 classifiers."""
    for name in torchvision.models.list_models(module=torchvision.models):
        yield name, name


def timm_models() -> Iterator[tuple[str, str]]:
    """(file, name) of one model for each file, the lightest of those whose name says small."""
    for module in timm.list_modules():
        names = [n for n in timm.list_models(module=module) if not n.startswith("test_")]
        if names:
            names.sort(key=lambda n: (not any(word in n for word in SMALL), len(n)))
            yield module, min(names[:CANDIDATES], key=_weights)


def _weights(name: str) -> float:
    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=CLASSES)
        return sum(p.numel() for p in model.parameters())
    except Exception:  # noqa: BLE001  some cannot be made without numbers
        return float("inf")


def create(library: str, name: str) -> nn.Module:
    """With random weights, none of them zero: a head that starts at zero would hide an error."""
    torch.manual_seed(0)
    if library == "timm":
        model = timm.create_model(name, num_classes=CLASSES)
    else:
        extra = {"init_weights": False} if name in {"googlenet", "inception_v3"} else {}
        model = torchvision.models.get_model(name, weights=None, **extra)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and not parameter.any():
                parameter.normal_(std=0.02)
    return model.eval()


def smallest(model: nn.Module) -> tuple[Tensor, Tensor]:
    """An image that the model takes, and its logits."""
    size = getattr(model, "default_cfg", {}).get("input_size", (3, 224, 224))
    for side in dict.fromkeys([*SIDES, size[-1]]):
        image = torch.rand(1, size[0], side, side)
        try:
            logits = model(image)
        except Exception:  # noqa: BLE001  as many kinds of error as networks
            continue
        if not isinstance(logits, Tensor) or logits.isfinite().all():
            return image, logits
    raise NBDTError("takes no image of any size tried")


def check(library: str, name: str) -> Result:
    """Attach, compare, detach."""
    layer = ""
    try:
        model = create(library, name)
        image, logits = smallest(model)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            return Result(library, name, "", "gives no logits (batch, classes)")
        classes = logits.shape[1]
        tree = Hierarchy.from_paths([f"g{i % 7}/c{i}" for i in range(classes)])
        parts = dict(model.named_modules())
        attach(model, tree, rule="marginal")
        layer = next(n for n, part in model.named_modules() if type(part).__name__ == "NBDTHead")
        answer = model(image)
        with flat(model):
            same = torch.equal(model(image), logits)
        detach(model)
        back = dict(model.named_modules())
        restored = list(back) == list(parts) and all(back[n] is parts[n] for n in parts)
        error = (answer - logits.log_softmax(1)).abs().max().item()
        problems = [
            *([f"differs by {error:.2g}"] if not error <= 1e-5 else []),
            *(["flat differs"] if not same else []),
            *(["detach differs"] if not restored else []),
        ]
        return Result(library, name, layer, "; ".join(problems))
    except Exception as error:  # noqa: BLE001  the table says what went wrong
        return Result(library, name, layer, f"{type(error).__name__}: {error}")


def main() -> None:
    """Print the table of what fails, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", default=["torchvision", "timm"])
    parser.add_argument(
        "--only", nargs="+", default=[], help="Files of timm, models of torchvision."
    )
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lists = {"torchvision": torchvision_models, "timm": timm_models}
    for library in options.libraries:
        results = []
        for file, name in lists[library]():
            if options.only and file not in options.only:
                continue
            with torch.inference_mode():
                results.append(check(library, name))
            gc.collect()
            print(
                f"| {library} | {file} | {name} | {results[-1].layer} | {results[-1].problem} |",
                flush=True,
            )
        good = sum(not result.problem for result in results)
        print(f"\n{library} {good} of {len(results)}\n", flush=True)


if __name__ == "__main__":
    main()
