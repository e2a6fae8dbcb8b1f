"""Whether a model's explanations can be trusted, measured."""

from .run import audit

__all__ = ["audit"]
