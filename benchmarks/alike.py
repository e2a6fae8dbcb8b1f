"""Whether the regions that an explanation calls alike are what makes two photographs similar.

    python benchmarks/alike.py MODEL --photos FOLDER [--memory M] [--count 40]

For each photograph, the region in the nearest training photograph of each side of the closest decision is
blurred there. The cosine of the pooled features of both photographs then falls; so it does when a region
of the same size is blurred that grew from noise (8 of them), or the centre. One thread.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nbdt import NBDT
from nbdt.explain import Explanation, explain
from nbdt.explain.maps.candidates import grown
from nbdt.explain.maps.hiding import blurred, hidden
from nbdt.explain.result.regions import AlikeRegions, cell_mask
from nbdt.images.dataset import iter_images
from nbdt.model.remember import open_memory

RANDOM = 8  # regions that grew from noise


def falls(model: NBDT, found: Explanation, alike: AlikeRegions, rng: np.random.Generator) -> list:
    """How much the cosine falls with the region blurred, with random ones on average, and the centre.

    Fourth, the share of random regions that lower it less.
    """
    mask = cell_mask(alike.theirs) > 0
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    middle = -((rows - mask.shape[0] / 2 + 0.5) ** 2 + (columns - mask.shape[1] / 2 + 0.5) ** 2)
    noise = [grown(rng.normal(size=mask.shape)) for _ in range(RANDOM)]
    masks = np.array([np.zeros_like(mask), mask, grown(middle), *noise])
    nearest = found.evidence[alike.decision].sides[alike.side][0]
    framed = replace(model.preprocess, crop_pct=1.0)
    own, theirs = framed(found.photo)[None], framed(nearest.open())[None]
    with torch.inference_mode():
        features = model.features(own.to(model.device)).float()
        pictures = hidden(theirs, blurred(theirs), torch.from_numpy(masks)).to(model.device)
        others = torch.cat([model.features(part).float() for part in pictures.split(4)])
    whole, region, centre, *random = torch.cosine_similarity(others, features).tolist()
    wins = np.mean([region < one for one in random])
    return [whole - region, whole - np.mean(random), whole - centre, wins]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--split", default=None)
    parser.add_argument("--memory")
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, rng = NBDT.load(options.model), np.random.default_rng(0)
    memory = open_memory(model, options.memory) if options.memory else model.memory
    sources = list(iter_images(options.photos, options.split))
    rows: dict[str, list] = {"chosen": [], "rejected": []}
    for place in rng.permutation(len(sources))[: options.count]:
        (found,) = explain(model, sources[place].open(), evidence=memory)
        for alike in found.alike:
            rows[alike.side].append(falls(model, found, alike, rng))
    print(
        "| side | pairs | region | random | centre | random ones beaten |\n|---|---|---|---|---|---|"
    )
    for side, values in rows.items():
        *lower, wins = np.mean(values, axis=0)
        cells = " | ".join(f"{value:.3f}" for value in lower)
        print(f"| {side} | {len(values)} | {cells} | {100 * wins:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
