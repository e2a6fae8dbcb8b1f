"""Builds the bundled model `imagenet`: ``python tools/build_imagenet.py [--data DIR]``.

It fits the temperature on 650 ImageNet validation photographs and writes nbdt/bundled/imagenet:
config.json, hierarchy.json, the reference set (logits and labels of these photographs) and the
card. The weights stay in their own package; see nbdt/network/installed_weights.py.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
import typer
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from nbdt import DecisionRules
from nbdt.decide.metrics import accuracy, calibration_error
from nbdt.files import new_folder
from nbdt.hierarchies import load
from nbdt.hierarchies.measure.calibrate import fitted_temperature
from nbdt.images.dataset import iter_images
from nbdt.model.hub import figures, limits
from nbdt.model.model import NBDT
from nbdt.model.saved import FORMAT, REFERENCE, VERSION, file_hashes
from nbdt.network import installed_weights
from nbdt.tree.hierarchy import Hierarchy

OUT = Path(__file__).parents[1] / "nbdt" / "bundled" / "imagenet"
DATA = Path(os.environ.get("NBDT_DATA", "../shared/data"))
PHOTOGRAPHS = "imagenet_val650_227.tar"
TREE = "imagenet1k-readable"
FOLDS = 5


def flat_logits(model: NBDT, archive: Path) -> tuple[Tensor, Tensor]:
    """Return logits (images, 1000) and labels of an archive of photographs in folders of WordNet ids."""
    class_of = {wnid: index for index, wnid in enumerate(model.hierarchy.class_wnids)}
    rows, labels = [], []
    with torch.inference_mode():
        for source in track(list(iter_images(archive, "val")), "Photographs"):
            rows.append(model.logits(model.preprocess(source.open())[None])[0])
            labels.append(class_of[source.label])
    return torch.stack(rows), torch.tensor(labels)


def calibration(rules: DecisionRules, logits: Tensor, labels: Tensor) -> float:
    """Return the calibration error, each fifth of the photographs under the temperature of the others."""
    fold = torch.arange(len(labels)) % FOLDS
    chances = torch.empty(len(labels))
    for part in range(FOLDS):
        temperature = fitted_temperature(rules, logits[fold != part], labels[fold != part])
        chances[fold == part] = (logits[fold == part] / temperature).softmax(1).amax(1)
    return calibration_error(chances, logits.argmax(1) == labels)


def card(hierarchy: Hierarchy, config: dict, temperature: float) -> str:
    """Return the model card."""
    facts = config["provenance"]
    return f"""# imagenet: EfficientNet-Lite2, 1,000 classes, rule marginal

The default model: photographs of 1,000 ImageNet classes, answered without a network connection.

- **Weights**: the package {installed_weights.PACKAGE} {installed_weights.VERSION} (Apache-2.0), which has the weights that
  Google published with TensorFlow (Apache-2.0). Its file is checked by SHA-256 before it is read.
- **Training data**: the training photographs of ImageNet-1k (ILSVRC 2012).
- **Tree**: `{TREE}`, made from WordNet 3.0 (WordNet licence) and a table of everyday groups.
- **Temperature**: logits are divided by {temperature:.4f}, fitted on 650 photographs of ImageNet's
  validation split, at 227 pixels. The network never trained on them. Their logits and labels are
  the reference set.

{figures(facts)}

Measured on the same 650 photographs; the calibration error is {facts["calibration_error"]:.1%}, each fifth of them
under the temperature fitted on the others.

{limits(hierarchy.num_classes, config["preprocessing"]["size"])} It was trained on photographs that were on
the web in 2010. Its {hierarchy.num_classes:,} classes include 118 breeds of dogs, but no giraffe and no cow.
"""


def main(data: Path = DATA, *, new_tree: bool = False) -> None:
    """Write the bundled model; with --new-tree, from the reference set that is there."""
    hierarchy = load(TREE)
    name = installed_weights.ARCHITECTURE
    model = NBDT.from_timm(name, hierarchy, rule="marginal", pretrained=True).eval()
    rules = DecisionRules(hierarchy, rule="marginal")
    if new_tree:
        config, reference = (
            json.loads((OUT / "config.json").read_text()),
            load_file(OUT / REFERENCE),
        )
        temperature = config["installed_weights"]["temperature"]
        logits = reference["logits"].float() * temperature
        labels = reference["labels"].long()
    else:
        logits, labels = flat_logits(model, data / PHOTOGRAPHS)
        temperature = round(fitted_temperature(rules, logits, labels), 4)
    scaled = logits / temperature
    shares = {
        "flat": accuracy(logits.argmax(1), labels),
        "soft": accuracy(rules(scaled).argmax(1), labels),
        "hard": accuracy(rules.hard(scaled), labels),
    }
    config = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": model.architecture,
        "rule": model.rule,
        "preprocessing": asdict(model.preprocess),
        "hierarchy_hash": hierarchy.hash,
        "installed_weights": {"package": installed_weights.PACKAGE, "temperature": temperature},
        "provenance": {
            "torch": torch.__version__,
            "accuracy": {"ImageNet validation, 650 photographs": shares},
            "calibration_error": round(calibration(rules, logits, labels), 4),
        },
    }
    for file in OUT.glob("*"):
        file.unlink()
    if OUT.exists():
        OUT.rmdir()
    with new_folder(OUT) as folder:
        save_file({"logits": scaled.half(), "labels": labels.short()}, folder / REFERENCE)
        hierarchy.save(folder / "hierarchy.json")
        (folder / "README.md").write_text(card(hierarchy, config, temperature))
        config["sha256"] = file_hashes(folder)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    typer.echo(json.dumps({"temperature": temperature, **config["provenance"]}, indent=1))


if __name__ == "__main__":
    typer.run(main)
