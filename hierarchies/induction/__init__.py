"""Hierarchies induced from a classifier."""
