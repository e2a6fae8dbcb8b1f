"""Networks: their names, weights, last layer, positions and preprocessing."""

TIMM = "timm:"  # begins the name of a pretrained timm model, wherever a model is named
