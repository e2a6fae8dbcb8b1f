"""Training data: splits, checks, augmentation, batches."""
