"""Changing the hierarchy on the page, and what that changes."""
