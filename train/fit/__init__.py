"""Fitting: loss, training step, trainer, checkpoints."""
