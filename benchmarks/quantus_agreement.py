"""Do Quantus and the audit rank explanation methods alike? On 100 test images of CIFAR-10.

    pip install quantus
    python benchmarks/quantus_agreement.py --data ../shared/data

Region perturbation (Quantus) is deletion by regions: with the same baseline the curves must be equal
to rounding; with Quantus's own pixel flipping and its own baseline ("mean"), the methods must at least
be in one order. Maximum sensitivity is compared in the same way. One decision an image is judged, the
root's.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
import quantus
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from nbdt import NBDT
from nbdt.explain.audit.methods import method_maps
from nbdt.explain.audit.perturbation import Trials, area, curves, ranked
from nbdt.explain.audit.sanity import RADIUS, SAMPLES, noisy, sensitivity
from nbdt.explain.maps.log_odds import log_odds
from nbdt.explain.result.regions import regrid
from nbdt.images.dataset import iter_images

METHODS = ("grad-cam", "class grad-cam", "integrated gradients", "occlusion", "saliency", "random",
           "centre")  # fmt: skip
GRID = (4, 4)
REGIONS = GRID[0] * GRID[1]
EQUAL, NOISY = 10, 10  # images for the comparison of curves, and of noise
SEED = 0


class Probabilities(nn.Module):
    """Images to the probability of every node among its siblings: what Quantus asks for."""

    def __init__(self, model: NBDT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model.head.linear(self.model.features(images.float())).double()
        return log_odds(logits, self.model.head.rules.tree, self.model.rule).sigmoid()


def test_images(model: NBDT, data: Path, count: int) -> Tensor:
    sources = iter_images(data / "cifar10_test_lossless.tar.xz")
    return torch.stack(
        [model.preprocess(s.open()) for i, s in enumerate(sources) if i % (10000 // count) == 0]
    )[:count]


QUIET = {"disable_warnings": True, "display_progressbar": False, "normalise": False}


class Case:
    """The images, the root's decision on each, and what Quantus is given of them."""

    def __init__(self, model: NBDT, images: Tensor) -> None:
        tree = model.hierarchy
        with torch.inference_mode():
            found = model.paths(images)
        self.model, self.images = model, images
        self.whole = [tree.path_of_class(path.class_index)[1:] for path in found]
        self.first = [path[:1] for path in self.whole]
        self.patch = images.shape[-1] // GRID[0]
        self.subject = Probabilities(model).eval()

    def given(self, images: Tensor) -> dict:
        targets = np.array([path[0] for path in self.first[: len(images)]])
        return {"model": self.subject, "x_batch": images.numpy(), "y_batch": targets,
                "device": "cpu", "softmax": False}  # fmt: skip

    def maps(self, images: Tensor, method: str, rng: np.random.Generator) -> list[np.ndarray]:
        """The map of the first decision of each image."""
        nodes = self.whole if method in {"grad-cam", "class grad-cam"} else self.first
        parts = range(0, len(images), 10)
        found = [
            method_maps(self.model, images[i : i + 10], nodes[i : i + 10], method, rng)
            for i in parts
        ]
        return [own[0] for part in found for own in part]


def largest_difference(case: Case, values: list[np.ndarray]) -> float:
    """Of deletion curves, ours from Quantus's region perturbation, with one baseline.

    Quantus sums a region's values and orders ties otherwise: it is given our order.
    """
    images = case.images[:EQUAL] - case.images[:EQUAL].mean(dim=(2, 3), keepdim=True)
    ours, order = our_curves(case, images, values[:EQUAL], seed=0)
    spread = np.ones((case.patch, case.patch))
    ranks = np.kron(-order.astype(float), spread)[:, None]
    metric = quantus.RegionPerturbation(
        patch_size=case.patch, regions_evaluation=REGIONS, perturb_baseline=0.0, **QUIET
    )
    falls = np.array(metric(a_batch=ranks, **case.given(images)))
    return float(np.abs(ours[:, :1] - falls - ours[:, 1:]).max())


