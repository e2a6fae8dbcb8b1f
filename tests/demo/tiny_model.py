"""A tiny real model over any hierarchy, with a reference set of random labelled logits."""

from functools import lru_cache

import torch

from nbdt import NBDT


def labelled_logits(hierarchy, count, seed=0, spread=2.0, margin=2.0):
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, hierarchy.num_classes, (count,), generator=source)
    logits = spread * torch.randn(count, hierarchy.num_classes, generator=source)
    logits[torch.arange(count), labels] += margin
    return logits, labels


def tiny_model(hierarchy, rule="representative", images=0, **options):
    model = _untrained(hierarchy, rule).with_hierarchy(hierarchy)
    if images:
        logits, labels = labelled_logits(hierarchy, images, **options)
        model.reference = {"logits": logits.half(), "labels": labels.short()}
    return model


@lru_cache
def _untrained(hierarchy, rule):
    return NBDT.from_timm("small_convnet", hierarchy, rule=rule).eval()
