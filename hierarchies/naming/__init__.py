"""Names for inner nodes."""
