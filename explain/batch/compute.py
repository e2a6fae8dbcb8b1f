"""How a batch is computed: decoding ahead, the precision, and no more work than its files need.

Files are decoded in threads, which ``benchmarks/batch.py`` compares with processes.
"""

import hashlib
import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nbdt.errors import check_known
from nbdt.images.deep import REMARK
from nbdt.images.image import AMPLE_SIDE, ImageError, open_image
from nbdt.images.sources import ImageSource, in_threads
from nbdt.model.cascade import Part, members
from nbdt.model.model import NBDT
from nbdt.network.preprocessing import Preprocessing
from nbdt.runtime.accelerate import made_with, runs_in_onnx

from ..attribution import GRAD_CAM, answers_made, by_model, explain
from ..inputs import PHOTO_SIDE
from ..maps.layers import map_layer
from ..maps.levels import FAST
from ..maps.node_maps import head_logits, path_maps
from ..result.explanation import Explanation
from .options import AUTO, BFLOAT16, FLOAT32, BatchOptions

Explainer: TypeAlias = Callable[[Tensor], Sequence[Explanation]]


@dataclass(frozen=True, eq=False, repr=False)
class Decoded:
    """One image ready for the model, or the reason why it is not."""

    reference: str  # as given
    sha256: str | None = None  # of the file's bytes; None if they could not be read
    bytes: int | None = None  # their number
    modified_ns: int | None = None  # from `ImageSource.state`, before the bytes were read
    pixels: NDArray[np.uint8] | None = None  # (height, width, 3), what the network sees
    photo: Image.Image | None = None  # the same square, larger, for people; only if asked for
    remark: str | None = None  # what to know about the pixels
    error: str | None = None  # one line; pixels and photo are then None


Decoder: TypeAlias = Callable[[Iterable[ImageSource]], Generator[Decoded]]


def decode(
    source: ImageSource,
    preprocess: Preprocessing,
    *,
    photo: bool = False,
    bands: Sequence[int] = (),
) -> Decoded:
    """Read, hash, decode, resize and crop an image; a bad file gives an error, it does not raise."""
    _, modified = source.state()
    try:
        data = source.read()
    except ImageError as error:
        return Decoded(source.reference, modified_ns=modified, error=str(error))
    result = partial(
        Decoded, source.reference, hashlib.sha256(data).hexdigest(), len(data), modified
    )
    try:
        image = open_image(data, name=source.reference, max_side=AMPLE_SIDE, bands=bands)
    except ImageError as error:
        return result(error=str(error))
    pixels = np.array(preprocess.frame(image))
    square = preprocess.frame(image, PHOTO_SIDE) if photo else None
    return result(pixels=pixels, photo=square, remark=image.info.get(REMARK))


def decoder(
    preprocess: Preprocessing, threads: int, *, photo: bool = False, bands: Sequence[int] = ()
) -> Decoder:
    """Return a function that decodes images in order, some ahead, in threads; 0 threads: the caller's.

    With `photo` each keeps a photograph to draw on. `bands` are as in `open_image`.
    """
    one = partial(decode, preprocess=preprocess, photo=photo, bands=bands)
    return lambda sources: in_threads(one, sources, threads)


def precision_for(model: NBDT, precision: str) -> str:
    """Return 'float32' or 'bfloat16' as `resolve_precision` does; ONNX Runtime has float32 only."""
    if precision == AUTO and all(
        runs_in_onnx(m.backbone, m.preprocess.size) for m in members(model).values()
    ):
        return FLOAT32
    return resolve_precision(precision, model.device)


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return 'float32' or 'bfloat16'; 'auto' is bfloat16 where the hardware multiplies in it.

    Raises NBDTError: another word.
    """
    if precision == AUTO:
        return BFLOAT16 if _has_bfloat16(device) else FLOAT32
    check_known("precision", precision, (AUTO, FLOAT32, BFLOAT16))
    return precision


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


@contextmanager
def computing(model: NBDT, precision: str) -> Iterator[None]:
    """Compute the backbone in `precision` inside; pool, head, rules and maps stay in float32."""
    if precision == FLOAT32:
        yield
        return
    with ExitStack() as stack:
        small = [] if model.cascade is None else [model.cascade.small]
        for one in [model, *small]:
            stack.enter_context(_autocast(one))
        yield


@contextmanager
def _autocast(model: NBDT) -> Iterator[None]:
    feature_map, device = model.feature_map, model.device.type

    def autocast(images: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            return feature_map(images).float()

    model.feature_map = autocast  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.feature_map  # the class's method shows again


def made_on(model: NBDT, precision: str) -> dict[str, Any]:
    """Return the device, precision, runtime and versions that a part records."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == BFLOAT16):
        made = made_with(model.backbone, model.preprocess.size)
    made["versions"]["python"] = platform.python_version()
    return {"device": name, "precision": precision, **made}


@contextmanager
def explaining(model: NBDT, options: BatchOptions) -> Iterator[Explainer]:
    """Give a function from a batch of images to what is stored of each, in the chosen precision.

    Raises NBDTError: the network fails for every image, for example without positions to map.
    """
    with computing(model, options.precision):
        for one in members(model).values():
            _try_once(_cheapest(one, options), one)
        yield _cheapest(model, options)


def _cheapest(model: NBDT, options: BatchOptions) -> Explainer:
    if not options.pages and options.maps == "none":
        return partial(_paths, model, options.accuracy, with_maps=False)
    if not options.pages and options.maps == "npz" and options.method == GRAD_CAM:
        return partial(_paths, model, options.accuracy, with_maps=True)
    return partial(
        explain, model, method=options.method, accuracy=options.accuracy, level=FAST,
        evidence=options.evidence or False, counterfactuals=options.counterfactuals,
    )  # fmt: skip


def _paths(
    model: NBDT, accuracy: float | None, images: Tensor, *, with_maps: bool
) -> list[Explanation]:
    """Return paths and at most the maps of chosen children: half the work of `explain`."""

    def one(part: Part) -> list[Explanation]:
        own = part.model
        layer = map_layer(own, part.images) if with_maps else None
        with torch.inference_mode():
            features = layer.features if layer else own.features(part.images).float()
            paths = own.head.rules.paths(head_logits(own, features))
        maps = path_maps(own, layer, paths) if layer else [()] * len(paths)
        given = answers_made(own, features, paths, accuracy)
        return [
            Explanation(path, path_maps, made=answer)
            for path, path_maps, answer in zip(paths, maps, given, strict=True)
        ]

    return by_model(model, images, one)


def _try_once(explainer: Explainer, model: NBDT) -> None:
    """Explain one grey image."""
    side = model.preprocess.size
    explainer(torch.zeros(1, 3, side, side, device=model.device))
