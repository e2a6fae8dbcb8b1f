"""Export a model to run without this package: ONNX, a web page with it, or torch.export's .pt2.

The graph takes `images`, (batch, 3, size, size), any batch, and gives

- `log_probs`: (batch, classes) leaf log-probabilities, `model(images)`;
- `decisions`: (batch, nodes) log-probability of every node among its siblings, the root's 0;
- `answer`, `answer_probability`, `unknown`: (batch,) index and probability of the node that the
  model commits to, and whether the image is unlike what it knows, if an accuracy is asked for (see
  `nbdt.decide.answer`);
- `maps`: (batch, nodes, height, width) log-odds map of every node in closed form (see `nbdt.decide.maps`),
  the root's 0; only for a linear head on an average pool.

Nodes are in the order of the hierarchy's JSON, which is in the file's metadata with everything
else that a consumer needs.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

import torch
import typer
from torch import Tensor, nn

from .. import __version__
from ..errors import NBDTError, check_known
from ..files import check_new, umask
from ..network.positions import pools_by_average, positions
from ..network.running import evaluating
from ..progress import working
from ..runtime.backbone import OnnxBackbone
from ..runtime.convert import followed_by, quiet, to_onnx
from ..runtime.session import INPUT
from .cascade import refuse_cascade
from .exported import ExportedAnswer, ExportedHead
from .fingerprint import model_hash
from .model import NBDT

Format: TypeAlias = Literal["onnx", "web", "torch"]
SUFFIXES = {"onnx": ".onnx", "web": "-web", "torch": ".pt2"}


@dataclass(frozen=True)
class Export:
    """What `export` wrote."""

    path: Path  # the file, or the folder of a page
    outputs: tuple[str, ...]  # their names, in order
    why_no_maps: str  # the reason, for a person to read; empty where there are maps


def export(
    model: NBDT,
    path: str | os.PathLike[str],
    *,
    format: str,  # noqa: A002
    accuracy: float | None = None,
    maps: bool = True,
) -> Export:
    """Write the model to one file, or to a folder with a web page, atomically.

    Args:
        model: unchanged; the file runs on any device.
        path: a file is overwritten if it exists; a folder must not exist.
        format: "onnx", "torch", or "web": a page that reads photographs in the browser.
        accuracy: the share of answers that are to be right; None: no output says where to stop.
        maps: whether the file computes maps, a sixth of its time (in int8 a quarter).

    Raises:
        NBDTError: an unknown format, a missing library, a network that cannot be traced, an
            accuracy for a model that is not calibrated, or a folder that exists.
        OSError: the file cannot be written.
    """
    check_known("format", format, _WRITERS)
    target = Path(path)
    if format == "web":
        check_new(target)
    elif target.is_dir():
        raise NBDTError(f"{str(target)!r} is a folder; name a file.")
    if not target.parent.is_dir():
        raise NBDTError(f"There is no folder {str(target.parent)!r} to write {target.name!r} to.")
    refuse_cascade(model, "exported as one file", "Export each of the two models.")
    if isinstance(model.backbone, OnnxBackbone) and format == "torch":
        raise NBDTError("This model's backbone is ONNX: export it as ONNX.")
    if model.head.linear.weight.device.type != "cpu":  # a trace holds the device it was made on
        model = copy.deepcopy(model).cpu()
    graph = ExportedModel(model, accuracy, maps=maps)
    with evaluating(model), tempfile.TemporaryDirectory(dir=target.parent) as aside:
        written = Path(aside) / f"model{SUFFIXES[format]}"
        with quiet(model.architecture):
            _WRITERS[format](graph, model, written)
        written.chmod((0o777 if written.is_dir() else 0o666) & ~umask())
        written.replace(target)
    return Export(target, graph.outputs, graph.why_no_maps)


class ExportedModel(nn.Module):
    """Images to log-probabilities, decisions and, where there is a closed form, maps."""

    def __init__(self, model: NBDT, accuracy: float | None = None, *, maps: bool = True) -> None:
        super().__init__()
        with evaluating(model), torch.no_grad():
            feature_map = model.feature_map(_example(model)[:1])
            side = model.preprocess.size
            has_maps = maps and pools_by_average(
                model.backbone, model.head.in_features, feature_map, (side, side)
            )
        answer = None
        if accuracy is not None:
            if model.calibration is None:
                raise NBDTError(
                    "This model is not calibrated, so it cannot say where an answer stops: run `nbdt "
                    "calibrate` on labelled photographs, or leave the accuracy out."
                )
            answer = ExportedAnswer(model.hierarchy, model.calibration, accuracy)
        # Not the model itself: its compiled tree would lie unused in the file.
        self.backbone = model.backbone
        grid = None
        if has_maps:
            grid = partial(positions, model.backbone, picture=(side, side))
        self.head = ExportedHead(model.head, grid, answer)
        self.outputs = (
            *("log_probs", "decisions"),
            *(("answer", "answer_probability", "unknown") if answer else ()),
            *(("maps",) if has_maps else ()),
        )
        self.why_no_maps = ""
        if not maps:
            self.why_no_maps = "they were left out"
        elif not has_maps:
            self.why_no_maps = (
                f"{model.architecture!r} has more than an average pool between its last feature map "
                "and the linear head, so that its maps have no closed form"
            )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs named above, in float32."""
        backbone = cast(Any, self.backbone)
        feature_map = backbone.forward_features(images)
        features = backbone.forward_head(feature_map, pre_logits=True)
        return cast("tuple[Tensor, ...]", self.head(feature_map, features))


