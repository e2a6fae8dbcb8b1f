"""Training from a recipe, with Lightning. torchvision is repaired here, before Lightning loads it."""

from nbdt.torchvision_cpu import import_torchvision

import_torchvision()
