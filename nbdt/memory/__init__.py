"""Labelled photographs whose embeddings take part in the decisions."""
