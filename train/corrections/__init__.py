"""Training from corrections."""