def our_curves(
    case: Case, images: Tensor, values: list[np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deletion curves of the first decisions, (images, regions + 1), and the ranks of regions."""
    rng, found, order = np.random.default_rng(seed), [], []
    for image, nodes, own in zip(images, case.first, values, strict=False):
        order.append(ranked([own], GRID, rng))
        found.append(curves(Trials(case.model, image, nodes, GRID), order[-1], "mean", REGIONS)[0])
    return np.concatenate(found), np.concatenate(order)


def deletions(case: Case, values: list[np.ndarray]) -> tuple[float, float, float]:
    """Ours, Quantus's region perturbation and its pixel flipping, each with its own mean."""
    ours, _ = our_curves(case, case.images, values, SEED)
    cells = np.stack([np.kron(regrid(v, *GRID), np.ones((case.patch, case.patch))) for v in values])
    region = quantus.RegionPerturbation(
        patch_size=case.patch, regions_evaluation=REGIONS, perturb_baseline="mean", **QUIET
    )
    pixels = quantus.PixelFlipping(features_in_step=256, perturb_baseline="mean", **QUIET)
    given = {"a_batch": cells[:, None], **case.given(case.images)}
    return (
        float(area(ours).mean()),
        -float(np.mean(region(**given))),
        # Quantus 0.6 asks numpy for `trapz`, which numpy 2.4 no longer has: the area is ours.
        float(area(np.array(pixels(**given))).mean()),
    )


def at_pixels(maps: list[np.ndarray]) -> np.ndarray:
    """(images, 1, height, width): a coarse map's values repeated, which leaves ratios of norms alone."""
    return np.stack([np.kron(v, np.ones((32 // len(v), 32 // len(v)))) for v in maps])[:, None]


def noises(case: Case, method: str) -> tuple[float, float]:
    """Maximum sensitivity: ours and Quantus's, each with its own draws of noise."""
    images, rng = case.images[:NOISY], np.random.default_rng(SEED)
    before = case.maps(images, method, rng)
    again = [case.maps(noisy(case.model, images, rng), method, rng) for _ in range(SAMPLES)]
    ours = np.max([sensitivity([(b,) for b in before], [(a,) for a in x]) for x in again], axis=0)
    reach = RADIUS / float(np.mean(case.model.preprocess.std))

    def explained(inputs: np.ndarray, **_: object) -> np.ndarray:
        return at_pixels(case.maps(torch.as_tensor(inputs).float(), method, rng))

    metric = quantus.MaxSensitivity(
        nr_samples=SAMPLES, lower_bound=-reach, upper_bound=reach, **QUIET
    )
    theirs = metric(a_batch=at_pixels(before), explain_func=explained, **case.given(images))
    return float(ours.mean()), float(np.mean(theirs))


def compared(name: str, ours: dict[str, float], theirs: dict[str, float]) -> None:
    tau = kendalltau([ours[m] for m in METHODS], [theirs[m] for m in METHODS]).statistic
    same = sorted(METHODS, key=ours.__getitem__) == sorted(METHODS, key=theirs.__getitem__)
    print(f"\n**{name}**: Kendall's tau {tau:.2f}, same order: {'yes' if same else 'no'}\n")
    print("| method | ours | Quantus |\n|---|---|---|")
    for method in METHODS:
        print(f"| {method} | {ours[method]:.4f} | {theirs[method]:.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("NBDT_DATA") or Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--images", type=int, default=100)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # Quantus's advice
    model = NBDT.load("cifar10")
    case = Case(model, test_images(model, arguments.data, arguments.images))
    worst, deletion, noise = 0.0, {}, {}
    for method in METHODS:
        values = case.maps(case.images, method, np.random.default_rng(SEED))
        worst = max(worst, largest_difference(case, values))
        deletion[method] = deletions(case, values)
        noise[method] = noises(case, method)
    print(f"{len(case.images)} images, the root's decision, {GRID[0]} × {GRID[1]} regions")
    print(f"\none baseline, {EQUAL} images: deletion curves differ by at most {worst:.1e}")
    for place, name in ((1, "region perturbation"), (2, "pixel flipping")):
        pairs = [{m: found[i] for m, found in deletion.items()} for i in (0, place)]
        compared(f"deletion, mean, against {name}, mean", *pairs)
    pairs = [{m: found[i] for m, found in noise.items()} for i in (0, 1)]
    compared(f"maximum sensitivity, {NOISY} images", *pairs)


if __name__ == "__main__":
    main()
