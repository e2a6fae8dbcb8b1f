"""Rows of a memory whose classes are far apart, and photographs between classes."""

import numpy as np
import pytest
import torch

from nbdt.decide.head import DecisionRules
from nbdt.memory.refit import examples_of, fit_head
from nbdt.memory.table import Rows
from tests import oracle


@pytest.fixture(scope="session")
def drawn():
    """Rows of photographs, eight a class, and the middle of each class."""
    tree = oracle.family()
    draw = torch.Generator().manual_seed(0)
    middles = 3 * torch.randn(tree.num_classes, 12, generator=draw)
    place = torch.arange(tree.num_classes).repeat(8)
    features = middles[place] + torch.randn(len(place), 12, generator=draw)
    ids = tuple(f"{n:064x}" for n in range(len(place)))
    text = ("",) * len(ids)
    labels = tuple(tree.classes[int(n)] for n in place)
    active = np.ones(len(ids), bool)
    rows = Rows(ids, features.half().numpy(), labels, ids, text, text, active, text, 1)
    return rows, middles


@pytest.fixture(scope="session")
def mixed(drawn):
    """Make (features,) float16 of a photograph between classes, from shares by class index."""

    def mix(shares, seed=1):
        noise = torch.randn(12, generator=torch.Generator().manual_seed(seed))
        middle = sum(share * drawn[1][number] for number, share in shares.items())
        return (middle + 0.1 * noise).half().numpy()

    return mix


@pytest.fixture(scope="module", params=oracle.RULES)
def known(request, drawn):
    """Rows, rules, and the head fitted on the rows."""
    rows, _ = drawn
    rules = DecisionRules(oracle.family(), rule=request.param)
    return rows, rules, fit_head(examples_of(rows, rules), rules)
