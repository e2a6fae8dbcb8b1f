"""Recipes: one TOML file a run."""