def description(model: NBDT) -> dict[str, str]:
    """Return what a consumer needs beside the numbers: text or JSON, by name."""
    return {
        "format": "nbdt-export",
        "version": "1",
        "nbdt": __version__,
        "architecture": model.architecture,
        "rule": model.rule,
        "classes": json.dumps(model.hierarchy.classes),
        "hierarchy": model.hierarchy.to_json(),
        "preprocessing": json.dumps(model.preprocess.facts()),
        "model_hash": model_hash(model),
    }


def _write_onnx(graph: ExportedModel, model: NBDT, path: Path) -> None:
    example, about = _example(model), description(model)
    if isinstance(model.backbone, OnnxBackbone):
        proto = followed_by(model.backbone.session, graph.head, example, graph.outputs, about)
    else:
        proto = to_onnx(graph, {INPUT: example}, graph.outputs, about)
    path.write_bytes(cast(Any, proto).SerializeToString())


def _write_web(graph: ExportedModel, model: NBDT, folder: Path) -> None:
    page = files("nbdt") / "runtime" / "web"
    folder.mkdir()
    for name in ("index.html", "reader.js"):
        (folder / name).write_bytes((page / name).read_bytes())
    _write_onnx(graph, model, folder / "model.onnx")
    about = json.dumps(description(model))  # the browser does not show a file's metadata
    (folder / "model.json").write_text(about, encoding="utf-8")


def _write_torch(graph: ExportedModel, model: NBDT, path: Path) -> None:
    sizes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(graph, (_example(model),), dynamic_shapes=sizes)
    torch.export.save(program, path, extra_files={"nbdt.json": json.dumps(description(model))})


_WRITERS = {"onnx": _write_onnx, "web": _write_web, "torch": _write_torch}


def _example(model: NBDT) -> Tensor:
    """Return two images: a tracer takes a batch of one for a constant."""
    side = model.preprocess.size
    weight = model.head.linear.weight
    return torch.zeros(2, 3, side, side, device=weight.device, dtype=weight.dtype)


app = typer.Typer(add_completion=False)


@app.command(name="export")
def export_command(
    model: Annotated[str, typer.Argument(help="A saved model's folder, or a bundled one.")],
    *,
    format: Annotated[  # noqa: A002  the option's name
        Format, typer.Option("--format", help="onnx, web (a page), or torch (torch.export's .pt2).")
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(help="The file or folder; by default named after the model, here."),
    ] = None,
    accuracy: Annotated[
        float | None,
        typer.Option(
            help="Add outputs that say where an answer stops, at this share of right ones."
        ),
    ] = None,
    maps: Annotated[bool, typer.Option(help="Whether the file computes maps.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of text.")
    ] = False,
) -> None:
    """Write a model as ONNX, as a web page or as .pt2: probabilities, decisions, maps, its tree."""
    loaded = NBDT.load(model)
    target = out or Path(f"{Path(model).resolve().name}{SUFFIXES[format]}")
    with working(f"Tracing {loaded.architecture}"):
        written = export(loaded, target, format=format, accuracy=accuracy, maps=maps)
    if format == "web":
        typer.echo("note: two files of onnxruntime-web are missing; the page says which.", err=True)
    if written.why_no_maps and maps:
        typer.echo(f"note: no maps: {written.why_no_maps}.", err=True)
    if as_json:
        facts = {"file": str(written.path), "outputs": written.outputs}
        typer.echo(json.dumps({**facts, "why_no_maps": written.why_no_maps}))
    else:
        size = sum(file.stat().st_size for file in (written.path, *written.path.glob("*")))
        typer.echo(f"{written.path} ({', '.join(written.outputs)}; {size / 1e6:.1f} MB)")
