"""Node maps: the layer they are computed on, closed forms, and other methods."""
