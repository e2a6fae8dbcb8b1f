"""Decisions: rules, paths, the head, node maps, attaching to other models, metrics."""
