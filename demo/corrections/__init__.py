"""Saying what was wrong, and the commands and models that come of it."""
