"""Networks: their names, weights, last layer, positions and preprocessing."""
