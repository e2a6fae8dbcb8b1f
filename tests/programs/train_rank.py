"""One process of a training run. Arguments: data, output folder, recipe as JSON, "new" or "resume"."""

import json
import sys
import warnings

import torch

from nbdt.errors import NBDTError
from nbdt.train import train
from nbdt.train.recipe import parse_recipe

torch.set_num_threads(1)
warnings.simplefilter("ignore")


if __name__ == "__main__":
    try:
        train(
            parse_recipe(json.loads(sys.argv[3])),
            sys.argv[1],
            sys.argv[2],
            resume=sys.argv[4] == "resume",
        )
    except NBDTError as error:
        sys.exit(f"error: {error}")
